"""A run's output for GitHub Actions: annotations at lines of the scenario, and a summary of the step.

An annotation is a workflow command on a line of its own; GitHub takes them from standard output and standard error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flags.document import Mistake
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report import failure, judgements, words
from sim.report.table import Code, Paragraph, Section, Table, markdown, toned
from sim.report.words import scrub

MOST = 10
"""Annotations of one level that GitHub shows for a step; it drops the others silently."""
SUMMARY_LIMIT = 1 << 20
"""Bytes of a step's summary; GitHub refuses a longer one as a whole."""
_ROOM = 4 << 10  # for the sentence about what was left out

Level = Literal["error", "warning", "notice"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One message at a place of a file, which GitHub shows beside the change and on the run's page."""

    level: Level
    title: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None

    def command(self) -> str:
        """The workflow command, one line: `::error file=a.yaml,line=3,col=5,title=T::message`."""
        known = {"file": self.file, "line": self.line, "col": self.column, "title": self.title}
        given = ",".join(f"{key}={_property(str(value))}" for key, value in known.items() if value is not None)
        return f"::{self.level} {given}::{_data(self.message)}"


def is_on(environ: Mapping[str, str] = os.environ) -> bool:
    """True where a step of GitHub Actions runs this."""
    return environ.get("GITHUB_ACTIONS") == "true"


def annotate(
    view: View, run_dir: Path, scenario_file: Path, entries: Sequence[Entry] | None = None
) -> list[Annotation]:
    """One error for each judgement that failed the run; for a run that failed without one, its reason."""
    name = view.run.name if view.run else scenario_file.stem
    seed = f"seed {view.run.seed}" if view.run else "seed unknown"
    found = []
    for each in judgements.failed(view):
        file, line, column = failure.position(view, each, scenario_file, entries)
        sandbox = each.violations[0].get("sandbox") if each.violations else None
        subject = f"{sandbox}: " if sandbox in view.sandboxes else ""
        again = failure.run_command(view, run_dir, scenario_file, str(sandbox) if subject else None)
        message = f"{subject}{judgements.message(each)} ({seed})\nrun again: {again}"
        title = f"{name}: {each.name} {each.verdict}"
        found.append(Annotation("error", title, message, _in_repository(file), line, column))
    verdict = judgements.verdict_of(view)
    if not found and verdict != "held":
        found = [Annotation("error", f"{name}: {verdict}", judgements.why(view), _in_repository(str(scenario_file)))]
    return found


def skipped(name: str, reason: str, scenario_file: Path) -> Annotation:
    """A warning for a scenario that this runner cannot run, so that it is not mistaken for one that held."""
    return Annotation("notice", f"{name}: skipped", reason, _in_repository(str(scenario_file)))


def mistakes(found: Iterable[Mistake]) -> list[str]:
    """The workflow commands for mistakes in files; none outside a step of GitHub Actions."""
    if not is_on():
        return []
    return commands(
        Annotation("error", "invalid file", each.said, _in_repository(each.file), *each.position) for each in found
    )


def commands(found: Iterable[Annotation]) -> list[str]:
    """The workflow commands, at most MOST of a level; the last one says how many more there are."""
    lines: list[str] = []
    by_level: dict[str, list[Annotation]] = {}
    for each in found:
        by_level.setdefault(each.level, []).append(each)
    for group in by_level.values():
        shown = group[:MOST]
        if len(group) > MOST:
            rest = f"{shown[-1].message}\nand {len(group) - MOST} more: see the log and the step's summary"
            shown[-1] = replace(shown[-1], message=rest)
        lines += [each.command() for each in shown]
    return lines


def section(view: View, run_dir: Path, scenario_file: Path, entries: Sequence[Entry] | None = None) -> str:
    """One run as Markdown: verdict and reason, what was judged, how the pauses ended, and the failure block."""
    name = view.run.name if view.run else scenario_file.stem
    seed = view.run.seed if view.run else "unknown"
    states = ", ".join(f"{count} {state}" for state, count in sorted(view.counts.items())) or "no sandbox"
    found = judgements.propagation(view)
    judged = Table(
        ("judged", "verdict", "checked", "violations"),
        [
            (each.name, each.verdict, str(each.checked), str(len(each.violations)))
            for each in [*judgements.invariants(view), *judgements.expectations(view)]
        ],
    )
    parts = (
        Paragraph(judgements.why(view)),
        Paragraph(toned(f"engine: {view.wrong_engine}" if view.wrong_engine else "", "bad")),
        judged,
        Paragraph(f"{words.plural(len(view.pauses), 'pause')}; at the end {states}"),
        Paragraph(f"kill switch {judgements.sentence(found)}" if found else ""),
    )
    summary = markdown(Section(f"{judgements.verdict_of(view).upper()}: {name} (seed {seed})", parts), level=3)
    if block := failure.failure_block(view, run_dir, scenario_file, entries):
        summary += f"\n\n<details><summary>what failed</summary>\n\n{markdown(Code(block))}\n\n</details>"
    return summary + "\n"


def append_summary(sections: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
    """Append Markdown to the step's summary; parts that would make it too long are left out, with a note."""
    path = environ.get("GITHUB_STEP_SUMMARY")
    if not path or not sections:
        return
    used = os.path.getsize(path) if os.path.exists(path) else 0
    written: list[str] = []
    for index, each in enumerate(sections):
        used += len(each.encode()) + 1
        if used > SUMMARY_LIMIT - _ROOM:
            left = words.plural(len(sections) - index, "scenario")
            written.append(f"{left} more: a step's summary has no room for them; see the log\n")
            break
        written.append(each)
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n".join(written))


def _in_repository(file: str) -> str:
    """As GitHub knows it: relative to the checkout if it is inside."""
    root = os.environ.get("GITHUB_WORKSPACE")
    path = os.path.abspath(file)
    return os.path.relpath(path, root) if root and os.path.commonpath([root, path]) == root.rstrip("/") else file


def _data(text: str) -> str:
    return scrub(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
