"""Runs the steps of a scenario, one after the other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from engine.errors import UserError
from flags.document import DocumentError, Mistake, Position
from sim.files.expectations import InvariantExpectation, MetricExpectation
from sim.files.faults import KILL_NODE
from sim.files.lifecycle import FINAL, State
from sim.files.scenario import Scenario
from sim.files.steps import (
    Act,
    Checkpoint,
    Clear,
    Crash,
    Expect,
    FlagStep,
    Inject,
    Kill,
    Outage,
    PauseStep,
    Restart,
    Resume,
    Salvage,
    Selection,
    StateExpectation,
    Step,
    Tick,
    Wait,
)
from sim.record import events
from sim.record.folder import RunFolderFullError, StoredRun, has_ledger, is_full, names_full_disk, remove
from sim.record.ledger import EVENTS_FILE, LedgerError, following
from sim.record.verdict import DEADLINE, INVARIANT, NODE_DIED, TIME_LIMIT
from sim.record.view import View
from sim.report.words import named, plural
from sim.rules.finding import Finding
from sim.run.drill import Drill
from sim.run.judging import (
    HELD,
    INCONCLUSIVE,
    VIOLATED,
    Place,
    cut_short,
    judge_expectations,
    judge_invariants,
    judge_metric,
    judge_state,
    judged,
    rollouts_without_effect,
    selected,
    unfired_faults,
)
from sim.run.node_link import NodeDiedError, NodeFailedError, NodeStarter, execute_node


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a scenario is run; `time_limit` in seconds; `trace` records every fault point that is passed.

    `events` gets the ledger while it grows; where it cannot be written any more, `events_lost` is called, once a run.
    `heartbeat`, in seconds, is for guests whose scenario sets none; 0: none.
    """

    runs_dir: Path
    seed: int | None = None
    cache_dir: Path | None = None
    only: tuple[str, ...] = ()
    keep: str = "never"
    time_limit: float = 120.0
    events: BinaryIO | None = None
    events_lost: Callable[[OSError], None] = lambda _: None
    trace: bool = False
    heartbeat: float = 0.0
    start_node: NodeStarter = execute_node


Progress = Callable[[str], None]
Gate = Callable[[int, Drill], Awaitable[Sequence[Step] | None]]
"""Called after each step with its 0-based index; gives steps to take instead of the remaining ones, None to go on.

A run with a gate is measured, so a missed deadline ends it, as its time limit does: nothing follows from half a round.
"""


