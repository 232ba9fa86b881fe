"""One scenario with many seeds: each a run of its own in the pool, judged over all of them together."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import UserError
from sim.cluster import Judgement, Pool, Unit, UnitResult
from sim.fault_catalogue import kind_of
from sim.run_folder import remove
from sim.scenario import Crash, Inject, Scenario
from sim.swarm import largest_fleet
from sim.swarm_draw import draw
from sim.verdict import ExitCode, Verdict, worst

MOST = 1_000_000
ERROR = "error"
_INVARIANT = "invariant:"
_TIME_LIMIT = "time-limit"
_PART = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`1-200` or `5,9,20-30` as seeds, each once, in the order written. UserError for anything else."""
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise UserError(f'--seeds: expected seeds such as 1-200 or 5,9,20-30, got "{part.strip()}"')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"--seeds: the range {part.strip()} is empty; write the smaller seed first")
        if last - first + 1 + len(found) > MOST:
            raise UserError(f"--seeds: more than {MOST:,} seeds; give fewer")
        found.update(dict.fromkeys(range(first, last + 1)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class SeedOptions:
    """What is run; `time_limit` in seconds a seed."""

    seeds: tuple[int, ...]
    runs_dir: Path
    jobs: int
    time_limit: float = 120.0
    cache_dir: Path | None = None
    fail_fast: bool = False


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed's end: a verdict or `error`, and why where it did not hold. Its run folder is kept where it did not."""

    seed: int
    outcome: str
    why: str = ""
    subject: str | None = None
    sandbox: str | None = None
    run_dir: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INTERNAL if self.outcome == ERROR else Verdict(self.outcome).exit_code


@dataclass
class Seeds:
    """A scenario's seeds and what came of those that have run."""

    scenario: Scenario
    wanted: int
    done: list[Seed] = field(default_factory=list)
    exercised: Counter[str] = field(default_factory=Counter)
    fired: Counter[tuple[str, str]] = field(default_factory=Counter)
    armed: Counter[tuple[str, str]] = field(default_factory=Counter)
    pauses: int = 0
    sandboxes: int = 0
    seconds: float = 0.0
    _unjudged: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    _reasons: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def add(self, seed: int, run: Scenario, result: UnitResult) -> Seed:
        """Count a result in. Its folder is removed where it has nothing to show, and the run has ended."""
        found = self._outcome(seed, result)
        if found.run_dir is None and result.run_dir is not None and not remove(result.run_dir):
            found = replace(found, run_dir=result.run_dir)
        self.done.append(found)
        self.pauses += len(result.pauses)
        self.sandboxes += len(result.states)
        self.armed.update(_armed(run))
        self.fired.update((each.fault, kind_of(each.error)) for each in result.firings)
        for each in result.judgements:
            if each.subject.startswith(_INVARIANT):
                self.exercised[each.subject.removeprefix(_INVARIANT)] += each.checked
            if each.verdict == Verdict.INCONCLUSIVE:
                self._count_unjudged(each)
        return found

    def _outcome(self, seed: int, result: UnitResult) -> Seed:
        if result.error is not None or result.verdict is None:
            why = (result.error or "it came to no verdict").strip().splitlines()[-1]
            return Seed(seed, ERROR, why, run_dir=result.run_dir)
        if result.verdict == Verdict.VIOLATED:
            return _told(seed, _first(result, Verdict.VIOLATED), result)
        if cut := [each for each in result.judgements if each.subject == _TIME_LIMIT]:
            return _told(seed, cut[0], result)
        return Seed(seed, Verdict.HELD)

    def _count_unjudged(self, judgement: Judgement) -> None:
        first = judgement.reasons[0] if judgement.reasons else {}
        key = (judgement.subject, *(first.get(each) for each in ("file", "line", "column")))
        self._unjudged[key] += 1
        self._reasons.setdefault(key, str(first.get("reason", "nothing exercised it")))

    @property
    def failing(self) -> list[Seed]:
        """The seeds that did not hold, in their order."""
        return sorted((each for each in self.done if each.outcome != Verdict.HELD), key=lambda each: each.seed)

    @property
    def unexercised(self) -> list[tuple[str, str]]:
        """What no seed showed, and why: (subject, reason).

        Where seeds draw their scenarios: invariants that nothing exercised; else what every seed left inconclusive.
        """
        judged = [each for each in self.done if each.outcome != ERROR]
        if not judged:
            return []
        if self.scenario.swarm is not None:
            idle = [name for name, count in self.exercised.items() if count == 0]
            return [(_INVARIANT + name, "no seed exercised it") for name in idle]
        everywhere = [key for key, count in self._unjudged.items() if count == len(judged) and key[0] != _TIME_LIMIT]
        return [(key[0], self._reasons[key]) for key in everywhere]

    @property
    def never_fired(self) -> list[tuple[str, str]]:
        """Faults, as (point, kind), that seeds armed and that never fired: told, no verdict."""
        return [each for each in self.armed if not self.fired[each]]

    @property
    def exit_code(self) -> ExitCode:
        """The worst of its seeds, and of what none of them showed."""
        codes = [each.exit_code for each in self.done]
        if self.unexercised:
            codes.append(ExitCode.INCONCLUSIVE)
        return worst(codes)


def seed_runs(scenario: Scenario, seeds: Sequence[int], jobs: int) -> Iterator[tuple[int, Scenario]]:
    """Each seed with the scenario that it means: the drawn one where there is `swarm`, else the same one."""
    huge_pages = _huge_pages(scenario, jobs) if scenario.swarm is not None else False
    for seed in seeds:
        yield seed, scenario if scenario.swarm is None else draw(scenario, seed, huge_pages=huge_pages)


def as_run(scenario: Scenario, seed: int | None) -> Scenario:
    """What a single run of it runs: with `swarm`, what its seed (the file's unless given) draws."""
    if scenario.swarm is None:
        return scenario
    ((_, run),) = seed_runs(scenario, [scenario.seed if seed is None else seed], 1)
    return run


def run_seeds(seeds: Seeds, options: SeedOptions, pool: Pool, told: Callable[[Seed], None]) -> None:
    """Run them into `seeds`, which is true after an interrupt too; `told` hears of each as it ends."""
    runs: dict[str, tuple[int, Scenario]] = {}

    def units() -> Iterator[Unit]:
        for seed, run in seed_runs(seeds.scenario, options.seeds, options.jobs):
            runs[str(seed)] = (seed, run)
            yield _unit(run, seed, options)

    began = time.monotonic()
    try:
        for result in pool.run(units()):
            found = seeds.add(*runs.pop(result.name), result)
            told(found)
            if options.fail_fast and found.outcome != Verdict.HELD:
                break
    finally:
        seeds.seconds += time.monotonic() - began


def _unit(run: Scenario, seed: int, options: SeedOptions) -> Unit:
    unit = Unit.of(str(seed), run, options.runs_dir, seed=seed)
    return replace(unit, time_limit=options.time_limit, keep="failed", cache_dir=options.cache_dir)


def _told(seed: int, judgement: Judgement, result: UnitResult) -> Seed:
    first = judgement.reasons[0] if judgement.reasons else {}
    sandbox = str(first["sandbox"]) if first.get("sandbox", "*") != "*" else None
    reason = str(first.get("reason", judgement.verdict))
    return Seed(seed, judgement.verdict, reason, judgement.subject, sandbox, result.run_dir)


def _first(result: UnitResult, verdict: str) -> Judgement:
    return next(each for each in result.judgements if each.verdict == verdict)


def _armed(run: Scenario) -> Iterator[tuple[str, str]]:
    for step in run.steps:
        if isinstance(step, Inject):
            yield step.fault, kind_of(step.error)
        elif isinstance(step, Crash) and step.at is not None:
            yield step.at.fault, "kill-node"


def _huge_pages(scenario: Scenario, jobs: int) -> bool:
    """Whether the pool of huge pages has room for the largest fleets that may be drawn, `jobs` at a time."""
    from sim.probe import host

    if scenario.swarm is None or (2 << 20) not in (scenario.swarm.fleet.page_sizes or ()):
        return any(each.page_size == 2 << 20 for each in scenario.fleet)
    return bool(int(host()["hugetlb_free"]) >= jobs * largest_fleet(scenario.swarm, scenario.fleet))
