"""A plan as a scenario and its gates; the arms in turns."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from flags.document import Path
from sim.files.flag_values import written_lease
from sim.files.plan import (
    Analysis,
    Approve,
    Assert,
    KillSwitchDrill,
    Plan,
    PlanStep,
    PlanWait,
    SetWeight,
    checkpoints_a_pause,
)
from sim.files.scenario import Scenario, from_document
from sim.files.steps import Clear, Inject, Outage, PauseStep, Step
from sim.files.units import HUGE_PAGE, format_duration
from sim.files.yaml import Document, Origin, scenario_text
from sim.rollout.simulated_nodes import A_GUEST
from sim.rollout.stage_flags import exported, stage_value
from sim.run.host import host
from sim.run.needs import free_memory, needed_memory

Arm = Literal["on", "off"]


def round_deadline(sandboxes: int) -> str:
    """For one step of a round: a busy machine is no failure of the engine."""
    return f"{120 + sandboxes}s"


@dataclass(frozen=True, slots=True)
class Gate:
    """After a scenario step: `measure` the metrics of plan step `step` once more, or conclude it (`end`)."""

    step: int
    act: Literal["measure", "end"]


@dataclass(frozen=True, slots=True)
class Stage:
    """From one setWeight to the next: the plan steps `steps`, at `weight` percent; scenario steps from `first` on."""

    number: int
    weight: float
    steps: range
    first: int
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan as a scenario. `gates` by 0-based scenario step; `virtual` is each plan step's own time in seconds."""

    plan: Plan
    arm: Arm
    scenario: Scenario
    gates: Mapping[int, tuple[Gate, ...]]
    stages: tuple[Stage, ...]
    virtual: tuple[float, ...]
    rounds: tuple[int, ...]

    def stage_of(self, plan_step: int) -> Stage:
        """The stage that a plan step belongs to."""
        return next(each for each in self.stages if plan_step in each.steps)


