"""Every fault at every point."""

from __future__ import annotations

import fnmatch
import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from engine.errors import UserError
from sim.files.faults import CATALOGUE, KINDS, FaultPoint, Kind
from sim.files.scenario import Scenario
from sim.files.units import format_size
from sim.files.yaml import parse, scenario_text
from sim.record import events
from sim.record.codes import fault_kind
from sim.record.folder import remove
from sim.record.ledger import Entry
from sim.record.verdict import ExitCode, worst
from sim.run.batch import Batch
from sim.run.cases import Unit, UnitResult, why
from sim.run.pool import Pool

_POINTS = {point: place for place, point in enumerate(CATALOGUE)}
_KINDS = {kind: place for place, kind in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class Point:
    """A fault point as a run passed it: sandbox, point, chunk, and the n-th time; `step` is 0-based."""

    sandbox: str
    fault: FaultPoint
    chunk: int | None
    nth: int
    step: int

    @property
    def of_resume(self) -> bool:
        """True if it is passed in the sandbox's n-th incarnation, else in its n-th pause or checkpoint."""
        return CATALOGUE[self.fault].of_resume

    @property
    def occasion(self) -> str:
        """`web-0.p1`, its first pause or checkpoint; `web-0.i2`, its second incarnation."""
        return f"{self.sandbox}.{'i' if self.of_resume else 'p'}{self.nth}"

    def __str__(self) -> str:
        return "/".join([self.occasion, self.fault, *([] if self.chunk is None else [str(self.chunk)])])


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of fault at one point."""

    point: Point
    kind: Kind

    @property
    def name(self) -> str:
        """`web-0.p1/copy.write/3/errno`, unique in a sweep."""
        return f"{self.point}/{self.kind}"


def points_of(entries: Iterable[Entry], steps: int) -> tuple[Point, ...]:
    """The points that a traced run passed in its first `steps` steps, each once, in the order of its ledger.

    The start of a first incarnation is left out: it happens before any step can arm a fault.
    """
    found, step = dict[str, Point](), 0
    for each in entries:
        if isinstance(each.event, events.StepStarted):
            step = each.event.index
        elif isinstance(each.event, events.PointReached) and step < steps:
            reached = each.event
            point = Point(each.sandbox or "", cast("FaultPoint", reached.fault), reached.chunk, reached.nth, step)
            if not (point.of_resume and point.nth == 1):
                found.setdefault(str(point), point)
    return tuple(found.values())


def cases_of(points: Iterable[Point]) -> list[Case]:
    """Every kind that the catalogue allows at each point, in rounds, so that a short budget covers most: each round has
    one case of every point and kind, and earlier chunks come in earlier rounds."""
    cases = [Case(point, kind) for point in points for kind in CATALOGUE[point.fault].kinds]
    cases.sort(key=lambda each: (each.point.chunk or 0, each.point.nth, each.point.sandbox))
    seen: Counter[tuple[str, str]] = Counter()
    ranked = []
    for case in cases:
        group = (case.point.fault, case.kind)
        ranked.append((seen[group], _POINTS[case.point.fault], _KINDS[case.kind], case))
        seen[group] += 1
    return [case for *_, case in sorted(ranked, key=lambda each: each[:3])]


def only(cases: Iterable[Case], globs: Sequence[str]) -> list[Case]:
    """Cases whose name, or its end after any `/`, matches one of the globs; all if there is no glob."""
    if not globs:
        return list(cases)
    patterns = [pattern for glob in globs for pattern in (glob, f"*/{glob}")]
    return [each for each in cases if any(fnmatch.fnmatchcase(each.name, pattern) for pattern in patterns)]


def shard(cases: Sequence[Case], index: int, count: int) -> list[Case]:
    """Part `index` (from 1) of `count`, in order. The parts are disjoint and together have all cases; each is a
    mixture, because a hash of its name assigns a case to its part."""
    dealt = sorted(cases, key=lambda each: hashlib.sha256(each.name.encode()).digest())
    mine = {each.name for each in dealt[index - 1 :: count]}
    return [each for each in cases if each.name in mine]


Data = dict[str, Any]
HOLDUP = "10ms"
DEADLINE = "30s"
FINAL = ("running", "discarded", "killed")
_SELECTING = frozenset({"pause", "checkpoint", "resume", "kill", "salvage"})
_AWAITED = _SELECTING - {"kill"}
_FORGETTING = frozenset({"clear", "restart"})
_STAYS_CORRUPT = frozenset({"copy.write", "header.write"})
_LONGEST_NAME = 60


class Swept:
    """A scenario as its sweep runs it: judged on invariants alone, since its own counts hold without other faults."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        data: Data = parse(scenario.source_text).data
        self.sandboxes = [each.name for each in scenario.sandboxes()]
        self.name = scenario.name
        self.steps = [_tolerant(each) for each in data["steps"] if "expect" not in each]
        self._rest = {key: value for key, value in data.items() if key not in {"steps", "expect", "swarm"}}
        self._rest["seed"] = seed
        if scenario.flag_file is not None:  # a case's file is in another folder
            self._rest["flags"] = {**data["flags"], "file": str(scenario.flag_file.absolute())}

    def clean(self) -> str:
        """The scenario with only its own faults, and the epilogue."""
        comment = f"{self.name} as its sweep runs it: with only its own faults, and an epilogue that shows liveness."
        return self._text(f"{self.name}-clean", [*self.steps, *self._epilogue([])], comment)

    def case(self, case: Case) -> str:
        """The scenario with the fault of one case."""
        point = case.point
        armed, stuck = _armed(self.steps, point.step), []
        steps = list(self.steps)
        if case.kind == "kill-node":
            steps.insert(point.step + 1, {"restart": {}})
        if case.kind == "corrupt" and point.fault in _STAYS_CORRUPT:
            stuck = [point.sandbox]  # a corrupt snapshot is always refused, so this one stays paused
        steps.insert(armed, _fault(case))
        comment = f"{self.name}, with {case.kind} at {point.fault}, as its sweep runs it: {case.name}"
        return self._text(f"{self.name}-{case.name.replace('/', '-')}", [*steps, *self._epilogue(stuck)], comment)

    def _text(self, name: str, steps: Sequence[Data], comment: str) -> str:
        return scenario_text({**self._rest, "name": _short(name), "steps": list(steps)}, comment)

    def _epilogue(self, stuck: Sequence[str]) -> list[Data]:
        """Faults off: every sandbox works, is paused once more, and runs again, or was discarded or killed."""
        resume = {"resume": {"allow_empty": True, "deadline": DEADLINE}}
        pause = {"pause": {"allow_empty": True, "deadline": DEADLINE}}
        restart: list[Data] = [{"restart": {}}] if _ends_down(self.steps) else []
        return [*restart, {"clear": {}}, resume, {"tick": 1}, pause, resume, *self._liveness(stuck)]

    def _liveness(self, stuck: Sequence[str]) -> list[Data]:
        if not stuck:
            return [{"expect": {"sandboxes": "*", "state": list(FINAL), "allow_empty": True}}]
        states = {name: [*FINAL, "paused"] if name in stuck else list(FINAL) for name in self.sandboxes}
        return [{"expect": {"sandboxes": name, "state": state}} for name, state in states.items()]


def _tolerant(step: Mapping[str, Any]) -> Data:
    """An empty selection is allowed in a case; a step that never ends is judged before the time limit."""
    ((kind, body),) = step.items()
    if kind not in _SELECTING:
        return dict(step)
    return {kind: {**({"deadline": DEADLINE} if kind in _AWAITED else {}), **body, "allow_empty": True}}


def _armed(steps: Sequence[Data], reached: int) -> int:
    """The step before which the fault is armed: the earliest with no disarming step between it and the point's step."""
    return max((index + 1 for index, step in enumerate(steps[:reached]) if step.keys() & _FORGETTING), default=0)


def _ends_down(steps: Sequence[Data]) -> bool:
    last = [key for step in steps for key in step if key in {"crash", "restart"}]
    return last[-1:] == ["crash"]


def _fault(case: Case) -> Data:
    point, kind = case.point, case.kind
    if kind == "kill-node":
        at = {"fault": point.fault, **_chunk(point), "nth": point.nth}
        return {"crash": {"at": at, "sandboxes": point.sandbox}}
    how: Data = {"how": kind}
    if kind == "errno":
        how = {}
    elif kind in {"delay", "hang"}:
        how = {kind: HOLDUP}
    at = {} if point.chunk is None else {"at": _chunk(point)}
    return {"inject": {"fault": point.fault, **how, **at, "sandboxes": point.sandbox, "count": 1, "nth": point.nth}}


def _chunk(point: Point) -> Data:
    return {} if point.chunk is None else {"chunk": point.chunk}


def _short(name: str) -> str:
    """A valid scenario name: at most 60 characters, still unique."""
    if len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(mark) - 1].rstrip('-.')}-{mark}"


