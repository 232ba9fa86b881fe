"""The self-test: a rule must catch every wrong engine in its scenario, and the correct engine must hold there."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from engine.errors import UserError
from flags.catalog import did_you_mean
from sim.files.expectations import ViolationExpectation
from sim.files.scenario import Scenario, load
from sim.files.shipped import scenario_folder
from sim.files.wrong_engines import MUTANTS, PR_2902, SWITCHES, WHOLE, Wrong
from sim.files.yaml import parse, scenario_text
from sim.record.verdict import ExitCode, Verdict, worst
from sim.report.failure import replay_command
from sim.report.table import Paragraph, Table, Words, code, text, toned
from sim.report.words import Tone, plural, scrub
from sim.run.batch import Batch
from sim.run.cases import Unit, UnitResult, why
from sim.run.needs import missing
from sim.run.pool import Pool
from sim.run.wrong_drills import DRILLS

FOLDER = "self-test"
Outcome = Literal["CAUGHT", "SURVIVED", "UNSOUND", "FAILED", "SKIPPED"]
_CODES: dict[Outcome, ExitCode] = {
    "CAUGHT": ExitCode.HELD,
    "SURVIVED": ExitCode.VIOLATED,
    "UNSOUND": ExitCode.VIOLATED,
    "FAILED": ExitCode.INTERNAL,
    "SKIPPED": ExitCode.UNSUPPORTED,
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One wrong engine and the scenario to run it in; `skipped` says why this host cannot, if so."""

    name: str
    wrong: Wrong
    scenario: Scenario
    skipped: str | None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of a trial; `seconds` of the run with the wrong engine, `why` says why it was not caught.

    UNSOUND: the scenario does not hold with the correct engine either, so it proves nothing.
    """

    trial: Trial
    outcome: Outcome
    seconds: float = 0.0
    why: str = ""
    run_dir: Path | None = None


def names() -> dict[str, Wrong]:
    """Every wrong engine by its name here: mutants, each weakness of a profile as `pr-2902:NAME`, and the profile."""
    switches = {f"{PR_2902}:{name}": each for name, each in SWITCHES.items()}
    return {**MUTANTS, **switches, WHOLE.name: WHOLE}


def trials(only: Sequence[str] = ()) -> list[Trial]:
    """Wrong engines selected by name or glob, all by default; UserError for a pattern without a match."""
    everything = {**names(), **DRILLS}
    for pattern in only:
        if not fnmatch.filter(everything, pattern):
            raise UserError(f'no wrong engine or drill is called "{pattern}"; {did_you_mean(pattern, everything)}')
    return _selected(names(), only)


def drills(only: Sequence[str] = ()) -> list[Trial]:
    """Wrong drills selected by name or glob, all by default."""
    return _selected(DRILLS, only)


def _selected(known: Mapping[str, Wrong], only: Sequence[str]) -> list[Trial]:
    return [
        _trial(name, wrong)
        for name, wrong in known.items()
        if not only or any(fnmatch.fnmatchcase(name, pattern) for pattern in only)
    ]


def _trial(name: str, wrong: Wrong) -> Trial:
    """The first of its scenarios that this host can run, else the first."""
    scenarios = [load(scenario_folder(FOLDER) / file) for file in wrong.scenarios]
    reasons = [missing(each) for each in scenarios]
    able = next((index for index, reason in enumerate(reasons) if reason is None), 0)
    return Trial(name, wrong, scenarios[able], reasons[able])


def sound(trial: Trial) -> str:
    """The scenario with the correct engine: nothing may be violated, and the rule for the wrong one must be exercised.

    For a metric the scenario already has an expectation beside its canary.
    """
    document: dict[str, Any] = dict(parse(trial.scenario.source_text).data)
    del document["engine"]
    kept = [each for each in document["expect"] if "verdict" not in each]
    kind, _, subject = trial.wrong.caught_by.partition(":")
    document["expect"] = [*kept, {"invariant": subject}] if kind == "invariant" else kept
    return scenario_text(document)


def run(chosen: Sequence[Trial], pool: Pool, runs_dir: Path, batch: Batch) -> list[TrialResult]:
    """Each trial twice, with the wrong engine and with the correct one; results in the trials' order."""
    results: dict[str, UnitResult] = {}

    def take(name: str, result: UnitResult) -> tuple[ExitCode, str]:
        results[name] = result
        return ExitCode.HELD, f"runs, {name}"

    units = [(unit.name, unit) for each in chosen if each.skipped is None for unit in _units(each, runs_dir)]
    batch.through(pool, "self-test", units, len(units), take)
    return [
        _trial_result(each, results[each.name], results[_sound_name(each.name)])
        if each.skipped is None
        else TrialResult(each, "SKIPPED", why=each.skipped)
        for each in chosen
    ]


def _sound_name(name: str) -> str:
    return f"{name}, mended"


def _units(trial: Trial, runs_dir: Path) -> tuple[Unit, Unit]:
    wrong = Unit.of(trial.name, trial.scenario, runs_dir)
    return wrong, replace(wrong, name=_sound_name(trial.name), text=sound(trial))