class _DeadlineMissedError(Exception):
    """Of a step of this `kind`; the message says what had not settled."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


async def run_scenario(
    scenario: Scenario, options: RunOptions, progress: Progress = lambda _: None, gate: Gate | None = None
) -> StoredRun:
    """Run it to its verdict; teardown runs whatever happens. Raises UserError for a step that cannot be taken."""
    drill = Drill(
        scenario,
        runs_dir=options.runs_dir,
        seed=options.seed,
        only=options.only,
        cache_dir=options.cache_dir,
        trace=options.trace,
        heartbeat=options.heartbeat,
        start_node=options.start_node,
        keep=options.keep,
    )
    try:
        # outside the drill: a slow reader does not delay the fleet
        with following(options.events, options.events_lost) as follow:
            return await _run(_Runner(drill, progress, gate), follow, options.time_limit)
    except (OSError, UserError, LedgerError) as error:
        if not names_full_disk(error):
            raise
        made = drill.run_dir.is_absolute()  # until there is a folder it names the current one
        started = made and has_ledger(drill.run_dir)
        if made and not started:
            remove(drill.run_dir)
        raise RunFolderFullError(options.runs_dir, started=started) from error


async def _run(runner: _Runner, follow: Callable[[Path], None], time_limit: float) -> StoredRun:
    drill = runner.drill
    async with drill:
        follow(drill.run_dir / EVENTS_FILE)
        try:
            await runner.take_steps(time_limit)
            view = await drill.finish(runner.conclusions)
        except (NodeFailedError, LedgerError) as error:
            if is_full(drill.run_dir):  # the node's last events may be missing from the ledger
                raise RunFolderFullError(drill.run_dir) from error
            raise
        return StoredRun(drill.run_dir / EVENTS_FILE, drill.entries, view)


@dataclass
class _Runner:
    """Takes the steps of one scenario and keeps their results."""

    drill: Drill
    progress: Progress
    gate: Gate | None = None
    found: list[events.Judged] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    awaited: str = "the start"
    awaited_at: Place = (1, 1)
    settled: dict[int, events.Judged] = field(default_factory=dict)
    cut_off: bool = False
    crash_armed: bool = False

    @property
    def whole_fleet(self) -> bool:
        return not self.drill.only

    async def take_steps(self, time_limit: float) -> None:
        """Every step in order; past the time limit the run is inconclusive and reports what it waited for."""
        try:
            if self.drill.died is not None:
                raise self.drill.died
            async with asyncio.timeout(time_limit) as limit:
                for index, step in enumerate(self.drill.scenario.steps):
                    await self._take(index, step)
                    instead = await self.gate(index, self.drill) if self.gate else None
                    if instead is not None:
                        for each in instead:
                            await self._take(index, each)
                        break
                await self._await_expectations()
        except TimeoutError:
            if not limit.expired():
                raise
            self._cut_off(TIME_LIMIT, f"the time limit of {time_limit:g} s ended the run")
        except NodeDiedError as error:
            self._cut_off(NODE_DIED, f"{error}; that ended the run")
        except _DeadlineMissedError as error:
            self._cut_off(f"{DEADLINE}{error.kind}", f"{error}; that ended the run")

    def _cut_off(self, subject: str, why: str) -> None:
        self.cut_off = True
        reason = {"sandbox": "*", "reason": f"{why} while it awaited {self.awaited}"}
        self.found.append(judged(subject, INCONCLUSIVE, 0, self.awaited_at, [reason]))

    async def _take(self, index: int, step: Step) -> None:
        place = self.drill.scenario.origin(("steps", index))
        self.awaited, self.awaited_at = f"step {index + 1} ({step.kind})", place
        self.progress(f"{index + 1}/{len(self.drill.scenario.steps)} {step.kind}")
        self.drill.note(events.StepStarted(index, step.kind, *place))
        if self.drill.is_down() and not isinstance(step, Restart | Expect | Wait | Crash):
            what, fix = "the node is down after a crash", f"put a restart step before {step.kind}"
            down = Mistake(Position(place.line, place.column), "", what, fix, place.file or "")
            raise DocumentError(self.drill.scenario.path, [down])
        try:
            await self._do(step, place)
        except NodeDiedError:
            if not self.crash_armed:
                raise
            self.crash_armed = False
        self.drill.note(events.StepEnded(index))

    async def _do(self, step: Step, place: Place) -> None:
        match step:
            case Tick(ticks=ticks):
                await self.drill.tick(ticks)
            case PauseStep() | Checkpoint() | Resume() | Kill() | Salvage():
                await self._act_on(step, place)
            case FlagStep(values=values):
                await self._reach_the_node(step, place, (self.drill.set_flag(*each) for each in values.items()))
            case Outage():
                await self._reach_the_node(step, place, [self.drill.outage(step)])
            case Wait(seconds=seconds):
                await asyncio.sleep(seconds)
            case Expect():
                self.found.append(await self._expect(step, place))
            case _:
                await self._break(step, place)

    async def _expect(self, step: Expect, place: Place) -> events.Judged:
        def look() -> events.Judged:
            return judge_state(step, self.drill.view(), place, whole_fleet=self.whole_fleet)

        within = step.eventually.within if step.eventually else 0
        return (await await_all({0: Awaited(look, within)}, self._tick))[0]

    async def _await_expectations(self) -> None:
        """The final expectations that say `eventually`."""
        scenario = self.drill.scenario
        awaited = awaited_at_the_end(
            scenario, lambda: self.drill.findings, self.drill.view, whole_fleet=self.whole_fleet
        )
        if not awaited:
            return
        self.awaited, self.awaited_at = "its expectations", scenario.origin(("expect",))
        self.progress("the last expectations")
        if not self.drill.is_down():
            await self.drill.observe()
        self.settled = await await_all(awaited, self._tick)

    async def _tick(self) -> bool:
        """False while the node is down: nothing ticks then."""
        if self.drill.is_down():
            return False
        await self.drill.tick()
        await self.drill.observe()
        return True

    async def _reach_the_node(self, step: FlagStep | Outage, place: Place, acts: Iterable[Awaitable[None]]) -> None:
        try:
            for act in acts:
                await act
        except TimeoutError:
            self._miss_deadline(step, place, "the flag values of the source did not reach the node in time")

    def _miss_deadline(self, step: Step, place: Place, reason: str) -> None:
        if self.gate is not None:
            raise _DeadlineMissedError(step.kind, reason)
        late = {"sandbox": "*", "code": "deadline", "reason": reason}
        self.found.append(judged(f"{DEADLINE}{step.kind}", VIOLATED, 1, place, [late]))

    async def _break(self, step: Inject | Clear | Crash | Restart, place: Place) -> None:
        """Faults and crashes; armed faults are judged when they are disarmed."""
        match step:
            case Inject():
                by_kernel = step.by == "kernel"
                number = await self.drill.inject(
                    step.fault,
                    step.harm,
                    step.at,
                    step.sandboxes,
                    step.count,
                    nth=step.nth,
                    by_kernel=by_kernel,
                    rate=None if step.rate is None else step.rate / 100,
                )
                self.places[number] = place
            case Clear():
                self._judge_faults()
                self.crash_armed = False
                await self.drill.clear()
            case Crash():
                await self._crash(step, place)
            case Restart():
                self._judge_faults()
                self.crash_armed = False
                await self.drill.restart()

    async def _act_on(self, step: Act, place: Place) -> None:
        names = self._selected(step, place)
        if not names:
            return
        since = self.drill.view().t
        try:
            match step:
                case PauseStep():
                    await self.drill.pause(
                        names, concurrency=step.at_once, until=step.until, deadline=step.deadline, wave=step.wave
                    )
                case Checkpoint():
                    await self.drill.checkpoint(names, deadline=step.deadline)
                case Resume():
                    await self.drill.resume(names, deadline=step.deadline)
                case Kill():
                    await self.drill.kill(names)
                case Salvage():
                    await self.drill.act("salvage", names, step.deadline)
        except TimeoutError:
            waiting = named(unsettled(step, self.drill.view(), names, since), "its copies")
            self._miss_deadline(step, place, f"the step's deadline passed while {waiting} had not settled")

    def _selected(self, step: Selection, place: Place) -> list[str]:
        punched = step.where.punched if step.where else None
        view = self.drill.view()
        names = selected(view, step.sandboxes, step.state, punched)
        if isinstance(step, Salvage):
            names = [name for name in names if (pause := view.sandboxes[name].pause) is not None and pause.stranded]
        if not names and not step.allow_empty and self.whole_fleet:
            reason = f"the selection {step.sandboxes!r} in state {step.state or 'any'} matched nothing"
            found = judged("selection", INCONCLUSIVE, 0, place, [{"sandbox": step.sandboxes, "reason": reason}])
            self.found.append(found)
        return names

    async def _crash(self, step: Crash, place: Place) -> None:
        if step.at is None:
            await self.drill.crash()
            return
        point = step.at
        number = await self.drill.inject(point.fault, KILL_NODE, point.place, step.sandboxes, 1, nth=point.nth)
        self.places[number] = place
        self.crash_armed = True

    def _judge_faults(self) -> None:
        """Called when armed faults are disarmed; under --only most are armed on other sandboxes."""
        if self.whole_fleet:
            self.found += unfired_faults(self.drill.view(), self.places)

    def conclusions(self, view: View) -> list[events.Judged]:
        """All of the scenario's expectations, judged at the end."""
        self._judge_faults()
        if self.whole_fleet:
            self.found += rollouts_without_effect(self.drill.scenario, self.drill.entries, view)
        scenario, settled = self.drill.scenario, self.settled
        expected = judge_expectations(scenario, view, whole_fleet=self.whole_fleet, settled=settled)
        return [*self.found, *(map(cut_short, expected) if self.cut_off else expected)]


