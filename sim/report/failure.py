"""The block that a failing run ends with: what failed, where, the last events, and the commands to try next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine import events as copying
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.record.view import PauseView, View
from sim.report import sentences, words
from sim.report.judgements import Judgement, failed

LAST_EVENTS = 10
_CONTENT_LENGTH = 72
_NOT_TOLD = (*sentences.SAMPLES, copying.ChunkPublished, copying.ChunkPunched)
_SHARED = (
    events.FlagSet,
    source_events.OutageBegan,
    source_events.OutageEnded,
    source_events.FlagSourceChanged,
    events.FaultArmed,
    events.FaultsCleared,
    events.NodeCrashed,
    events.NodeStarted,
)


def failure_block(view: View, run_dir: Path, scenario_file: Path, entries: Sequence[Entry] | None = None) -> str:
    """One block for each violated or inconclusive judgement, "" where nothing failed. No newline at the end.

    `entries` is the whole ledger, if available: the view keeps only its latest entries.
    """
    return "\n\n".join(judgement_block(view, each, run_dir, scenario_file, entries) for each in failed(view))


def judgement_block(
    view: View, judgement: Judgement, run_dir: Path, scenario_file: Path, entries: Sequence[Entry] | None = None
) -> str:
    """One judgement's block: its first violation in full, the others counted."""
    violation = judgement.violations[0] if judgement.violations else {}
    known = violation.get("sandbox") in view.sandboxes
    sandbox = str(violation["sandbox"]) if known else None
    pause = _pause_of(view, violation)
    log = view.log if entries is None else entries
    rows = [
        ("where", place(log, violation, pause, scenario_file)),
        ("seed", str(view.run.seed) if view.run else None),
        ("engine", view.wrong_engine),
        ("sandbox", _who(sandbox, violation)),
        ("page", _text(violation.get("page"))),
        ("expected", _text(violation.get("expected"))),
        ("found", _text(violation.get("found"))),
        ("reason", str(violation["reason"]) if "reason" in violation else None),
        ("decision", words.decision(pause.decision) if pause and pause.decision else None),
        ("also", _others(judgement)),
    ]
    lines = [f"{judgement.verdict.upper()} {judgement.name}"]
    lines += [f"  {label:<10} {text}" for label, text in rows if text]
    lines += _last_events(log, sandbox)
    lines.append(f"  run again  {run_command(view, run_dir, scenario_file, sandbox)}")
    lines.append(f"  look at it {replay_command(run_dir, sandbox)}")
    return "\n".join(lines)


def run_command(view: View, run_dir: Path, scenario_file: Path, sandbox: str | None = None) -> str:
    """The command that runs it again, with the same seed and where it failed.

    Paths are relative to the working directory where they are below it, so that the line also runs in another checkout.
    The copy of the scenario in the run folder has the values of its variables and its matrix applied.
    """
    parts = ["snapdrill", "run", here(scenario_file)]
    if view.run:
        is_copy = scenario_file.absolute().parent == run_dir.absolute()
        drawn = {} if is_copy else view.run.drawn
        parts += ["--obey-unsafe"] if view.run.obey_unsafe and not is_copy else []
        parts += ["--guest", view.run.guest] if view.run.guest and not is_copy else []
        for name, value in drawn.get("vars", {}).items():
            parts += ["--var", f"{name}={json.dumps(value) if isinstance(value, bool) else value}"]
        parts += ["--only", view.run.name] if drawn.get("matrix") else []
        parts += ["--seed", str(view.run.seed)]
    if sandbox:
        parts += ["--only", sandbox]
    return shlex.join([*parts, "--runs-dir", here(run_dir.parent.parent)])


def here(path: Path) -> str:
    """Relative to the working directory if it is below that."""
    return os.path.relpath(path) if path.absolute().is_relative_to(Path.cwd()) else str(path)


def replay_command(run_dir: Path, sandbox: str | None = None) -> str:
    """The command that shows the recording."""
    return shlex.join(["snapdrill", "replay", here(run_dir), *(["--sandbox", sandbox] if sandbox else [])])


def position(
    view: View, judgement: Judgement, scenario_file: Path, entries: Sequence[Entry] | None = None
) -> tuple[str, int | None, int | None]:
    """File, line and column of a judgement's first violation, as `place` says them."""
    violation = judgement.violations[0] if judgement.violations else {}
    return _position(view.log if entries is None else entries, violation, _pause_of(view, violation), scenario_file)


def place(log: Iterable[Entry], violation: dict[str, Any], pause: PauseView | None, scenario_file: Path) -> str:
    """`file:line:column` of the violation, else of the step in which its pause began, else the file alone."""
    return ":".join(str(part) for part in _position(log, violation, pause, scenario_file) if part is not None)


def _position(
    log: Iterable[Entry], violation: dict[str, Any], pause: PauseView | None, scenario_file: Path
) -> tuple[str, int | None, int | None]:
    file = str(violation.get("file") or scenario_file)
    line, column = violation.get("line"), violation.get("column")
    if line is None and pause is not None and (step := _step_at(log, pause.began)):
        return step.file or file, step.line, step.column
    return file, line, column


def _step_at(log: Iterable[Entry], t: float) -> events.StepStarted | None:
    found = None
    for entry in log:
        if isinstance(entry.event, events.StepStarted) and entry.t <= t:
            found = entry.event
    return found


def _pause_of(view: View, violation: dict[str, Any]) -> PauseView | None:
    """The pause it names, else the sandbox's last."""
    name, sandbox = violation.get("pause"), violation.get("sandbox")
    named = [each for each in view.pauses if each.id == name]
    last = [each for each in view.pauses if each.sandbox == sandbox]
    return next(reversed(named or last), None)


def _who(sandbox: str | None, violation: dict[str, Any]) -> str | None:
    more = [f"{key} {violation[key]}" for key in ("incarnation", "pause") if violation.get(key)]
    return f"{sandbox}{' (' + ', '.join(more) + ')' if more else ''}" if sandbox else None


def _others(judgement: Judgement) -> str | None:
    others = judgement.violations[1:]
    if not others:
        return None
    names = dict.fromkeys(str(each["sandbox"]) for each in others if each.get("sandbox", "*") != "*")
    first = ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "")
    return words.plural(len(others), "more violation") + (f": {first}" if first else "")


def _last_events(log: Iterable[Entry], sandbox: str | None) -> list[str]:
    """The last events of this sandbox, and of the whole run among them."""
    related = [
        entry
        for entry in log
        if (entry.sandbox == sandbox if entry.sandbox else isinstance(entry.event, _SHARED))
        and not isinstance(entry.event, _NOT_TOLD)
    ]
    lines = [f"    {words.clock(entry.t)}  {sentences.sentence(entry)}" for entry in related[-LAST_EVENTS:]]
    return ["  last events", *lines] if lines else []


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= _CONTENT_LENGTH else f"{text[:_CONTENT_LENGTH]}... ({len(text)} characters)"
