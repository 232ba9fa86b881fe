"""JUnit files: one suite a scenario, one case an invariant or expectation, and one for the run itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite
from junitparser.junitparser import Attr, IntAttr

from engine.errors import UserError
from sim.record.ledger import Entry
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.report import failure, judgements
from sim.report.judgements import Judgement
from sim.report.words import scrub

_TO_SECONDS = len("2026-01-02T03:04:05")
"""JUnit's timestamps have no zone; ours are UTC."""
RUN = "run"
"""The case of the run itself: it has the run's time, and fails where no other case says why the run did."""
Family = Literal["xunit1", "xunit2"]
"""`xunit2` is what the strict schema of Jenkins allows: cases without file and line."""


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
    cases = [
        _case(name, view, each, run_dir, scenario_file, entries)
        for name, each in zip(_unique(judged), judged, strict=True)
    ]
    made.add_testcases([_run_case(view, scenario_file), *cases])
    return made


def without_result(name: str, file: Path | None, *, skipped: str = "", error: str = "") -> TestSuite:
    """A suite for a run that has none of its own: one case, skipped with this reason or with this error."""
    made = TestSuite(scrub(name))
    case = _TestCase(RUN, scrub(name), 0.0)
    case.result = [Error(scrub(error), "Error") if error else Skipped(scrub(skipped))]
    if file is not None:
        case.file = scrub(str(file))
    made.add_testcase(case)
    return made


class JunitFile:
    """The file of `--junit`: written again with each suite, so it exists and is whole whatever ends the command."""

    def __init__(self, path: Path, family: Family = "xunit1") -> None:
        """UserError where it cannot be written, before anything has run."""
        self._path, self._family = path, family
        self._suites: list[TestSuite] = []
        self._write()

    @classmethod
    def of(cls, path: Path | None, family: Family) -> JunitFile | None:
        """None where no file is asked for."""
        return None if path is None else cls(path, family)

    def add(self, *suites: TestSuite) -> None:
        """Suites in the order in which they ended."""
        self._suites += suites
        self._write()

    def _write(self) -> None:
        try:
            write_junit(self._path, self._suites, self._family)
        except OSError as error:
            what = f"{self._path}: cannot be written: {error.strerror}"
            raise UserError(f"{what}; give a file in an existing folder that you may write to") from None


def write_junit(path: Path, suites: Iterable[TestSuite], family: Family = "xunit1") -> None:
    """Write one JUnit file atomically, with the totals of its suites; times in seconds, to the millisecond."""
    document = JUnitXml()
    for each in suites:
        document.append(each)  # type: ignore[no-untyped-call]
    _add_totals(document)
    if family == "xunit2":
        for element in document._elem.iter():  # noqa: SLF001 - junitparser has no call that takes an attribute away
            for name in _STRICT.get(element.tag, ()):
                element.attrib.pop(name, None)
    partial = path.with_name(f".{path.name}.partial")
    document.write(str(partial), pretty=True)
    os.replace(partial, path)


_STRICT = {"testcase": ("file", "line"), "testsuites": ("skipped",)}
"""Attributes that the strict schema does not know."""


def _add_totals(document: JUnitXml) -> None:
    """Of the suites as they are: a suite's time is not the sum of its cases where these ran side by side."""
    suites = list(document)
    for name in ("tests", "failures", "errors", "skipped"):
        setattr(document, name, sum(getattr(each, name) for each in suites))
    for each in suites:
        each.time = round(each.time, 3)
    document.time = round(sum(each.time for each in suites), 3)


def _name(view: View, scenario_file: Path) -> str:
    return view.run.name if view.run else scenario_file.stem


def _unique(judged: Sequence[Judgement]) -> list[str]:
    """Names of which each is another, and the same in the next run: several of one name have their places.

    Judgements of an older ledger have no place; they are numbered.
    """
    total = Counter(each.name for each in judged)
    seen: Counter[str] = Counter()
    found = []
    for each in judged:
        name = each.name if total[each.name] == 1 or each.place is None else f"{each.name} ({_place(each.place)})"
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found


def _place(place: dict[str, Any]) -> str:
    file, line = place.get("file"), place["line"]
    return f"{os.path.basename(file)}:{line}" if file else f"line {line}"


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
    case = _TestCase(scrub(name), scrub(_name(view, scenario_file)), 0.0)  # the time is the run's: see RUN
    file, line, _ = failure.position(view, judgement, scenario_file, entries)
    case.file = scrub(file)
    if line is not None:
        case.line = line
    match judgement.verdict:
        case judgements.NOT_EXERCISED:
            case.result = [Skipped("not exercised: nothing that this run did is checked by it")]
        case Verdict.VIOLATED | Verdict.INCONCLUSIVE if judgement.expected:
            case.system_out = f"{judgement.verdict}, as the scenario expects"
        case Verdict.VIOLATED:
            case.result = [Failure(scrub(judgements.message(judgement)), "Violated")]
        case Verdict.INCONCLUSIVE:
            case.result = [Error(scrub(judgements.message(judgement)), "Inconclusive")]
    for result in case.result:
        if isinstance(result, Failure | Error):
            result.text = scrub(failure.judgement_block(view, judgement, run_dir, scenario_file, entries))
    return case


def _run_case(view: View, scenario_file: Path) -> TestCase:
    """An error where the run did not hold although no other case says why: cut off, interrupted, out of time."""
    case = _TestCase(RUN, scrub(_name(view, scenario_file)), round(view.t, 3))
    case.file = scrub(str(scenario_file))
    verdict = judgements.verdict_of(view)
    if verdict != Verdict.HELD and not judgements.failed(view):
        case.result = [Error(scrub(judgements.why(view)), verdict.capitalize())]
    return case
