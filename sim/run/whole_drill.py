"""The self-test of the whole drill: `snapdrill run` and `check` as processes, judged by what they leave behind.

Nothing here uses a rule, the fold or a report: the ledger is read as JSON, the JUnit file as XML.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from sim.files.shipped import scenario_folder
from sim.files.yaml import parse, scenario_text
from sim.run.both_halves import doubled, named_by, survives
from sim.run.pool import default_jobs
from sim.run.self_test import FOLDER, Trial, TrialResult
from sim.run.wrong_drills import (
    CANARY,
    CHECK,
    CODE,
    DIGEST,
    FILES,
    LEFT_BY,
    OTHER_HALF,
    RECORD,
    STATES,
    UNEXPECTED,
    VARIABLE,
)

SOUND = ""
_MOST = 120.0  # seconds that one command may take
_CODES = {"held": 0, "violated": 1, "inconclusive": 3}
_WORST = ("violated", "inconclusive", "held")
_CLI = "import sys; from sim.cli import main; sys.exit(main())"


@dataclass(slots=True)
class _Left:
    """What one scenario of a command left behind: the lines of its ledger, its stored scenario, a failure in JUnit."""

    lines: list[dict[str, Any]]
    scenario: str
    failing: bool | None

    def of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        return (each for each in self.lines if each.get("event") == kind)

    @property
    def ended(self) -> dict[str, Any]:
        return next(self.of_kind("run_ended"), {})


@dataclass(slots=True)
class _Ran:
    """One command: the drill that it ran (SOUND: the right one), its runs by file name, what contradicts itself."""

    runs: dict[str, _Left] = field(default_factory=dict)
    contradictions: dict[str, str] = field(default_factory=dict)
    broken: str = ""
    seconds: float = 0.0


def run(
    chosen: Sequence[Trial], engines: Sequence[TrialResult], runs_dir: Path, jobs: int | None = None
) -> list[TrialResult]:
    """Every wrong drill, grouped into as few commands as may be; results in the trials' order.

    A scenario in which one of `engines` was caught is known to sing; any other is run by the right drill, too.
    """
    known = {each.trial.scenario.path.name for each in engines if each.outcome == "CAUGHT"}
    by_switch: dict[str, set[str]] = {}
    for each in chosen:
        if each.skipped is None:
            by_switch.setdefault(_run_by(each), set()).add(_file_of(each))
    if by_switch:
        by_switch[SOUND] = set().union(*by_switch.values()) - known
    ran = _commands(by_switch, runs_dir, jobs or default_jobs())
    halves = _Halves.of([each for each in chosen if _is_of_both_halves(each) and each.skipped is None], ran, runs_dir)
    return [
        halves.result(each)
        if each.skipped is None and _is_of_both_halves(each)
        else _result(each, ran)
        if each.skipped is None
        else TrialResult(each, "SKIPPED", why=each.skipped)
        for each in chosen
    ]


def _commands(by_switch: dict[str, set[str]], runs_dir: Path, jobs: int) -> dict[str, _Ran]:
    runs_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".whole-drill-", dir=runs_dir))
    largest_first = sorted(by_switch, key=lambda switch: -len(by_switch[switch]))
    try:
        _write_unexpected(folder)
        with ThreadPoolExecutor(jobs) as threads:
            done = threads.map(lambda switch: _command(folder, switch, by_switch[switch]), largest_first)
            return dict(zip(largest_first, done, strict=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_of_both_halves(trial: Trial) -> bool:
    return trial.name.startswith(f"{OTHER_HALF}:")


def _run_by(trial: Trial) -> str:
    """The drill whose command runs its scenario."""
    switch, _, rule = trial.name.partition(":")
    return LEFT_BY[rule][0] if switch == OTHER_HALF else switch


def _file_of(trial: Trial) -> str:
    """The scenario's name; a lie needs a verdict to lie about, unless it is about a digest."""
    name, lies = trial.scenario.path.name, ":" not in trial.name
    return f"unexpected-{name}" if name == UNEXPECTED and lies else name


