"""The reports of a sweep."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from sim.files.faults import CATALOGUE, KINDS
from sim.record.folder import SCENARIO_FILE
from sim.record.verdict import ExitCode
from sim.report import github
from sim.report.failure import here
from sim.report.outlet import say_commands
from sim.report.table import WIDTH, Paragraph, Part, Section, Table, Words, code, facts, fence, text
from sim.report.words import plural, scrub
from sim.run.cases import first_reason
from sim.run.sweep import (
    ERROR,
    INCONCLUSIVE,
    NOT_REACHED,
    OUTCOMES,
    VIOLATED,
    CaseResult,
    Sweep,
)

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Point -> kind -> outcome -> number of cases."""
SHORT = {
    "finished": "done",
    "rolled back": "back",
    "discarded": "disc",
    "refused": "refu",
    "running": "run",
    "paused": "paus",
    "killed": "kill",
    "recovered": "rec",
    NOT_REACHED: "miss",
    INCONCLUSIVE: "open",
    ERROR: "ERR",
    VIOLATED: "VIOL",
}
"""The short word of an outcome in a cell."""


def counts(results: Iterable[CaseResult]) -> dict[str, dict[str, dict[str, int]]]:
    """Points and kinds in the catalogue's order, outcomes in theirs; only those that occur."""
    found = Counter((each.case.point.fault, each.case.kind, each.outcome) for each in results)
    table: dict[str, dict[str, dict[str, int]]] = {}
    for point in CATALOGUE:
        for kind in KINDS:
            for outcome in OUTCOMES:
                if number := found[point, kind, outcome]:
                    table.setdefault(point, {}).setdefault(kind, {})[outcome] = number
    return table


def table(counted: Counts) -> Table:
    """Points down, kinds across, each cell a line an outcome."""
    kinds = [kind for kind in KINDS if any(kind in cells for cells in counted.values())]
    rows = [(point, *(_cell(cells.get(kind, {})) for kind in kinds)) for point, cells in counted.items()]
    return Table(("", *kinds), rows)


def legend(counted: Counts) -> Paragraph:
    """The meaning of the table's short words."""
    used = {outcome for cells in counted.values() for cell in cells.values() for outcome in cell}
    return Paragraph(" · ".join(f"{SHORT[outcome]} {outcome}" for outcome in OUTCOMES if outcome in used))


def _cell(outcomes: Mapping[str, int]) -> str:
    digits = max((len(str(number)) for number in outcomes.values()), default=1)
    return "\n".join(f"{number:>{digits}} {SHORT[outcome]}" for outcome, number in outcomes.items())


BLOCKS = 5
"""Violations that are shown in full; the others are counted, and all are in the JSON document."""
_NAMED = 5
_WORDS = {ExitCode.HELD: "HELD", ExitCode.VIOLATED: "VIOLATED", ExitCode.INCONCLUSIVE: "INCONCLUSIVE"}


def summary(sweep: Sweep) -> str:
    """The table, then the counts, what was not covered and what proves nothing; no newline at the end."""
    return text(sections(sweep))


def sections(sweep: Sweep) -> list[Part]:
    """The parts of the summary."""
    word = _WORDS.get(sweep.exit_code, "NOT SWEPT" if sweep.unclean else sweep.exit_code.name.replace("_", " "))
    if sweep.stopped is not None and sweep.exit_code == ExitCode.HELD:
        word += " so far (stopped early)"
    kind = f"--guest {sweep.scenario.asked_guest}   " if sweep.scenario.asked_guest else ""
    head = f"sweep of {sweep.scenario.name}   seed {sweep.seed}   {kind}{word}"
    if sweep.unclean is not None:
        why = f"its clean run did not hold, so there is nothing to compare with: {sweep.unclean}"
        return [Paragraph(f"{head}\n{why}")]
    counted = counts(sweep.results)
    return [Paragraph(head), table(counted), legend(counted), Paragraph(_sums(sweep))]


def _sums(sweep: Sweep) -> str:
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
    return "\n".join(lines)


def chosen(sweep: Sweep) -> str:
    """How many cases --only and --shard have chosen."""
    hint = "" if sweep.cases else "\n--list without --only prints their names"
    return f"chosen: {len(sweep.cases)} of the {sweep.found} cases that the clean run showed{hint}"


