"""What a sweep says at its end: in words, as one JSON document, and for JUnit's readers."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.drill import SCENARIO_FILE
from sim.fault_catalogue import CATALOGUE, KINDS
from sim.report.words import plural
from sim.sweep.outcomes import ERROR, INCONCLUSIVE, NOT_REACHED, VIOLATED, CaseResult, first_reason, violations
from sim.sweep.sweep import Sweep
from sim.sweep.table import WIDTH, counts, table
from sim.verdict import ExitCode

BLOCKS = 5
"""Violations that are told in full; the others are counted, and all are in the JSON document."""
_NAMED = 5
_WORDS = {ExitCode.HELD: "HELD", ExitCode.VIOLATED: "VIOLATED", ExitCode.INCONCLUSIVE: "INCONCLUSIVE"}


def summary(sweep: Sweep, width: int = WIDTH) -> str:
    """The table, then the sum, what was not covered and what proves nothing; no newline at the end."""
    word = _WORDS.get(sweep.exit_code, "NOT SWEPT" if sweep.unclean else sweep.exit_code.name.replace("_", " "))
    if sweep.stopped is not None and sweep.exit_code == ExitCode.HELD:
        word += " as far as it went"
    head = f"sweep of {sweep.scenario.name}   seed {sweep.seed}   {word}"
    if sweep.unclean is not None:
        return f"{head}\nits clean run did not hold, so there is nothing to compare with: {sweep.unclean}"
    parts = [head, table(counts(sweep.results), width), *_sums(sweep)]
    return "\n\n".join(part for part in parts if part)


def _sums(sweep: Sweep) -> list[str]:
    tally = Counter(each.outcome for each in sweep.results)
    rate = f" in {sweep.seconds:.1f} s ({len(sweep.results) / sweep.seconds:.1f} a second)" if sweep.seconds else ""
    lines = [f"{plural(len(sweep.results), 'case')}{rate}, {plural(tally[VIOLATED], 'violation')}"]
    if len(sweep.results) < len(sweep.cases):
        lines.append(_covered(sweep))
    if len(sweep.cases) < sweep.found:
        lines.append(chosen(sweep))
    if not sweep.found:
        seeds = f"; seeds draw them: snapdrill run {sweep.scenario.path} --seeds 1-200" if sweep.scenario.swarm else ""
        lines.append(f"its clean run has no pause and no resume, so nothing can fail in it{seeds}")
    for outcome, why in (
        (NOT_REACHED, "the fault never fired"),
        (INCONCLUSIVE, "out of time"),
        (ERROR, "the run broke"),
    ):
        if cases := [each for each in sweep.results if each.outcome == outcome]:
            lines.append(f"{outcome}: {plural(len(cases), 'case')}, {why}: {names(cases)}")
            lines += [f"  {each.case.name}: {each.why}" for each in cases[:_NAMED] if each.why]
    return ["\n".join(lines)]


def chosen(sweep: Sweep) -> str:
    """How many cases --only and --shard have left."""
    hint = "" if sweep.cases else "\n--list without --only prints their names"
    return f"chosen: {len(sweep.cases)} of the {sweep.found} cases that the clean run showed{hint}"


def _covered(sweep: Sweep) -> str:
    """What an early end left out."""
    groups = {(each.point.fault, each.kind) for each in sweep.cases}
    met = {(each.case.point.fault, each.case.kind) for each in sweep.results}
    return (
        f"stopped by {sweep.stopped}: covered {len(sweep.results)} of {len(sweep.cases)} cases, "
        f"{len(met)} of {len(groups)} pairs of point and kind"
    )


def names(cases: Sequence[CaseResult]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(cases) - _NAMED} more" if len(cases) > _NAMED else ""
    return ", ".join(each.case.name for each in cases[:_NAMED]) + more


def findings(sweep: Sweep) -> list[dict[str, Any]]:
    """Every violation: the case, what was violated and why, and where and how to look at it."""
    broken = [(each.case.name, each.broken, each.run_dir) for each in sweep.results if each.outcome == VIOLATED]
    if judged := violations(sweep.clean):
        broken.insert(0, ("clean", judged, sweep.clean.run_dir))
    return [
        {
            "scenario": sweep.scenario.name,
            "case": case,
            "subject": judged[0].subject,
            "also": [each.subject for each in judged[1:]],
            **{key: value for key, value in first_reason(judged[0]).items() if key not in {"line", "column"}},
            **_ways_on(run_dir),
        }
        for case, judged, run_dir in broken
    ]


def _ways_on(run_dir: Path | None) -> dict[str, str]:
    if run_dir is None:
        return {}
    return {
        "run_dir": str(run_dir),
        "run_again": shlex.join(["snapdrill", "run", str(run_dir / SCENARIO_FILE)]),
        "replay": shlex.join(["snapdrill", "replay", str(run_dir)]),
    }


def blocks(sweep: Sweep) -> str:
    """The first violations with the commands to go on with, the others by name; "" where there is none."""
    found = findings(sweep)
    told = [_block(each) for each in found[:BLOCKS]]
    if rest := found[BLOCKS:]:
        told.append(f"and {plural(len(rest), 'more violation')}:")
        told[-1] += "".join(f"\n  {each['case']}: {each['subject']}" for each in rest)
    return "\n\n".join(told)


def _block(found: dict[str, Any]) -> str:
    rows = [
        ("also", ", ".join(found["also"])),
        ("sandbox", found.get("sandbox")),
        ("page", found.get("page")),
        ("reason", found.get("reason")),
        ("run folder", found.get("run_dir")),
        ("run again", found.get("run_again")),
        ("look at it", found.get("replay")),
    ]
    lines = [f"VIOLATED {found['subject']} in {found['scenario']} {found['case']}"]
    return "\n".join([*lines, *(f"  {label:<10} {text}" for label, text in rows if text not in {None, ""})])


def document(sweeps: Sequence[Sweep], code: int, skipped: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """The `--json` document: the sums over all scenarios, then each scenario."""
    every = [each for sweep in sweeps for each in sweep.results]
    return {
        "version": 1,
        "exit_code": int(code),
        "cases": len(every),
        "violations": [each for sweep in sweeps for each in findings(sweep)],
        "by_point": counts(every),
        "scenarios": [_of_scenario(each) for each in sweeps],
        "skipped": list(skipped),
    }


def _of_scenario(sweep: Sweep) -> dict[str, Any]:
    return {
        "name": sweep.scenario.name,
        "file": str(sweep.scenario.path),
        "seed": sweep.seed,
        "cases": len(sweep.results),
        "chosen": len(sweep.cases),
        "found": sweep.found,
        "seconds": round(sweep.seconds, 3),
        "stopped": sweep.stopped,
        "unclean": sweep.unclean,
        "by_point": counts(sweep.results),
        "proves_nothing": [
            {"case": each.case.name, "outcome": each.outcome, "why": each.why}
            for each in sweep.results
            if each.outcome in {NOT_REACHED, INCONCLUSIVE, ERROR}
        ],
    }


def points() -> str:
    """The catalogue: each point, what is done there, and the kinds of fault that it can have; then the kinds."""
    rows: list[tuple[str, str]] = []
    for point, spec in CATALOGUE.items():
        rows.append((point, f"{spec.sentence}{' (once a chunk)' if spec.chunked else ''}"))
        rows.append(("", ", ".join(spec.kinds)))
    return "\n".join(map(_row, [*rows, *KINDS.items()]))


def _row(row: tuple[str, str]) -> str:
    first, text = row
    return textwrap.fill(text, WIDTH, initial_indent=f"{first:<14}", subsequent_indent=" " * 14)
