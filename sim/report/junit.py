"""junit.xml: one suite a scenario, one case an invariant or expectation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from junitparser.junitparser import Attr, IntAttr

from sim.record.ledger import Entry
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.report import failure, judgements
from sim.report.judgements import Judgement
from sim.report.words import scrub

_TO_SECONDS = len("2026-01-02T03:04:05")
"""JUnit's timestamps have no zone; ours are UTC."""


class _TestCase(TestCase):
    """With the place, which some consumers link to."""

    file = Attr()
    line = IntAttr()


def suite(view: View, run_dir: Path, scenario_file: Path, entries: Sequence[Entry] | None = None) -> TestSuite:
    """One run: seed, digest and the two commands as properties, then its cases; seconds are the run's."""
    made = TestSuite(scrub(_name(view, scenario_file)))
    for name, value in _properties(view, run_dir, scenario_file).items():
        made.add_property(name, scrub(value))
    if view.run:
        made.timestamp = scrub(view.run.started[:_TO_SECONDS])
    judged = [*judgements.invariants(view), *judgements.expectations(view)]
    names = _unique([each.name for each in judged])
    cases = [_case(name, view, each, run_dir, scenario_file, entries) for name, each in zip(names, judged, strict=True)]
    if unexplained := _unexplained(view, scenario_file):
        cases.append(unexplained)
    made.add_testcases(cases)
    made.time = view.t
    return made


def write_junit(path: Path, suites: Iterable[TestSuite]) -> None:
    """Write one junit.xml atomically."""
    document = JUnitXml()
    for each in suites:
        document.add_testsuite(each)
    partial = path.with_name(f".{path.name}.partial")
    document.write(str(partial), pretty=True)
    os.replace(partial, path)


def _name(view: View, scenario_file: Path) -> str:
    return view.run.name if view.run else scenario_file.stem


def _unique(names: Sequence[str]) -> list[str]:
    """Two expectations of one metric are two cases; consumers would merge cases of one name."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found


def _properties(view: View, run_dir: Path, scenario_file: Path) -> dict[str, str]:
    found = {
        "seed": str(view.run.seed) if view.run else "unknown",
        "verdict": judgements.verdict_of(view),
        "scenario": str(scenario_file),
        "run again": failure.run_command(view, run_dir, scenario_file),
        "replay": failure.replay_command(run_dir),
    }
    if view.ended and view.ended.digest:
        found["digest"] = view.ended.digest
    return found


def _case(
    name: str, view: View, judgement: Judgement, run_dir: Path, scenario_file: Path, entries: Sequence[Entry] | None
) -> TestCase:
    case = _TestCase(scrub(name), scrub(_name(view, scenario_file)), 0.0)  # judged together: the time is the suite's
    file, line, _ = failure.position(view, judgement, scenario_file, entries)
    case.file = scrub(file)
    if line is not None:
        case.line = line
    match judgement.verdict:
        case judgements.NOT_EXERCISED:
            case.result = [Skipped("not exercised: nothing that this run did is checked by it")]
        case Verdict.VIOLATED if judgement.expected:
            case.system_out = "violated, as the scenario expects"
        case Verdict.VIOLATED:
            case.result = [Failure(scrub(judgements.message(judgement)), "Violated")]
        case Verdict.INCONCLUSIVE:
            case.result = [Error(scrub(judgements.message(judgement)), "Inconclusive")]
    for result in case.result:
        if isinstance(result, Failure | Error):
            result.text = scrub(failure.judgement_block(view, judgement, run_dir, scenario_file, entries))
    return case


def _unexplained(view: View, scenario_file: Path) -> TestCase | None:
    """A run that did not hold although no case says why: cut off, interrupted, out of time."""
    verdict = judgements.verdict_of(view)
    if verdict == Verdict.HELD or judgements.failed(view):
        return None
    case = _TestCase("run", scrub(_name(view, scenario_file)), 0.0)
    case.result = [Error(judgements.why(view), verdict.capitalize())]
    return case