VIOLATED, ERROR, INCONCLUSIVE, NOT_REACHED = "violated", "error", "inconclusive", "not reached"
OUTCOMES = (
    "finished", "rolled back", "discarded", "refused", "running", "paused", "killed", "recovered",
    NOT_REACHED, INCONCLUSIVE, ERROR, VIOLATED,
)  # fmt: skip
"""In the order of a table. `running` and `paused` are a sandbox's state after a fault in its resume; `recovered` is for
a crash outside any pause."""
_CODES = {VIOLATED: ExitCode.VIOLATED, ERROR: ExitCode.INTERNAL, INCONCLUSIVE: ExitCode.INCONCLUSIVE}
_CODES[NOT_REACHED] = ExitCode.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case that was run. `broken` are its violations; `run_dir` is kept if it did not hold."""

    case: Case
    outcome: str
    seconds: float
    broken: tuple[events.Judged, ...] = ()
    why: str | None = None
    run_dir: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        return _CODES.get(self.outcome, ExitCode.HELD)


def result_of(case: Case, result: UnitResult) -> CaseResult:
    """Judged on invariants and liveness alone: other inconclusive judgements do not count."""
    if broken := result.violated:
        return CaseResult(case, VIOLATED, result.seconds, broken, why(broken[0]), result.run_dir)
    if result.error is not None:
        return CaseResult(case, ERROR, result.seconds, (), result.error, result.run_dir)
    if result.unproven is not None:
        return CaseResult(case, INCONCLUSIVE, result.seconds, (), why(result.unproven), result.run_dir)
    return CaseResult(case, _outcome(case, result) if _fired(case, result) else NOT_REACHED, result.seconds)


def _fired(case: Case, result: UnitResult) -> bool:
    point, pauses = case.point, {None, case.point.occasion}
    return any(
        (entry.sandbox, fired.fault, fired.chunk) == (point.sandbox, point.fault, point.chunk)
        and fault_kind(fired.kind, fired.error) == case.kind
        and entry.pause in pauses
        for entry, fired in result.each(events.FaultFired)
    )


def _outcome(case: Case, result: UnitResult) -> str:
    """The outcome of the pause that the fault hit; the final state if that says more or there was no pause."""
    point = case.point
    state = result.states.get(point.sandbox, "gone")
    if case.kind in {"kill-guest", "kill-node"} and state == "killed":
        return state
    if (settled := result.settled.get(point.occasion)) is not None:
        return settled.outcome.replace("-", " ")
    if case.kind == "kill-node":
        return "recovered"
    return state if point.of_resume else NOT_REACHED


_KEPT = frozenset({VIOLATED, INCONCLUSIVE, ERROR})


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What to sweep, and how. `memory` in bytes for all cases at a time, `time_limit` in seconds per case.

    `shard` is (index from 1, count).
    """

    runs_dir: Path
    jobs: int
    memory: int
    seed: int | None = None
    time_limit: float = 60.0
    only: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)


