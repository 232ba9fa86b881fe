"""What one seed draws within a scenario's `swarm:` bounds: an ordinary scenario document that runs on its own.

Swarm testing (Groce et al., ISSTA 2012): a seed also draws which features it has at all, so that a defect which one
feature hides shows with another seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flags.catalog import BACKGROUND, FLAGS, PUNCH
from flags.inline import as_written
from sim.files.expectations import MetricExpectation
from sim.files.faults import CATALOGUE, FaultPoint, Kind
from sim.files.fleet import Group
from sim.files.scenario import Scenario, load_text
from sim.files.steps import Expect, Selection, StateExpectation
from sim.files.swarm import DrawRange, Swarm, largest_fleet
from sim.files.units import HUGE_PAGE, format_size
from sim.files.yaml import parse, scenario_text

SETTLED = ["running", "discarded", "killed"]
"""The states that a sandbox may end in once nothing fails any more."""

_KEPT = ("version", "name", "node", "engine", "requires", "readers")
_ERRNOS = ("EIO", "ENOSPC", "EPERM", "ENOMEM", "EINTR")
_PLACES: tuple[Any, ...] = ("first", "last", "50%", "after_condemn", {"chunk": 0}, {"chunk": 1}, {"chunk": 2})
_ODDS = {"pause": 6, "resume": 4, "checkpoint": 3, "crash": 1, "kill": 1, "flag": 0}
_MANY_WRITERS = 0.3
_PERCENTS = ("25%", "50%", "75%")
_SHARES = ("30%", "60%", "100%")
_KINDS_OF_ROLLOUT = ("sandbox", "team", "template")

Draw = random.Random
Step = dict[str, Any]


def stream(seed: int, purpose: str) -> Draw:
    """The random stream of this seed for one purpose; the streams of different purposes are independent."""
    return random.Random(hashlib.blake2b(f"swarm:{seed}:{purpose}".encode(), digest_size=16).digest())


def seed_runs(scenario: Scenario, seeds: Sequence[int], jobs: int) -> Iterator[tuple[int, Scenario]]:
    """Each seed with its scenario: the drawn one if there is `swarm`, else the same one for all."""
    huge_pages = _huge_pages(scenario, jobs) if scenario.swarm is not None else False
    for seed in seeds:
        yield seed, scenario if scenario.swarm is None else draw(scenario, seed, huge_pages=huge_pages)


def as_run(scenario: Scenario, seed: int | None) -> Scenario:
    """The scenario of a single run: with `swarm`, the one that its seed (the file's unless given) draws."""
    if scenario.swarm is None:
        return scenario
    ((_, run),) = seed_runs(scenario, [scenario.seed if seed is None else seed], 1)
    return run


def draw(scenario: Scenario, seed: int, *, huge_pages: bool) -> Scenario:
    """The scenario of this seed, without `swarm`; the same for the same seed and host.

    With `huge_pages` False, 2 MiB pages are drawn as 4 KiB ones. Raises DocumentError if bounds and scenario do not
    fit, such as a fleet that the node has no memory for.
    """
    swarm = scenario.swarm or Swarm()
    written: dict[str, Any] = dict(parse(scenario.source_text).data)
    fleet = _fleet(scenario, swarm, partial(stream, seed), huge_pages=huge_pages)
    groups = [each["name"] for each in fleet]
    names = [f"{each['name']}-{index}" for each in fleet for index in range(each["count"])]
    flags, readers = _flags(swarm, stream(seed, "flags")), _readers(swarm, stream(seed, "readers"))
    program = _Program(swarm, partial(stream, seed), groups, names, tuple(flags))
    document: Step = {**readers, **{key: written[key] for key in _KEPT if key in written}}
    document |= {"seed": seed, "fleet": fleet}
    if scenario.flag_source != "launchdarkly":
        document.setdefault("contexts", "all")  # flags are drawn by every kind
        document["flags"] = {**written.get("flags", {}), **({} if "file" in written.get("flags", {}) else flags)}
    steps = [*_own_steps(scenario, written, names), *program.steps()]
    document["steps"] = [*steps, *_liveness(steps)]
    if expected := _expected(scenario, written):
        document["expect"] = expected
    comment = f"Drawn by seed {seed} within the bounds of {scenario.path.name}: with faults, then without, to the end."
    return load_text(scenario_text(document, comment), scenario.path).with_source(guest=scenario.asked_guest)


# -- the fleet


def _fleet(scenario: Scenario, swarm: Swarm, streams: Callable[[str], Draw], *, huge_pages: bool) -> list[Step]:
    rng = streams("fleet")
    own = scenario.fleet
    total = _within(rng, swarm.fleet.count or DrawRange(1, sum(each.count for each in own)))
    sizes = _split(rng, total, _within(rng, swarm.fleet.groups))
    teams = [f"team-{index}" for index in range(_within(rng, swarm.fleet.teams))]
    return [
        _with_threads(
            streams(f"threads of group {index}"),
            _group(streams(f"group {index}"), swarm, own, count, index, rng.choice(teams), huge_pages=huge_pages),
        )
        for index, count in enumerate(sizes)
    ]


def _with_threads(rng: Draw, group: Step) -> Step:
    """In about a third of the groups two threads of a guest write its memory."""
    return {**group, "workload": {**group["workload"], "threads": 2}} if rng.random() < _MANY_WRITERS else group


def _split(rng: Draw, total: int, groups: int) -> list[int]:
    """`total` in that many parts, or in as many as it has; none is empty."""
    parts = min(groups, total)
    cuts = sorted(rng.sample(range(1, total), parts - 1))
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


def _group(
    rng: Draw, swarm: Swarm, own: Sequence[Group], count: int, index: int, team: str, *, huge_pages: bool
) -> Step:
    like, bounds = rng.choice(own), swarm.fleet
    page = rng.choice(bounds.page_sizes or (like.page_size,))
    page = page if huge_pages else min(page, 4096)
    block = rng.choice(bounds.block_sizes or (like.block_size or page,))
    unit = max(page, block)
    largest = max(each.memory for each in own)
    memory = bounds.memory or DrawRange(min(HUGE_PAGE, largest), largest)
    group = {"name": f"{like.name}-{chr(ord('a') + index)}", "count": count, "memory": _memory(rng, memory, unit)}
    if page != 4096:
        group["page_size"] = format_size(page)
    if block != page:
        group["block_size"] = format_size(block)
    dirty = rng.choice([bounds.dirty.low, bounds.dirty.high, _within(rng, bounds.dirty)])
    workload = {"dirty": f"{dirty}%", "pattern": rng.choice(bounds.patterns)}
    if like.guest != "process":
        group["guest"] = like.guest
    return group | {"template": like.template, "team": team, "workload": workload}


def _memory(rng: Draw, span: DrawRange, unit: int) -> str:
    """Mostly whole chunks, sometimes a size that leaves an odd last one."""
    step = HUGE_PAGE if rng.random() < 0.7 else unit
    step = step if span.low <= span.high // step * step and step % unit == 0 else unit
    low, high = -(-span.low // step), span.high // step
    return format_size(step * rng.randint(min(low, high), max(high, 1)))


# -- flags


def _flags(swarm: Swarm, rng: Draw) -> Step:
    """About half of the flags that may be set, and nearly always the punch flag, which is rehearsed."""
    chosen = [key for key in swarm.flags.keys if rng.random() < (0.9 if key == PUNCH else 0.5)]
    return {key: _value(rng, key) for key in chosen}


def _value(rng: Draw, key: str) -> Any:
    if rng.random() < 0.3:
        return {"rollout": rng.choice(_PERCENTS), "by": rng.choice(_KINDS_OF_ROLLOUT)}
    on = rng.random() < (0.8 if key == PUNCH else 0.5)
    return on if FLAGS[key].type == "boolean" else as_written({"enabled": on})


def _readers(swarm: Swarm, rng: Draw) -> Step:
    """In about half of the seeds some pauses are read at once."""
    return {"readers": {"immediate": rng.choice(_SHARES)}} if swarm.steps.readers and rng.random() < 0.5 else {}


# -- steps


@dataclass(frozen=True)
class _Program:
    """The steps of one seed: acts and ticks in drawn order, flips between them, a fault before an act that meets it."""

    swarm: Swarm
    streams: Callable[[str], Draw]
    groups: Sequence[str]
    names: Sequence[str]
    flags: Sequence[str]

    def steps(self) -> list[Step]:
        acts = self._acts(self.streams("acts"))
        acts = self._with_flips(acts, self.streams("flips"))
        acts = self._with_flips_in_mid_pause(acts, self.streams("flips in mid-pause"))
        return self._with_faults(acts, self.streams("faults"))

    def _acts(self, rng: Draw) -> list[Step]:
        """Which acts this seed has at all, then the acts."""
        bounds = self.swarm.steps
        on = [each for each in bounds.acts if _ODDS[each] and (each == "pause" or rng.random() < 0.7)]
        weights = [_ODDS[each] for each in on]
        steps = [self._tick(rng)]
        for kind in rng.choices(on, weights, k=_within(rng, bounds.count)) if on else []:
            steps += self._act(rng, kind)
            if kind == "pause" and "resume" in on and rng.random() < 0.6:
                steps += self._act(rng, "resume")
            if rng.random() < 0.5:
                steps.append(self._tick(rng))
        return steps

    def _tick(self, rng: Draw) -> Step:
        return {"tick": max(1, _within(rng, self.swarm.steps.ticks))}

    def _act(self, rng: Draw, kind: str) -> list[Step]:
        if kind == "crash":
            return [{"crash": {}}, {"restart": {}}]
        if kind == "kill":
            return [{"kill": {"sandboxes": rng.choice(self.names), "allow_empty": True}}]
        body: Step = {"allow_empty": True}
        if rng.random() < 0.4:
            body = {"sandboxes": self._some(rng), **body}
        if kind == "pause":
            body |= {"concurrency": rng.randint(2, 4)} if rng.random() < 0.5 else {}
            body |= {"until": "returned"} if self.swarm.steps.returned and rng.random() < 0.15 else {}
        return [{kind: body}]

    def _some(self, rng: Draw) -> str:
        return rng.choice([*(f"{each}-*" for each in self.groups), *self.names])

    def _with_flips(self, steps: list[Step], rng: Draw) -> list[Step]:
        if "flag" not in self.swarm.steps.acts or not self.flags or rng.random() < 0.4:
            return steps
        for _ in range(_within(rng, self.swarm.flags.flips)):
            key = rng.choice(self.flags)
            steps = _inserted(steps, rng.randint(1, len(steps)), {"flag": {key: _value(rng, key)}})
        return steps

    def _with_flips_in_mid_pause(self, steps: Sequence[Step], rng: Draw) -> list[Step]:
        """The punch flag changes while a pause that is not waited for still copies: which decision it acts on shows."""
        bounds, found = self.swarm, list[Step]()
        may_flip = "flag" in bounds.steps.acts and {PUNCH, BACKGROUND} <= set(bounds.flags.keys)
        may_delay = bounds.faults.count.high and "finish" in bounds.faults.points and "delay" in bounds.faults.kinds
        held_up: list[Step] = [{"inject": {"fault": "finish", "delay": "40ms", "count": 1}}] if may_delay else []
        for step in steps:
            if may_flip and step.get("pause", {}).get("until") == "returned":
                found += [{"flag": {BACKGROUND: True}}, *held_up, step]
                found += [{"flag": {PUNCH: on}} for on in rng.sample([True, False], 2)]
            else:
                found.append(step)
        return found

    def _with_faults(self, steps: list[Step], rng: Draw) -> list[Step]:
        """Which points and kinds this seed has at all, then the faults."""
        bounds = self.swarm.faults
        points = [each for each in bounds.points if rng.random() < 0.5]
        kinds = [each for each in bounds.kinds if rng.random() < 0.5]
        pairs = [(point, kind) for point in points for kind in CATALOGUE[point].kinds if kind in kinds]
        for point, kind in rng.choices(pairs, k=_within(rng, bounds.count)) if pairs else []:
            steps = self._with_fault(steps, rng, point, kind)
        return steps

    def _with_fault(self, steps: list[Step], rng: Draw, point: FaultPoint, kind: Kind) -> list[Step]:
        """Before an act that passes the point; if there is none, with an added pause (and resume)."""
        of_resume = CATALOGUE[point].of_resume
        meeting = {"resume"} if of_resume else {"pause", "checkpoint"}
        places = [at for at, step in enumerate(steps) if meeting & step.keys() and _has_effect(steps, at)]
        if not places:
            more = ["pause", "resume"] if of_resume else ["pause"]
            steps = [*steps, *({each: {"allow_empty": True}} for each in more)]
            places = [len(steps) - 1]
        at = rng.choice(places)
        (body,) = steps[at].values()
        sandboxes = body.get("sandboxes", "*") if rng.random() < 0.7 else self._some(rng)
        if kind == "kill-node":
            steps = _inserted(steps, at + 1, {"restart": {}})
            return _inserted(steps, at, {"crash": _crash(rng, point, sandboxes)})
        return _inserted(steps, at, {"inject": _fault(rng, point, kind, sandboxes)})


def _has_effect(steps: Sequence[Step], at: int) -> bool:
    """False for a pause if all is paused already, a resume if nothing is, and if a restart follows already."""
    if at + 1 < len(steps) and "restart" in steps[at + 1]:
        return False
    before: Step = next((each for each in reversed(steps[:at]) if each.keys() & {"pause", "resume"}), {"resume": {}})
    if "resume" in steps[at]:
        return "pause" in before
    return "sandboxes" in before.get("pause", {"sandboxes": "none"})


def _inserted(steps: Sequence[Step], at: int, step: Step) -> list[Step]:
    """Never between a crash and its restart."""
    while 0 < at < len(steps) and ("crash" in steps[at - 1] or "restart" in steps[at]) and "restart" not in step:
        at -= 1
    return [*steps[:at], step, *steps[at:]]


def _crash(rng: Draw, point: FaultPoint, sandboxes: str) -> Step:
    at: Step = {"fault": point}
    if CATALOGUE[point].chunked:
        at["chunk"] = rng.randint(0, 2)
    return {"at": at, "sandboxes": sandboxes}


def _fault(rng: Draw, point: FaultPoint, kind: Kind, sandboxes: str) -> Step:
    body: Step = {"fault": point}
    if kind == "errno":
        body["errno"] = rng.choice(_ERRNOS)
    elif kind in {"delay", "hang"}:
        body[kind] = f"{rng.choice([5, 20, 40])}ms"
    else:
        body["how"] = kind
    if CATALOGUE[point].chunked:
        body["at"] = rng.choice(_PLACES)
    body["sandboxes"] = sandboxes
    if rng.random() < 0.15:
        body["nth"] = rng.randint(1, 2) + CATALOGUE[point].of_resume
    return body | ({"count": 1} if rng.random() < 0.5 else {})


def _liveness(steps: Sequence[Step]) -> list[Step]:
    """Nothing fails any more: every remaining sandbox works again, intact. A corrupt snapshot is never resumed."""
    corrupt = any(each.get("inject", {}).get("how") == "corrupt" for each in steps)
    return [
        {"clear": {}},
        {"resume": {"allow_empty": True}},
        {"tick": 1},
        {"pause": {"allow_empty": True}},
        {"resume": {"allow_empty": True}},
        {"tick": 1},
        {"expect": {"state": [*SETTLED, "paused"] if corrupt else SETTLED}},
    ]


# -- what the scenario says itself


def _own_steps(scenario: Scenario, written: Step, names: Sequence[str]) -> list[Step]:
    """Except those that match no sandbox of this seed, and judgements of states that it need not have."""
    from fnmatch import filter as matching

    found = []
    for step, text in zip(scenario.steps, written["steps"], strict=True):
        if isinstance(step, Expect) or not matching(names, getattr(step, "sandboxes", "*")):
            continue
        ((kind, body),) = text.items()
        found.append({kind: {**body, "allow_empty": True}} if isinstance(step, Selection) else text)
    return found


def _expected(scenario: Scenario, written: Step) -> list[Step]:
    """Bounds on metrics, which apply to the pauses that this seed has; invariants are judged over all seeds."""
    found = []
    for each, text in zip(scenario.expect, written.get("expect", []), strict=True):
        if isinstance(each, MetricExpectation) and each.metric != "pauses":
            found.append({**text, "allow_empty": True})
        elif isinstance(each, StateExpectation) and each.sandboxes == "*" and each.counts is None:
            found.append(text)
    return found


def _within(rng: Draw, span: DrawRange) -> int:
    return rng.randint(span.low, span.high)


def _huge_pages(scenario: Scenario, jobs: int) -> bool:
    """Whether the pool of huge pages has room for `jobs` of the largest fleets that may be drawn."""
    from sim.run.host import host

    if scenario.swarm is None or HUGE_PAGE not in (scenario.swarm.fleet.page_sizes or ()):
        return any(each.page_size == HUGE_PAGE for each in scenario.fleet)
    return bool(int(host()["hugetlb_free"]) >= jobs * largest_fleet(scenario.swarm, scenario.fleet))