def unsettled(step: Act, view: View, names: Sequence[str], since: float) -> list[str]:
    """Those of `names` that a step which began at `since` still waits for; a dead sandbox is waited for no more."""
    there = [view.sandboxes[name] for name in names if view.sandboxes[name].state not in FINAL]
    match step:
        case Resume():
            return [each.name for each in there if each.state in {State.PAUSED, State.RESUMING}]
        case Salvage():
            return [each.name for each in there if each.pause is not None and each.pause.stranded]
        case _:
            return [e.name for e in there if e.pause is None or e.pause.began < since or e.pause.settled_at is None]


@dataclass(frozen=True, slots=True)
class Awaited:
    """Something that must hold once within so many ticks."""

    look: Callable[[], events.Judged]
    within: int


async def await_all(awaited: Mapping[int, Awaited], tick: Callable[[], Awaitable[bool]]) -> dict[int, events.Judged]:
    """The judgement of each: at the first tick at which it held, else after its last tick. No tick if all hold at once.

    `tick` lets one tick pass; it gives False if none can, and then all are judged as they are.
    """
    left, found, ticks, ticking = dict(awaited), dict[int, events.Judged](), 0, True
    while left:
        for key, each in list(left.items()):
            looked = each.look()
            if looked.verdict == HELD or ticks >= each.within or not ticking:
                found[key] = looked if looked.verdict == HELD else _after(looked, ticks)
                del left[key]
        if left:
            ticking = await tick()
            ticks += ticking
    return found