def _covered(sweep: Sweep) -> str:
    """What a sweep that was stopped early has covered."""
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
    """Every violation: the case, the subject and reason, the place, and the commands to look at it."""
    broken = [(each.case.name, each.broken, each.run_dir) for each in sweep.results if each.outcome == VIOLATED]
    if judged := sweep.clean.violated:
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
        "run_again": shlex.join(["snapdrill", "run", here(run_dir / SCENARIO_FILE)]),
        "replay": shlex.join(["snapdrill", "replay", here(run_dir)]),
    }


def blocks(sweep: Sweep) -> str:
    """The first violations with commands to try next, the others by name; "" if there is none."""
    found = findings(sweep)
    blocks = [_block(each) for each in found[:BLOCKS]]
    if rest := found[BLOCKS:]:
        blocks.append(f"and {plural(len(rest), 'more violation')}:")
        blocks[-1] += "".join(f"\n  {each['case']}: {each['subject']}" for each in rest)
    return "\n\n".join(blocks)


def _block(found: dict[str, Any]) -> str:
    rows: list[tuple[str, Words]] = [
        ("also", ", ".join(found["also"])),
        *((key, str(found[key])) for key in ("sandbox", "page") if found.get(key) is not None),
        ("reason", str(found.get("reason") or "none is recorded")),
        *((label, code(found[key])) for label, key in _WAYS_ON.items() if key in found),
    ]
    return text(Section(f"VIOLATED {found['subject']} in {found['scenario']} {found['case']}", (facts(rows),)))


_WAYS_ON = {"run folder": "run_dir", "run again": "run_again", "look at it": "replay"}


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
        "guest": sweep.scenario.asked_guest,
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
    """The catalogue: each point, what is done there, and its kinds of fault; then the kinds."""
    rows: list[tuple[str, str]] = []
    for point, spec in CATALOGUE.items():
        rows.append((point, f"{spec.sentence}{' (once a chunk)' if spec.chunked else ''}"))
        rows.append(("", ", ".join(spec.kinds)))
    return text(Table((), [*rows, *KINDS.items()], "<~"))


def annotate_github(sweeps: Sequence[Sweep]) -> None:
    """In a step of GitHub Actions: an annotation for each violation on standard error, and each sweep in the step's
    summary."""
    if not github.is_on():
        return
    say_commands(github.commands(each for sweep in sweeps for each in annotate(sweep)))
    github.append_summary([_section(each) for each in sweeps])


def annotate(sweep: Sweep) -> list[github.Annotation]:
    """One error for each violation."""
    file = str(sweep.scenario.path)
    return [
        github.Annotation(
            "error",
            f"{each['scenario']}: {each['subject']} violated",
            f"{each['case']}: {each.get('reason')}\nrun again: {each.get('run_again')}",
            file,
        )
        for each in findings(sweep)
    ]


def _section(sweep: Sweep) -> str:
    report = text(sections(sweep), width=WIDTH)
    return fence("\n\n".join(filter(None, [report, blocks(sweep)]))) + "\n"


def junit(sweep: Sweep) -> TestSuite:
    """One suite a scenario, one test case a point and kind."""
    suite = TestSuite(scrub(f"sweep of {sweep.scenario.name}"))
    suite.add_property("seed", str(sweep.seed))
    suite.add_property("scenario", scrub(str(sweep.scenario.path)))
    groups: dict[tuple[str, str], list[CaseResult]] = {}
    for each in sweep.results:
        groups.setdefault((each.case.point.fault, each.case.kind), []).append(each)
    for (point, kind), cases in groups.items():
        suite.add_testcase(_testcase(point, kind, cases))
    if sweep.unclean is not None:
        clean = TestCase("clean run", suite.name)
        clean.result = [Failure(scrub(sweep.unclean), "Violated" if sweep.clean.violated else "Error")]
        suite.add_testcase(clean)
    suite.time = sweep.seconds
    return suite


def _testcase(point: str, kind: str, cases: Sequence[CaseResult]) -> TestCase:
    made = TestCase(kind, f"sweep.{point}", sum(each.seconds for each in cases))
    tally = Counter(each.outcome for each in cases)
    made.system_out = ", ".join(f"{number} {outcome}" for outcome, number in tally.items())
    for outcome, result in ((VIOLATED, Failure), (ERROR, Error), (INCONCLUSIVE, Error)):
        if bad := [each for each in cases if each.outcome == outcome]:
            made.result = [result(scrub(f"{plural(len(bad), 'case')}: {names(bad)}"), outcome.capitalize())]
            made.result[0].text = scrub("\n".join(f"{each.case.name}: {each.why} ({each.run_dir})" for each in bad))
            break
    else:
        if set(tally) == {NOT_REACHED}:
            made.result = [Skipped("the fault never fired")]
    return made