def _trial_result(trial: Trial, wrong: UnitResult, mended: UnitResult) -> TrialResult:
    for result in (wrong, mended):
        if result.why_broken is not None:
            return TrialResult(trial, "FAILED", wrong.seconds, f"{result.name}: {result.why_broken}", result.run_dir)
    if mended.verdict != Verdict.HELD:
        why_not = f"with the correct engine it is {mended.verdict}: {_unexpected(mended, set())}"
        return TrialResult(trial, "UNSOUND", wrong.seconds, why_not, mended.run_dir)
    canaries = {each.subject: each.verdict for each in trial.scenario.expect if isinstance(each, ViolationExpectation)}
    by = trial.wrong.caught_by
    caught = any((each.subject, each.verdict) == (by, canaries.get(by)) for each in wrong.judged)
    if caught and wrong.verdict == Verdict.HELD:  # as the scenario expects, and nothing else was broken
        return TrialResult(trial, "CAUGHT", wrong.seconds)
    why_not = f"not as the scenario expects: {_unexpected(wrong, canaries)}" if caught else "its rule saw no violation"
    return TrialResult(trial, "SURVIVED", wrong.seconds, why_not, wrong.run_dir)


def _unexpected(result: UnitResult, expected: Collection[str]) -> str:
    """The first judgement that unexpectedly did not hold, with its reason."""
    for each in result.judged:
        if each.verdict != Verdict.HELD and each.subject not in expected:
            return f"{each.subject.partition(':')[2]}: {why(each)}"
    return "no reason is recorded"


def exit_code(results: Iterable[TrialResult]) -> ExitCode:
    """A survivor is a failure; a skip only decides if nothing else was run."""
    return worst(_CODES[each.outcome] for each in results)


def table(results: Sequence[TrialResult]) -> str:
    """Each wrong engine and drill with its result and what it does wrong; then the counts and the score."""
    counted = [f"{count} {outcome}" for outcome in _CODES if (count := sum(f.outcome == outcome for f in results))]
    wrong_drills = sum(each.trial.name in DRILLS for each in results)
    counts = [(len(results) - wrong_drills, "wrong engine"), (wrong_drills, "wrong drill")]
    what = " and ".join(plural(count, name) for count, name in counts if count)
    ran = [each for each in results if each.outcome != "SKIPPED"]
    score = f"score: {sum(each.outcome == 'CAUGHT' for each in ran)} of {len(ran)} caught"
    total = f"{what}: {', '.join(counted)}; {score}"
    return text([Table((), [row for each in results for row in _rows(each)], "<~"), Paragraph(total)])


def _rows(result: TrialResult) -> Iterator[tuple[Words, Words]]:
    trial, by = result.trial, result.trial.wrong.caught_by.partition(":")[2]
    where = f" in {trial.scenario.path.name}: {result.why}; must be caught by {by}"
    tone = _TONES.get(result.outcome, "bad")
    note = f" by {by} after {result.seconds:.1f} s" if result.outcome == "CAUGHT" else where
    yield trial.name, (toned(result.outcome, tone), note)
    yield "", trial.wrong.sentence
    if result.run_dir:
        yield "", ("look at it: ", code(replay_command(result.run_dir)))


_TONES: dict[Outcome, Tone] = {"CAUGHT": "good", "SKIPPED": "warn"}


def catalogue() -> str:
    """Every wrong engine and drill: its name, what catches it, and what it does wrong."""
    rows = [
        row
        for name, wrong in {**names(), **DRILLS}.items()
        for row in ((name, f"caught by {wrong.caught_by.partition(':')[2]}"), ("", wrong.sentence))
    ]
    return text(Table((), rows, "<~"))


def junit(results: Sequence[TrialResult]) -> TestSuite:
    """One case a wrong engine or drill; one that survived is a failure."""
    suite = TestSuite("self-test")
    for each in results:
        case = TestCase(scrub(each.trial.name), "self-test", round(each.seconds, 3))
        if each.outcome == "SKIPPED":
            case.result = [Skipped(scrub(each.why))]
        elif each.outcome != "CAUGHT":
            kind = Error if each.outcome == "FAILED" else Failure
            case.result = [kind(scrub(each.why), each.outcome.capitalize())]
        suite.add_testcase(case)
    return suite


def document(results: Sequence[TrialResult]) -> dict[str, Any]:
    """The `--json` document; `seconds` of the run with the wrong engine."""
    return {
        "version": 1,
        "exit_code": int(exit_code(results)),
        "survivors": [each.trial.name for each in results if _CODES[each.outcome] == ExitCode.VIOLATED],
        "engines": [
            {
                "name": each.trial.name,
                "sentence": each.trial.wrong.sentence,
                "caught_by": each.trial.wrong.caught_by,
                "scenario": each.trial.scenario.path.name,
                "outcome": each.outcome.lower(),
                "seconds": round(each.seconds, 3),
                "why": each.why or None,
                "run_dir": str(each.run_dir) if each.run_dir else None,
            }
            for each in results
        ],
    }
