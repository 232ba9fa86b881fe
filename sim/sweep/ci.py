"""What a sweep hands to a CI service: a JUnit file, and GitHub's annotations and summary of the step."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from sim.report import github
from sim.report.junit import write_junit
from sim.report.printable import scrub
from sim.report.words import plural
from sim.sweep.outcomes import ERROR, INCONCLUSIVE, NOT_REACHED, VIOLATED, CaseResult, violations
from sim.sweep.report import blocks, findings, names, summary
from sim.sweep.sweep import Sweep


def write_suites(path: Path, sweeps: Sequence[Sweep]) -> None:
    """Write the JUnit file."""
    write_junit(path, [junit(each) for each in sweeps])


def tell_github(sweeps: Sequence[Sweep]) -> None:
    """An annotation for each violation on standard error, and each sweep's end in the step's summary; nothing where
    no step of GitHub Actions runs this."""
    if not github.is_on():
        return
    for line in github.commands(each for sweep in sweeps for each in annotate(sweep)):
        click.echo(line, err=True)
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
    text = "\n\n".join(filter(None, [summary(sweep), blocks(sweep)]))
    mark = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{mark}text\n{scrub(text)}\n{mark}\n"


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
        clean.result = [Failure(scrub(sweep.unclean), "Violated" if violations(sweep.clean) else "Error")]
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