@dataclass
class _Draft:
    plan: Plan
    arm: Arm
    steps: list[dict[str, Any]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    gates: dict[int, list[Gate]] = field(default_factory=dict)
    firsts: list[int] = field(default_factory=list)
    virtual: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    weight: float = 0.0
    rule: str | None = None
    armed: bool = False
    made: int = 0

    def add(self, owner: int, *steps: dict[str, Any]) -> None:
        self.steps += steps
        self.owners += [owner] * len(steps)

    def gate(self, step: int, act: Literal["measure", "end"]) -> None:
        self.gates.setdefault(len(self.steps) - 1, []).append(Gate(step, act))

    def one_round(self, owner: int) -> None:
        """The load once."""
        self.add(owner, *one_round(self.plan, self.made))
        self.made += 1
        self.rounds[owner] += 1

    def load(self, owner: int, seconds: float) -> None:
        """Rounds of the load for a stretch of time; in real time one, the wait, and another."""
        if self.plan.time == "real":
            self.one_round(owner)
            self.add(owner, {"wait": format_duration(seconds)})
            self.one_round(owner)
            return
        for _ in range(rounds(self.plan, seconds)):
            self.one_round(owner)


def rounds(plan: Plan, seconds: float) -> int:
    """How often every sandbox is paused in that time at the plan's pace, within what the plan rehearses of it."""
    asked = plan.pacing.pauses_per_minute * seconds / 60 / len(plan.sandboxes())
    return max(1, min(plan.pacing.most_rounds, math.ceil(asked)))


MOST_CHECKPOINTS = 4
"""Of one sandbox in a round."""


def one_round(plan: Plan, number: int = 0) -> list[dict[str, Any]]:
    """Every sandbox works, is paused and resumed; before that come its checkpoints, each with work of its own.

    Which of them have one more than others is drawn by the plan's seed and the round's `number`.
    """
    deadline = round_deadline(len(plan.sandboxes()))
    pause = {"concurrency": plan.pacing.at_once, "allow_empty": True, "deadline": deadline}
    steps = [step for turn in range(MOST_CHECKPOINTS) for step in _checkpoints(plan, number, turn)]
    return [*steps, {"tick": 1}, {"pause": pause}, {"resume": {"allow_empty": True, "deadline": deadline}}]


def _checkpoints(plan: Plan, number: int, turn: int) -> list[dict[str, Any]]:
    share = min(1.0, checkpoints_a_pause(plan) - turn)
    if share <= 0:
        return []
    how = {"allow_empty": True, "deadline": round_deadline(len(plan.sandboxes()))}
    if share == 1:
        return [{"tick": 1}, {"checkpoint": how}]
    names = [each.name for each in plan.sandboxes() if _drawn(plan.seed, number, turn, each.name) < share]
    return [{"tick": 1}, *({"checkpoint": {"sandboxes": name, **how}} for name in names)] if names else []


def _drawn(seed: int, number: int, turn: int, name: str) -> float:
    """From 0 to 1, the same for the same seed."""
    key = f"{seed}:checkpoint:{number}:{turn}:{name}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) / (1 << 64)


def compiled(plan: Plan, arm: Arm = "on", after: int = -1) -> Compiled:
    """The plan as a scenario; with arm `off` the same one with every weight 0.

    Of the plan steps up to `after`, which an earlier rehearsal took, only what they do to the flag and its source is
    repeated: no load, no gate.
    """
    draft = _Draft(plan, arm)
    draft.add(0, {"tick": 1})
    for index, step in enumerate(plan.steps):
        draft.virtual.append(seconds_of(step))
        draft.rounds.append(0)
        if index > after:
            _take(draft, index, step)
            draft.gate(index, "end")
        elif isinstance(step, SetWeight | Outage):
            _take(draft, index, step)
    return Compiled(
        plan,
        arm,
        _scenario(draft),
        {index: tuple(each) for index, each in draft.gates.items()},
        tuple(_stages(plan, draft.firsts)),
        tuple(draft.virtual),
        tuple(draft.rounds),
    )


def seconds_of(step: PlanStep) -> float:
    """How long a step takes by the plan's clock."""
    match step:
        case PlanWait(duration=seconds):
            return seconds
        case Analysis(count=count, interval=interval):
            return (count - 1) * interval
        case KillSwitchDrill(kill_switch=drill):
            return drill.max_propagation
    return 0.0


def _take(draft: _Draft, index: int, step: PlanStep) -> None:
    match step:
        case SetWeight(weight=weight, rule=rule):
            if draft.armed:
                draft.add(index, {"clear": {}})
                draft.armed = False
            draft.firsts.append(len(draft.steps))
            draft.weight, draft.rule = weight, rule
            draft.add(index, _set(draft, weight))
        case PlanWait(duration=seconds):
            draft.load(index, seconds)
        case Analysis(count=count, interval=interval):
            draft.gate(index, "measure")
            for _ in range(count - 1):
                draft.load(index, interval)
                draft.gate(index, "measure")
        case KillSwitchDrill(kill_switch=drill):
            off = (
                _set(draft, 0.0)
                if draft.plan.flag_source == "launchdarkly"
                else {"flag": {draft.plan.flag: draft.plan.safe}}
            )
            wait = [{"wait": format_duration(drill.max_propagation)}] if draft.plan.time == "real" else []
            draft.add(index, off, *wait)
            draft.one_round(index)
            draft.add(index, _set(draft, draft.weight))
        case Inject() | Outage() | Clear():
            draft.armed = isinstance(step, Inject) or (draft.armed and not isinstance(step, Clear))
            draft.add(index, draft.plan.document.data["steps"][index])
        case Assert() | Approve():
            pass


def _set(draft: _Draft, weight: float) -> dict[str, Any]:
    """The weight at its source; LaunchDarkly's own is turned by its operator, and followed."""
    if draft.plan.flag_source == "launchdarkly":
        return {"wait": "1ms"}
    plan, value = draft.plan, stage_value(draft.plan, weight if draft.arm == "on" else 0.0, draft.rule)
    if draft.arm == "off" and "share" in value:
        return {"flag": {plan.flag: plan.safe}}
    return {"flag": {plan.flag: value}}


def _stages(plan: Plan, firsts: Sequence[int]) -> Iterator[Stage]:
    begins = [(index, step) for index, step in enumerate(plan.steps) if isinstance(step, SetWeight)]
    ends = [*(index for index, _ in begins[1:]), len(plan.steps)]
    for number, ((begin, step), end, first) in enumerate(zip(begins, ends, firsts, strict=True), 1):
        yield Stage(number, step.weight, range(begin, end), first, step.rule)


def _scenario(draft: _Draft) -> Scenario:
    plan, raw = draft.plan, draft.plan.document.data
    data: dict[str, Any] = {"version": 1, "name": plan.name, "seed": plan.seed}
    data |= {"node": raw["node"]} if "node" in raw else {}
    data |= {"engine": engine} if (engine := engine_of(plan)) else {}
    data |= {key: raw[key] for key in ("contexts", "readers") if key in raw}
    data |= {"fleet": raw["fleet"], "flags": _flags(plan, draft.arm), "steps": draft.steps}
    asserted = [step.invariant for step in plan.steps if isinstance(step, Assert)]
    data["expect"] = [{"invariant": each} for each in dict.fromkeys(asserted)]
    what = f"Made from {plan.path.name}" + ("." if draft.arm == "on" else ", with the flag off.")
    return from_document(_placed(draft, data), scenario_text(data, what), plan.path)


def engine_of(plan: Plan) -> dict[str, Any]:
    """The plan's engine as a scenario writes it, with what was mended; empty for a sound one."""
    said = plan.engine.model_dump(exclude_defaults=True)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in said.items()}