def _after(found: events.Judged, ticks: int) -> events.Judged:
    reasons = [{**each, "reason": f"{each['reason']} (after {plural(ticks, 'tick')})"} for each in found.violations]
    return dataclasses.replace(found, violations=reasons)


def awaited_at_the_end(
    scenario: Scenario, findings: Callable[[], Mapping[str, Finding]], view: Callable[[], View], *, whole_fleet: bool
) -> dict[int, Awaited]:
    """The scenario's expectations that say `eventually`, by index.

    An invariant is awaited until it was exercised, a canary until it was caught; both are still judged at the end.
    """
    look = partial(_look, scenario, findings, view, whole_fleet=whole_fleet)
    return {
        index: Awaited(partial(look, index), expected.eventually.within)
        for index, expected in enumerate(scenario.expect)
        if expected.eventually is not None
    }


def _look(
    scenario: Scenario,
    findings: Callable[[], Mapping[str, Finding]],
    view: Callable[[], View],
    index: int,
    *,
    whole_fleet: bool,
) -> events.Judged:
    expected, place = scenario.expect[index], scenario.origin(("expect", index))
    if isinstance(expected, StateExpectation):
        return judge_state(expected, view(), place, whole_fleet=whole_fleet)
    if isinstance(expected, MetricExpectation):
        return judge_metric(expected, view(), place, whole_fleet=whole_fleet)
    everything = judge_invariants(scenario, findings(), whole_fleet=whole_fleet)
    if isinstance(expected, InvariantExpectation):
        return next(each for each in everything if each.subject == f"{INVARIANT}{expected.invariant}")
    everything += judge_expectations(scenario, view(), whole_fleet=whole_fleet)
    caught = any(each.subject == expected.subject and each.verdict == expected.verdict for each in everything)
    reason = {"sandbox": "*", "reason": f"{expected.subject} is not {expected.verdict} yet"}
    return judged(expected.subject, HELD if caught else INCONCLUSIVE, 1, place, [] if caught else [reason])