def _write_unexpected(folder: Path) -> None:
    """The scenario without its canary: it must end as violated, with exit code 1."""
    document: dict[str, Any] = dict(parse((scenario_folder(FOLDER) / UNEXPECTED).read_text(encoding="utf-8")).data)
    document["name"], document["expect"] = "unexpected", [{"invariant": document["expect"][0]["invariant"]}]
    (folder / f"unexpected-{UNEXPECTED}").write_text(scenario_text(document), encoding="utf-8")


def _command(folder: Path, switch: str, files: Iterable[str]) -> _Ran:
    """`snapdrill run` of these scenarios; and of the one that is unexpectedly violated, `snapdrill check`."""
    ran, began = _Ran(), time.monotonic()
    ordered = sorted(files)
    if not ordered:
        return ran
    paths = [str(folder / each if (folder / each).exists() else scenario_folder(FOLDER) / each) for each in ordered]
    runs, junit = folder / f"runs-{switch}", folder / f"junit-{switch}.xml"
    done = _snapdrill(switch, "run", *paths, "--runs-dir", str(runs), "--junit", str(junit))
    ran.seconds = time.monotonic() - began
    try:
        suites = ET.parse(junit).getroot().findall("testsuite")  # noqa: S314 - our own file
        for file, suite in zip(ordered, suites, strict=True):
            ran.runs[file] = _read(runs, suite)
    except (OSError, ET.ParseError, ValueError, KeyError, StopIteration) as error:
        ran.broken = f"{type(error).__name__}: {error}; exit code {done.returncode}: {done.stderr[-500:]}"
        return ran
    ran.contradictions = dict(_contradictions(ran.runs, done.returncode))
    unexpected = f"unexpected-{UNEXPECTED}"
    if unexpected in ran.runs and switch in {SOUND, "verdict-lies", "check-lies"}:
        by = "check-lies" if switch == "check-lies" else SOUND
        checked = _snapdrill(by, "check", str(runs / "unexpected" / "latest")).returncode
        if checked != done.returncode:
            ran.contradictions[CHECK] = f"`check` ends with {checked}, the run with {done.returncode}"
    return ran


def _snapdrill(switch: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    if switch != SOUND:
        environment[VARIABLE] = f"{switch}:{os.getpid()}"
    command = [sys.executable, "-c", _CLI, *arguments]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, text=True, timeout=_MOST, check=False, env=environment)
    return subprocess.CompletedProcess(command, -1, "", f"it did not end within {_MOST:g} s")


def _read(runs: Path, suite: ET.Element) -> _Left:
    folder = (runs / suite.attrib["name"] / "latest").resolve()
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    failing = any(case.find(kind) is not None for case in suite.findall("testcase") for kind in ("failure", "error"))
    return _Left(lines, (folder / "scenario.yaml").read_text(encoding="utf-8"), failing)


# -- what contradicts itself


def _contradictions(runs: dict[str, _Left], exit_code: int) -> Iterator[tuple[str, str]]:
    """By which two things are not the same: subjects of `caught_by`."""
    verdicts = {file: str(run.ended.get("verdict", "inconclusive")) for file, run in runs.items()}
    worst = min(verdicts.values(), key=_WORST.index)
    if exit_code != _CODES[worst]:
        yield CODE, f"the exit code is {exit_code}, and the worst verdict in the ledgers is {worst}"
    for file, run in runs.items():
        verdict = verdicts[file]
        if run.failing is not (verdict != "held"):
            yield FILES, f"{file}: the ledger says {verdict}, and the JUnit file has {_failures(run)}"
        if (judged := _verdict_by_judgements(run)) != verdict:
            yield RECORD, f"{file}: its judgements say {judged}, and its end says {verdict}"
        if run.ended.get("digest") is not None and "until: returned" in run.scenario:
            yield DIGEST, f"{file}: a digest is claimed, and a pause was not waited for"
        if (counts := _last_states(run)) != run.ended.get("counts"):
            yield STATES, f"{file}: sandboxes ended as {counts}, and the end says {run.ended.get('counts')}"


def _failures(run: _Left) -> str:
    return "a failure" if run.failing else "no failure"