@dataclass
class Sweep:
    """One scenario's sweep: the points of its clean run, the cases chosen from them, and the results so far."""

    scenario: Scenario
    swept: Swept
    seed: int
    clean: UnitResult
    found: int = 0
    cases: list[Case] = field(default_factory=list)
    results: list[CaseResult] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    """Why chosen cases were not run."""

    @property
    def unclean(self) -> str | None:
        """Why nothing could be swept: the clean run did not hold."""
        if broken := self.clean.violated:
            return f"{broken[0].subject}: {why(broken[0])}"
        return self.clean.error or (why(self.clean.unproven) if self.clean.unproven else None)

    @property
    def exit_code(self) -> ExitCode:
        """The worst of its cases; without any case, that of its clean run."""
        if self.unclean is not None:
            if self.clean.violated:
                return ExitCode.VIOLATED
            return ExitCode.INTERNAL if self.clean.error else ExitCode.INCONCLUSIVE
        if self.cases and not self.results:
            return ExitCode.INCONCLUSIVE
        return worst([each.exit_code for each in self.results])


def choose(scenario: Scenario, options: SweepOptions, pool: Pool) -> Sweep:
    """Run it once clean, traced; gives the sweep with every case that was chosen, and no result yet.

    UserError if one run needs more memory than there is for all.
    """
    seed = scenario.seed if options.seed is None else options.seed
    swept = Swept(scenario, seed)
    unit = replace(_unit(scenario, options, "clean", swept.clean()), trace=True)
    if unit.need > options.memory:
        need, memory = format_size(unit.need), format_size(options.memory)
        raise UserError(f"{scenario.path}: a run of {scenario.name} needs {need}, and --memory is {memory}")
    (clean,) = pool.run([unit])
    sweep = Sweep(scenario, swept, seed, clean)
    if sweep.unclean is None:
        if clean.run_dir is not None:
            remove(clean.run_dir)
        every = cases_of(points_of(clean.entries, len(swept.steps)))
        sweep.found = len(every)
        sweep.cases = shard(only(every, options.only), *options.shard)
    return sweep


