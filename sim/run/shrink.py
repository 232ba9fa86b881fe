"""The smallest scenario that still fails."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from engine.errors import UserError
from sim.files.scenario import Scenario, is_there, load, load_text
from sim.files.units import format_size, parse_size
from sim.files.yaml import parse, scenario_text
from sim.record.events import Judged
from sim.record.folder import open_run
from sim.record.ledger import EVENTS_FILE
from sim.record.verdict import Verdict
from sim.run.cases import Unit, UnitResult, first_reason, why
from sim.run.draw import as_run
from sim.run.pool import LocalPool

Document = dict[str, Any]
"""The contents of a scenario file, as dict, list and scalars."""
Reductions = Callable[[Document], Iterator[Document]]
_Path = tuple[str | int, ...]
_STAYS = frozenset({"version", "name", "fleet", "steps", "engine"})
_LISTS = ("steps", "expect", "fleet")
_SIZES = ("4KiB", "64KiB", "2MiB", "4MiB")
_SIZE = re.compile(r"[0-9]+(KiB|MiB|GiB)")
_PERCENT = re.compile(r"([0-9.]+)%")
_ONE_SANDBOX = re.compile(r"(.+-)([1-9][0-9]*)")


def without_entries(document: Document) -> Iterator[Document]:
    """Steps, expectations and groups left out: half of a list, a quarter, ... each single one."""
    for name in _LISTS:
        entries = document.get(name)
        if isinstance(entries, list):
            for size in _halvings(len(entries)):
                for start in range(0, len(entries), size):
                    yield {**document, name: entries[:start] + entries[start + size :]}


def without_keys(document: Document) -> Iterator[Document]:
    """Any setting left out, the outermost first: flags, filters, places, workloads."""
    paths = sorted(_mappings(document, ()), key=len)
    for path in paths:
        for key in _at(document, path):
            if (path or key not in _STAYS) and not _is_step(path):
                less = {other: value for other, value in _at(document, path).items() if other != key}
                yield _with(document, path, less)


def smaller_fleets(document: Document) -> Iterator[Document]:
    """Fewer sandboxes and less memory, the least first."""
    for path, value in _values(document, ()):
        if path[0] == "fleet" and path[-1] in {"count", "memory"}:
            for less in _less(value):
                yield _with(document, path, less)


def lower_sandboxes(document: Document) -> Iterator[Document]:
    """A name of one sandbox, such as `web-3`, replaced by the group's first, wherever it is written."""
    named = {value for path, value in _values(document, ()) if path[-1] == "sandboxes" and isinstance(value, str)}
    for name in sorted(named):
        if found := _ONE_SANDBOX.fullmatch(name):
            yield _renamed(document, name, f"{found[1]}0")


def plainer_values(document: Document) -> Iterator[Document]:
    """Smaller numbers, sizes and shares; a flag for all or none in place of a rollout."""
    for path in _mappings(document, ()):
        if "rollout" in _at(document, path):
            yield _with(document, path, True)
            yield _with(document, path, False)
    for path, value in _values(document, ()):
        if path[0] not in {"version", "name"} and path[-1] != "max":
            for less in _less(value):
                yield _with(document, path, less)


PASSES: tuple[Reductions, ...] = (without_entries, smaller_fleets, without_keys, lower_sandboxes, plainer_values)


def _halvings(length: int) -> Iterator[int]:
    size = length // 2
    while size >= 1:
        yield size
        size //= 2


