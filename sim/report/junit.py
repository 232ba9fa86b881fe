"""junit.xml: one suite a scenario, one case an invariant or expectation."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from sim.report import failure, judgements
from sim.report.judgements import Judgement
from sim.verdict import Verdict
from sim.view import View

# What XML 1.0 has no way to write; junitparser fails on these or writes a file that no parser reads.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def scrub(text: str) -> str:
    """Control characters and whatever else XML cannot hold become U+FFFD."""
    return _UNWRITABLE.sub("\ufffd", text)


def suite(view: View, run_dir: Path, scenario_file: Path) -> TestSuite:
    """One run: seed, digest and the two commands as properties, then its cases."""
    made = TestSuite(scrub(view.run.name if view.run else scenario_file.stem))
    for name, value in _properties(view, run_dir, scenario_file).items():
        made.add_property(name, scrub(value))
    if view.run:
        made.timestamp = view.run.started
    judged = [*judgements.invariants(view), *judgements.expectations(view)]
    made.add_testcases([_case(view, each, run_dir, scenario_file) for each in judged])
    if unexplained := _unexplained(view):
        made.add_testcase(unexplained)
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


def _case(view: View, judgement: Judgement, run_dir: Path, scenario_file: Path) -> TestCase:
    case = TestCase(scrub(judgement.name), scrub(view.run.name if view.run else scenario_file.stem))
    match judgement.verdict:
        case judgements.NOT_EXERCISED:
            case.result = [Skipped("not exercised: nothing in this run put it to the test")]
        case Verdict.VIOLATED if judgement.expected:
            case.system_out = "violated, as the scenario expects"
        case Verdict.VIOLATED:
            case.result = [Failure(_message(judgement), "Violated")]
        case Verdict.INCONCLUSIVE:
            case.result = [Error(_message(judgement), "Inconclusive")]
    for result in case.result:
        if isinstance(result, Failure | Error):
            result.text = scrub(failure.judgement_block(view, judgement, run_dir, scenario_file))
    return case


def _message(judgement: Judgement) -> str:
    reasons = [str(each["reason"]) for each in judgement.violations if each.get("reason")]
    return scrub(reasons[0] if reasons else f"{judgement.name} is {judgement.verdict}")


def _unexplained(view: View) -> TestCase | None:
    """A run that did not hold although no case says why: cut off, interrupted, out of time."""
    verdict = judgements.verdict_of(view)
    if verdict == Verdict.HELD or failure.failed(view):
        return None
    case = TestCase("run", scrub(view.run.name if view.run else "run"))
    text = "the run ended without judging everything" if view.ended else "the record was cut off: there is no verdict"
    case.result = [Error(text, verdict.capitalize())]
    return case
