"""Shrinks a run that was violated, or a scenario that is: what fails, in the same way, by runs in the local pool."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import UserError
from sim.cluster import LocalPool, Unit, UnitResult
from sim.ledger import EVENTS_FILE
from sim.reductions import Document
from sim.scenario import Scenario, is_there, load, load_text
from sim.scenario_text import scenario_text
from sim.seeds import as_run
from sim.shrink import Shrinking
from sim.stored_run import open_run
from sim.verdict import Verdict
from sim.yaml_positions import parse

_NUMBERS = re.compile(r"[0-9]+")
_PATIENCE = (10.0, 5.0)  # seconds a try at least, and how often what the first run took


@dataclass(frozen=True, slots=True)
class Failure:
    """What was violated, of whom and why; `kinds` are its reasons without their numbers: how one knows it again."""

    subject: str
    sandbox: str
    reason: str
    kinds: frozenset[str]

    @classmethod
    def of(cls, subject: str, reasons: Sequence[Any]) -> Failure:
        """From a judgement's violations, as a ledger tells them."""
        first = reasons[0] if reasons else {}
        kinds = frozenset(_NUMBERS.sub("#", str(each.get("reason", ""))) for each in reasons)
        return cls(subject, str(first.get("sandbox", "*")), str(first.get("reason", "it is violated")), kinds)

    def is_like(self, other: Failure) -> bool:
        """The same subject for one of the same reasons."""
        return self.subject == other.subject and bool(self.kinds & other.kinds)

    def __str__(self) -> str:
        return f"{self.subject}: {self.sandbox}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be shrunk: its document, where names in it are looked for, and the failure of a stored run."""

    document: Document
    path: Path
    recorded: Failure | None = None

    @classmethod
    def load(cls, path: Path, seed: int | None = None) -> Subject:
        """A run folder that was violated (with the seed of that run), or a scenario file. UserError where it is not."""
        if is_there(path) and path.is_file() and path.name != EVENTS_FILE:
            scenario = load(path)
            return _subject(scenario, scenario.seed if seed is None else seed, None)
        run = open_run(path)
        view = run.view
        broken = [each for each in view.judged if each.verdict == Verdict.VIOLATED]
        if not broken:
            raise UserError(f"{run.folder}: that run was not violated; there is nothing to shrink")
        ran = view.run.seed if view.run else 0
        recorded = Failure.of(broken[0].subject, broken[0].violations)
        return _subject(load(run.scenario_file), ran if seed is None else seed, recorded)


def _subject(scenario: Scenario, seed: int, recorded: Failure | None) -> Subject:
    document = {**parse(as_run(scenario, seed).source_text).data, "seed": seed}
    return Subject(document, scenario.path, recorded)


@dataclass
class Trials:
    """Runs documents through a pool and tells which fail like the one that is shrunk."""

    pool: LocalPool
    path: Path
    runs_dir: Path
    time_limit: float = 120.0
    like: Failure | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    runs: int = 0

    def first(self, subject: Subject) -> Failure | None:
        """Run what is to be shrunk: the failure that all others must be like; None where it does not fail any more."""
        began = time.monotonic()
        (result,) = self._run([subject.document])
        if result is None or result.error is not None:
            raise UserError(f"{self.path}: it cannot be run: {result.error if result else 'it is no scenario'}")
        found = [each for each in _failures(result) if subject.recorded is None or each.is_like(subject.recorded)]
        self.like = found[0] if found else None
        least, times = _PATIENCE
        self.time_limit = max(least, times * (time.monotonic() - began))
        return self.like

    def fail(self, documents: Sequence[Document]) -> list[bool]:
        """Which of them fail in the same way; one that is no scenario does not, and costs no run."""
        found = []
        for document, result in zip(documents, self._run(documents), strict=True):
            alike = [each for each in _failures(result) if self.like and each.is_like(self.like)] if result else []
            self.failures.update({scenario_text(document): each for each in alike[:1]})
            found.append(bool(alike))
        return found

    def is_valid(self, document: Document) -> bool:
        """True for a scenario that can be begun."""
        return self._unit("", document) is not None

    def _run(self, documents: Sequence[Document]) -> list[UnitResult | None]:
        """In their order; None for what is no scenario."""
        units = {str(at): unit for at, each in enumerate(documents) if (unit := self._unit(str(at), each))}
        self.runs += len(units)
        results = {each.name: each for each in self.pool.run(units.values())}
        return [results.get(str(at)) for at in range(len(documents))]

    def _unit(self, name: str, document: Document) -> Unit | None:
        try:
            scenario = load_text(scenario_text(document), self.path)
        except UserError:
            return None
        return replace(Unit.of(name, scenario, self.runs_dir), time_limit=self.time_limit, keep="never")


def _failures(result: UnitResult) -> list[Failure]:
    broken = [each for each in result.judgements if each.verdict == Verdict.VIOLATED]
    return [Failure.of(each.subject, each.reasons) for each in broken]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest document that was found, its failure, and whether a last run failed in the same way."""

    document: Document
    failure: Failure
    confirmed: bool
    exhausted: bool


def shrink(
    subject: Subject,
    trials: Trials,
    *,
    tries: int,
    seconds: float,
    at_a_time: int,
    told: Callable[[Shrinking], None] = lambda _shrinking: None,
) -> Shrunk | None:
    """Shrink it; None where it does not fail (any more). A KeyboardInterrupt ends it with what there is."""
    end = time.monotonic() + seconds
    failure = trials.first(subject)
    if failure is None:
        return None
    shrinking = Shrinking(
        subject.document,
        trials.fail,
        tries,
        at_a_time,
        is_valid=trials.is_valid,
        over=lambda: time.monotonic() > end,
        told=told,
    )
    smallest = shrinking.run()
    failure = trials.failures.get(scenario_text(smallest), failure)
    trials.failures.clear()
    again = trials.fail([smallest]) == [True]
    same = again and _event(trials.failures[scenario_text(smallest)]) == _event(failure)
    return Shrunk(smallest, failure, same, shrinking.exhausted)


def _event(failure: Failure) -> tuple[str, str, str]:
    return failure.subject, failure.sandbox, _NUMBERS.sub("#", failure.reason)