def _less(value: Any) -> Iterator[Any]:
    """Plainer values than this one, the plainest first; each is smaller by the same measure, so that it ends."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        yield from sorted({0, 1, value // 2, value - 1} - {value})
    elif isinstance(value, str) and _SIZE.fullmatch(value):
        size = parse_size(value)
        smaller = {*map(parse_size, _SIZES), size // 2 // 4096 * 4096}
        yield from (format_size(each) for each in sorted(smaller) if 0 < each < size)
    elif isinstance(value, str) and _PERCENT.fullmatch(value) and value != "100%":
        yield "100%"


def _is_step(path: _Path) -> bool:
    """A step's one key cannot be left out: it is the step's kind."""
    return len(path) == 2 and path[0] == "steps"


def _mappings(value: Any, path: _Path) -> Iterator[_Path]:
    if isinstance(value, dict):
        yield path
    for key, below in _below(value):
        yield from _mappings(below, (*path, key))


def _values(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    """Every scalar with its path."""
    if not isinstance(value, dict | list):
        yield path, value
    for key, below in _below(value):
        yield from _values(below, (*path, key))


def _below(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _at(value: Any, path: _Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(value: Any, path: _Path, new: Any) -> Any:
    """A copy with `new` at `path`; other parts are shared."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, key: _with(value[key], rest, new)}
    return [_with(each, rest, new) if at == key else each for at, each in enumerate(value)]


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, old, new) for each in value]
    return new if value == old else value


Fails = Callable[[Sequence[Document]], Sequence[bool]]
"""Which of these documents fail in the same way; all are new to the caller."""


@dataclass
class Shrinking:
    """A shrinking under way: the smallest document so far, how many were tried, and when to give up.

    `at_a_time` documents are tried together; the result does not depend on it if the budget suffices.
    """

    document: Document
    fails: Fails
    tries: int = 500
    at_a_time: int = 1
    is_valid: Callable[[Document], bool] = lambda _document: True
    over: Callable[[], bool] = lambda: False
    progress: Callable[[Shrinking], None] = lambda _shrinking: None
    tried: int = 0
    _known: dict[str, bool] = field(default_factory=dict)

    @property
    def exhausted(self) -> bool:
        """True if the budget ended it: a smaller scenario may exist."""
        return self.tried >= self.tries or self.over()

    def run(self) -> Document:
        """To the fixed point: no single reduction of the result still fails. Equal inputs give equal results."""
        before = None
        while before != self.document and not self.exhausted:
            before = self.document
            for reductions in PASSES:
                self._exhaust(reductions)
        return self.document

    def _exhaust(self, reductions: Reductions) -> None:
        """Take reductions of one kind as long as one still fails; after each go on at the same place."""
        at = 0
        while (found := self._first_failing(list(reductions(self.document))[at:])) is not None:
            offset, self.document = found
            at += offset
            self.progress(self)

    def _first_failing(self, candidates: Sequence[Document]) -> tuple[int, Document] | None:
        possible = ((at, each) for at, each in enumerate(candidates) if self._may_fail(each))
        while batch := list(islice(possible, self.at_a_time)):
            self._learn([each for _, each in batch if _key(each) not in self._known])
            for at, each in batch:
                if self._known.get(_key(each), False):
                    return at, each
        return None

    def _may_fail(self, document: Document) -> bool:
        """Not tried yet, or known to fail; an invalid document is never tried and costs nothing."""
        key = _key(document)
        if key not in self._known and not self.is_valid(document):
            self._known[key] = False
        return self._known.get(key, True)

    def _learn(self, new: Sequence[Document]) -> None:
        """Try documents, as far as the budget allows."""
        new = new[: 0 if self.over() else max(0, self.tries - self.tried)]
        if new:
            self._known.update(zip(map(_key, new), self.fails(new), strict=True))
            self.tried += len(new)
            self.progress(self)


def _key(document: Document) -> str:
    return json.dumps(document)


_PATIENCE = (10.0, 5.0)  # seconds a try at least, and how often what the first run took


