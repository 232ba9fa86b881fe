"""Runs one scenario: each step a barrier, every expectation judged, a verdict at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import UserError
from sim import events
from sim.drill import Drill
from sim.judging import (
    HELD,
    INCONCLUSIVE,
    VIOLATED,
    Place,
    judge_expectations,
    judge_state,
    judged,
    rollouts_without_effect,
    selected,
    unfired_faults,
)
from sim.ledger import Entry
from sim.node_link import NodeDiedError
from sim.places import AtChunk
from sim.scenario import (
    Checkpoint,
    Clear,
    Crash,
    Expect,
    FlagStep,
    Inject,
    Kill,
    Outage,
    Pause,
    Restart,
    Resume,
    Scenario,
    Selection,
    Step,
    Tick,
    Wait,
)
from sim.view import View


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a scenario is run; `time_limit` in seconds."""

    runs_dir: Path
    seed: int | None = None
    cache_dir: Path | None = None
    only: tuple[str, ...] = ()
    keep: str = "never"
    time_limit: float = 120.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """The final view of a run, every entry of its ledger, and where it is stored."""

    view: View
    entries: list[Entry]
    run_dir: Path


Progress = Callable[[str], None]


async def run_scenario(scenario: Scenario, options: RunOptions, progress: Progress = lambda _: None) -> RunResult:
    """Run it to its verdict; teardown runs whatever happens. Raises UserError for a step that cannot be taken."""
    drill = Drill(
        scenario,
        runs_dir=options.runs_dir,
        seed=options.seed,
        only=options.only,
        cache_dir=options.cache_dir,
        keep_cache=lambda verdict: options.keep == "always" or (options.keep == "failed" and verdict != HELD),
    )
    async with drill:
        runner = _Runner(drill, progress)
        await runner.take_steps(options.time_limit)
        view = await drill.finish(runner.conclusions)
        return RunResult(view, drill.entries, drill.run_dir)


@dataclass
class _Runner:
    """Takes the steps of one scenario and keeps what they showed."""

    drill: Drill
    progress: Progress
    found: list[events.Judged] = field(default_factory=list)
    places: dict[int, Place] = field(default_factory=dict)
    awaited: str = "the start"
    crash_armed: bool = False

    @property
    def whole_fleet(self) -> bool:
        return not self.drill.only

    async def take_steps(self, time_limit: float) -> None:
        """Every step in turn; past the time limit the run is inconclusive and says what it waited for."""
        try:
            async with asyncio.timeout(time_limit) as limit:
                for index, step in enumerate(self.drill.scenario.steps):
                    await self._take(index, step)
        except TimeoutError:
            if not limit.expired():
                raise
            reason = f"the time limit of {time_limit:g} s ended the run while it awaited {self.awaited}"
            place = self.drill.scenario.where(("steps",))
            self.found.append(judged("time-limit", INCONCLUSIVE, 0, place, [{"sandbox": "*", "reason": reason}]))

    async def _take(self, index: int, step: Step) -> None:
        place = self.drill.scenario.where(("steps", index))
        self.awaited = f"step {index + 1} ({step.kind})"
        self.progress(f"{index + 1}/{len(self.drill.scenario.steps)} {step.kind}")
        self.drill.note(events.StepStarted(index, step.kind, *place))
        if self.drill.is_down() and not isinstance(step, Restart | Expect | Wait | Crash):
            where = f"{self.drill.scenario.path}:{place[0]}:{place[1]}"
            raise UserError(f"{where}: error: the node is down after a crash; put a restart step before {step.kind}")
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
            case Pause() | Checkpoint() | Resume() | Kill():
                await self._act_on(step, place)
            case FlagStep(values=values):
                await self._reach_the_node(step, place, (self.drill.set_flag(*each) for each in values.items()))
            case Outage():
                await self._reach_the_node(step, place, [self.drill.outage(step)])
            case Wait(seconds=seconds):
                await asyncio.sleep(seconds)
            case Expect():
                self.found.append(judge_state(step, self.drill.view(), place, whole_fleet=self.whole_fleet))
            case _:
                await self._break(step, place)

    async def _reach_the_node(self, step: FlagStep | Outage, place: Place, acts: Iterable[Awaitable[None]]) -> None:
        try:
            for act in acts:
                await act
        except TimeoutError:
            reason = "the flags as they are at their source did not reach the node in time"
            self.found.append(judged(f"deadline:{step.kind}", VIOLATED, 1, place, [{"sandbox": "*", "reason": reason}]))

    async def _break(self, step: Inject | Clear | Crash | Restart, place: Place) -> None:
        """Faults and crashes: what is armed is judged where it is forgotten."""
        match step:
            case Inject():
                number = await self.drill.inject(step.fault, step.error, step.at, step.sandboxes, step.count)
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

    async def _act_on(self, step: Pause | Checkpoint | Resume | Kill, place: Place) -> None:
        names = self._selected(step, place)
        if not names:
            return
        try:
            match step:
                case Pause():
                    await self.drill.pause(
                        names, concurrency=step.concurrency, until=step.until, deadline=step.deadline
                    )
                case Checkpoint():
                    await self.drill.checkpoint(names, deadline=step.deadline)
                case Resume():
                    await self.drill.resume(names, deadline=step.deadline)
                case Kill():
                    await self.drill.kill(names)
        except TimeoutError:
            waiting = [
                n
                for n in names
                if self.drill.view().sandboxes[n].state in {"pausing", "checkpointing", "resuming", "paused"}
            ]
            reason = f"the step's deadline passed while {', '.join(waiting) or 'its copies'} had not settled"
            self.found.append(judged(f"deadline:{step.kind}", VIOLATED, 1, place, [{"sandbox": "*", "reason": reason}]))

    def _selected(self, step: Selection, place: Place) -> list[str]:
        punched = step.where.punched if step.where else None
        names = selected(self.drill.view(), step.sandboxes, step.state, punched)
        if not names and not step.allow_empty and self.whole_fleet:
            reason = f"the selection {step.sandboxes!r} in state {step.state or 'any'} matched nothing"
            found = judged("selection", INCONCLUSIVE, 0, place, [{"sandbox": step.sandboxes, "reason": reason}])
            self.found.append(found)
        return names

    async def _crash(self, step: Crash, place: Place) -> None:
        if step.at is None:
            await self.drill.crash()
            return
        number = await self.drill.inject(step.at.fault, None, AtChunk(step.at.chunk), step.sandboxes, 1)
        self.places[number] = place
        self.crash_armed = True

    def _judge_faults(self) -> None:
        """Called where armed faults are forgotten; under --only most are armed on others."""
        if self.whole_fleet:
            self.found += unfired_faults(self.drill.view(), self.places)

    def conclusions(self, view: View) -> list[events.Judged]:
        """Everything the scenario expects, judged at the end."""
        self._judge_faults()
        if self.whole_fleet:
            self.found += rollouts_without_effect(self.drill.entries, view)
        expectations = judge_expectations(self.drill.scenario, view, whole_fleet=self.whole_fleet)
        return [*self.found, *expectations]