def _flags(plan: Plan, arm: Arm) -> dict[str, Any]:
    """LaunchDarkly serves its own flags; with the flag off they are safe, and no flag needs turning."""
    lease = {} if plan.flag_source == "inline" else {"lease": written_lease(plan.lease)}
    if plan.flag_source == "launchdarkly":
        return {"source": "launchdarkly", **lease} if arm == "on" else {}
    given = dict(plan.document.data.get("flags") or {}) | lease
    if plan.flag_source != "file":
        return given | {plan.flag: stage_value(plan, 0.0)}
    # the user's own flag is served as production's SDK would serve it: what is wrong with it, the critic says
    return given if exported(plan) is None else {"obey_unsafe": True, **given}


def _placed(draft: _Draft, data: dict[str, Any]) -> Document:
    """Every step stands where its plan step is written."""
    source = draft.plan.document
    kept = {"fleet", "node", "engine", "flags", "contexts", "readers"}
    same = {path: at for path, at in source.values.items() if path and path[0] in kept}
    written: dict[Path, Origin] = {(): Origin(), **same}
    written |= {("steps", index): source.origin(("steps", owner)) for index, owner in enumerate(draft.owners)}
    asserted = {step.invariant: index for index, step in enumerate(draft.plan.steps) if isinstance(step, Assert)}
    for place, each in enumerate(data["expect"]):
        written["expect", place] = source.origin(("steps", asserted[each["invariant"]]))
    return Document(data, values=written)


Result = TypeVar("Result")
_OTHER: dict[Arm, Arm] = {"on": "off", "off": "on"}


def beginners(steps: Sequence[Step], seed: int) -> tuple[Arm, ...]:
    """Which arm takes each step first. The order of a round is drawn by the seed; of each two rounds both orders come.

    The arm with the flag off begins the run.
    """
    found: list[Arm] = []
    rounds = 0
    for step in steps:
        found.append(_first_arm(seed, rounds) if found else "off")
        rounds += isinstance(step, PauseStep)
    return tuple(found)


def _first_arm(seed: int, number: int) -> Arm:
    drawn = hashlib.blake2b(f"{seed}:order of the arms:{number // 2}".encode(), digest_size=1).digest()[0] & 1
    return "on" if drawn ^ (number & 1) else "off"


class Turns:
    """Both arms take every step, one after the other; an arm that has ended is waited for no more."""

    def __init__(self, first: Sequence[Arm]) -> None:
        self._first = first
        self._taken: dict[Arm, int] = {"on": -1, "off": -1}
        self._free: dict[Arm, int] = {"on": -1, "off": -1}
        self._ended: set[Arm] = set()
        self._changed = asyncio.Condition()

    async def took(self, arm: Arm, index: int) -> None:
        """The arm has taken this step, and still looks at its outcome."""
        await self._set(self._taken, arm, index)

    async def both_took(self, arm: Arm, index: int) -> None:
        """Wait until the other one has taken it too."""
        other = _OTHER[arm]
        await self._until(arm, lambda: self._taken[other] >= index)

    async def next(self, arm: Arm, index: int) -> None:
        """The arm is done with this step; wait until it may take the next one."""
        await self._set(self._free, arm, index)
        other, coming = _OTHER[arm], index + 1
        if coming >= len(self._first):
            return
        if self._first[coming] == arm:
            await self._until(arm, lambda: self._free[other] >= index)
        else:
            await self._until(arm, lambda: self._taken[other] >= coming)

    def has_ended(self, arm: Arm) -> bool:
        """Whether an arm takes no more steps."""
        return arm in self._ended

    async def end(self, arm: Arm) -> None:
        """The arm takes no more steps."""
        async with self._changed:
            self._ended.add(arm)
            self._changed.notify_all()

    async def _set(self, counts: dict[Arm, int], arm: Arm, index: int) -> None:
        async with self._changed:
            counts[arm] = index
            self._changed.notify_all()

    async def _until(self, arm: Arm, reached: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: reached() or _OTHER[arm] in self._ended)


async def side_by_side(
    first: Coroutine[Any, Any, Result], second: Coroutine[Any, Any, Result]
) -> tuple[Result, Result]:
    """Both to their end. Where one fails, or this is cancelled, both are torn down before the error is raised."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
    try:
        one, other = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return one, other


def has_room_for_two(scenario: Scenario) -> bool:
    """Whether both arms' fleets fit into this host at once: memory, and huge pages where the fleet has them."""
    huge = sum(each.memory for each in scenario.sandboxes() if each.page_size == HUGE_PAGE)
    room = 2 * (needed_memory(scenario) + A_GUEST * len(scenario.sandboxes())) <= free_memory()
    return room and (not huge or 2 * huge <= int(host()["hugetlb_free"]))