@dataclass(frozen=True, slots=True)
class Failure:
    """The violated subject, the sandbox and the reason; `codes` are those of all its violations.

    A ledger of an older version has no codes: its failure is recognised by the subject alone.
    """

    subject: str
    sandbox: str
    reason: str
    code: str
    codes: frozenset[str]

    @classmethod
    def of(cls, judged: Judged) -> Failure:
        first = first_reason(judged)
        codes = frozenset(str(each["code"]) for each in judged.violations if "code" in each)
        return cls(judged.subject, str(first.get("sandbox", "*")), why(judged), str(first.get("code", "")), codes)

    def is_like(self, other: Failure) -> bool:
        """The same subject for one of the same reasons."""
        unknown = not self.codes or not other.codes
        return self.subject == other.subject and (unknown or bool(self.codes & other.codes))

    def __str__(self) -> str:
        return f"{self.subject}: {self.sandbox}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Subject:
    """The scenario to shrink: its document, the folder for names in it, and the failure of a stored run."""

    document: Document
    path: Path
    recorded: Failure | None = None

    def scenario(self) -> Scenario:
        """The document as it is run."""
        return load_text(scenario_text(self.document), self.path)

    @classmethod
    def load(cls, path: Path, seed: int | None = None) -> Subject:
        """Of a run folder that was violated (with its seed), or a scenario file. UserError if it is neither."""
        if is_there(path) and path.is_file() and path.name != EVENTS_FILE:
            scenario = load(path)
            return _subject(scenario, scenario.seed if seed is None else seed, None)
        run = open_run(path)
        view = run.view
        broken = [each for each in view.judged if each.verdict == Verdict.VIOLATED]
        if not broken:
            raise UserError(f"{run.folder}: that run was not violated; there is nothing to shrink")
        ran = view.run.seed if view.run else 0
        recorded = Failure.of(broken[0])
        return _subject(load(run.scenario_file), ran if seed is None else seed, recorded)


def _subject(scenario: Scenario, seed: int, recorded: Failure | None) -> Subject:
    document = {**parse(as_run(scenario, seed).source_text).data, "seed": seed}
    return Subject(document, scenario.path, recorded)


@dataclass
class Trials:
    """Runs documents through a pool and finds those that fail like the one being shrunk."""

    pool: LocalPool
    path: Path
    runs_dir: Path
    time_limit: float = 120.0
    like: Failure | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    runs: int = 0

    def first(self, subject: Subject) -> Failure | None:
        """Run the scenario to shrink: its failure, which all others must match; None if it no longer fails."""
        began = time.monotonic()
        (result,) = self._run([subject.document])
        if result is None or result.error is not None:
            raise UserError(f"{self.path}: it cannot be run: {result.error if result else 'it is not a scenario'}")
        found = [each for each in _failures(result) if subject.recorded is None or each.is_like(subject.recorded)]
        self.like = found[0] if found else None
        least, times = _PATIENCE
        self.time_limit = max(least, times * (time.monotonic() - began))
        return self.like

    def fail(self, documents: Sequence[Document]) -> list[bool]:
        """Which of them fail in the same way; an invalid one does not, and costs no run."""
        found = []
        for document, result in zip(documents, self._run(documents), strict=True):
            alike = [each for each in _failures(result) if self.like and each.is_like(self.like)] if result else []
            self.failures.update({scenario_text(document): each for each in alike[:1]})
            found.append(bool(alike))
        return found

    def is_valid(self, document: Document) -> bool:
        """True for a valid scenario."""
        return self._unit("", document) is not None

    def _run(self, documents: Sequence[Document]) -> list[UnitResult | None]:
        """Results in the documents' order; None for an invalid document."""
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
    return [Failure.of(each) for each in result.violated]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest document found, its failure, and whether a last run failed in the same way."""

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
    progress: Callable[[Shrinking], None] = lambda _shrinking: None,
) -> Shrunk | None:
    """Shrink it; None if it does not fail (any more)."""
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
        progress=progress,
    )
    smallest = shrinking.run()
    failure = trials.failures.get(scenario_text(smallest), failure)
    trials.failures.clear()
    again = trials.fail([smallest]) == [True]
    same = again and _event(trials.failures[scenario_text(smallest)]) == _event(failure)
    return Shrunk(smallest, failure, same, shrinking.exhausted)


def _event(failure: Failure) -> tuple[str, str, str]:
    return failure.subject, failure.sandbox, failure.code