def run(sweep: Sweep, options: SweepOptions, pool: Pool, batch: Batch, deadline: float | None = None) -> None:
    """Run its cases; none is started that would end after `deadline`, in seconds of the monotonic clock.

    If it ends early, also by an interrupt, the sweep has the results so far.
    """
    began, bad = time.monotonic(), Counter[str]()

    def take(case: Case, result: UnitResult) -> tuple[ExitCode, str]:
        done = result_of(case, result)
        if done.outcome not in _KEPT and result.run_dir is not None and not remove(result.run_dir):
            done = replace(done, run_dir=result.run_dir)  # it has not ended: `snapdrill clean` needs it
        sweep.results.append(done)
        bad[done.outcome] += 1
        return done.exit_code, "cases" + (f", {bad[VIOLATED]} VIOLATED" if bad[VIOLATED] else "")

    try:
        if not batch.through(pool, sweep.scenario.name, _units(sweep, options, deadline), len(sweep.cases), take):
            sweep.stopped = "--fail-fast"
    except KeyboardInterrupt:
        sweep.stopped = "an interrupt"
        raise
    finally:
        sweep.seconds = time.monotonic() - began


def _units(sweep: Sweep, options: SweepOptions, deadline: float | None) -> Iterator[tuple[Case, Unit]]:
    for case in sweep.cases:
        mean = sum(each.seconds for each in sweep.results) / max(1, len(sweep.results))
        if deadline is not None and time.monotonic() + mean > deadline:
            sweep.stopped = "--budget"
            return
        yield case, _unit(sweep.scenario, options, case.name, sweep.swept.case(case))


def _unit(scenario: Scenario, options: SweepOptions, name: str, text: str) -> Unit:
    unit = Unit.of(name, scenario, options.runs_dir)
    return replace(unit, text=text, time_limit=options.time_limit)