def _verdict_by_judgements(run: _Left) -> str:
    """The worst judgement that no caught canary expected."""
    judged = [(str(each["subject"]), str(each["verdict"])) for each in run.of_kind("judged")]
    caught = {subject for subject, verdict in judged if subject.startswith("verdict:") and verdict == "held"}
    left = [verdict for subject, verdict in judged if f"verdict:{verdict}:{subject}" not in caught]
    return min(left, key=_WORST.index, default="held")


def _last_states(run: _Left) -> dict[str, int]:
    last = {str(each["sandbox"]): str(each["new"]) for each in run.of_kind("state_changed")}
    return dict(Counter(last.values()))


# -- whether it was noticed


def _result(trial: Trial, ran: dict[str, _Ran]) -> TrialResult:
    switch, _, rule = trial.name.partition(":")
    sound, wrong, file = ran[SOUND], ran[switch], _file_of(trial)
    for each in (sound, wrong):
        if each.broken:
            return TrialResult(trial, "FAILED", wrong.seconds, each.broken)
    if sound.contradictions:
        return TrialResult(trial, "UNSOUND", wrong.seconds, next(iter(sound.contradictions.values())))
    if trial.wrong.caught_by != CANARY:
        noticed = trial.wrong.caught_by in wrong.contradictions
        return TrialResult(trial, "CAUGHT" if noticed else "SURVIVED", wrong.seconds, "" if noticed else _NOTHING)
    if file in sound.runs and sound.runs[file].ended.get("verdict") != "held":
        return TrialResult(trial, "UNSOUND", wrong.seconds, "its canary is not caught by the right drill either")
    silent = [
        each["subject"]
        for each in wrong.runs[file].of_kind("judged")
        if each["subject"].startswith("verdict:") and each["verdict"] == "violated"
    ]
    if any(subject.endswith(f":invariant:{rule}") for subject in silent) and not wrong.contradictions:
        return TrialResult(trial, "CAUGHT", wrong.seconds)
    return TrialResult(trial, "SURVIVED", wrong.seconds, f"the canary of {rule} was caught all the same")


@dataclass(frozen=True, slots=True)
class _Halves:
    """What `check` names in the doubled ledgers, by the right drill and each half of the rules; or why it does not."""

    right: dict[str, set[str]]
    by_half: list[dict[str, set[str]]]
    seconds: float
    broken: str = ""

    @classmethod
    def of(cls, trials: Sequence[Trial], ran: dict[str, _Ran], runs_dir: Path) -> _Halves:
        began = time.monotonic()
        if not trials:
            return cls({}, [], 0.0)
        try:
            with tempfile.TemporaryDirectory(prefix=".both-halves-", dir=runs_dir) as folder:
                ledgers = {each.name.partition(":")[2]: _doubled(each, ran, Path(folder)) for each in trials}
                drills = (SOUND, "half-blind", OTHER_HALF)
                with ThreadPoolExecutor(len(drills)) as threads:
                    right, *halves = threads.map(lambda each: named_by(each, ledgers), drills)
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            return cls({}, [], time.monotonic() - began, f"{type(error).__name__}: {error}")
        return cls(right, halves, time.monotonic() - began)

    def result(self, trial: Trial) -> TrialResult:
        rule = trial.name.partition(":")[2]
        if self.broken:
            return TrialResult(trial, "FAILED", self.seconds, self.broken)
        if why := survives(self.right[rule], [each[rule] for each in self.by_half]):
            return TrialResult(trial, "SURVIVED", self.seconds, why)
        return TrialResult(trial, "CAUGHT", self.seconds)


def _doubled(trial: Trial, ran: dict[str, _Ran], folder: Path) -> Path:
    """Its scenario's ledger, doubled; raises KeyError where that command left none."""
    path = folder / f"{trial.name.partition(':')[2]}.jsonl"
    path.write_text("\n".join(doubled(ran[_run_by(trial)].runs[_file_of(trial)].lines)) + "\n", encoding="utf-8")
    return path


_NOTHING = "exit code, JUnit file, ledger and `check` agree"
