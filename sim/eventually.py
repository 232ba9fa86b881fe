"""Expectations that may take a while: the fleet ticks, and each is looked at after every tick until it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sim import events
from sim.checkers import Panel
from sim.judging import (
    HELD,
    INCONCLUSIVE,
    VIOLATED,
    judge_expectations,
    judge_invariants,
    judge_metric,
    judge_state,
    judged,
)
from sim.report.words import plural
from sim.scenario import InvariantExpectation, MetricExpectation, Scenario, StateExpectation
from sim.view import View


@dataclass(frozen=True, slots=True)
class Awaited:
    """Something that must hold once within so many ticks."""

    look: Callable[[], events.Judged]
    within: int


async def await_all(awaited: Mapping[int, Awaited], tick: Callable[[], Awaitable[bool]]) -> dict[int, events.Judged]:
    """How each was judged: as it held first, or as it stood after its last tick. Nothing ticks for what holds at once.

    `tick` lets one tick pass; it gives False where none can, and then all are judged as they stand.
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
    scenario: Scenario, panel: Panel, view: Callable[[], View], *, whole_fleet: bool
) -> dict[int, Awaited]:
    """The expectations of the scenario's list that say `eventually`, by index.

    An invariant is awaited until it was exercised, a canary until it was caught; both are judged at the end all the
    same.
    """
    look = partial(_look, scenario, panel, view, whole_fleet=whole_fleet)
    return {
        index: Awaited(partial(look, index), expected.eventually.within)
        for index, expected in enumerate(scenario.expect)
        if expected.eventually is not None
    }


def _look(
    scenario: Scenario, panel: Panel, view: Callable[[], View], index: int, *, whole_fleet: bool
) -> events.Judged:
    expected, place = scenario.expect[index], scenario.origin(("expect", index))
    if isinstance(expected, StateExpectation):
        return judge_state(expected, view(), place, whole_fleet=whole_fleet)
    if isinstance(expected, MetricExpectation):
        return judge_metric(expected, view(), place, whole_fleet=whole_fleet)
    everything = judge_invariants(scenario, panel, whole_fleet=whole_fleet)
    if isinstance(expected, InvariantExpectation):
        return next(each for each in everything if each.subject == f"invariant:{expected.invariant}")
    everything += judge_expectations(scenario, view(), whole_fleet=whole_fleet)
    caught = any(each.subject == expected.subject and each.verdict == VIOLATED for each in everything)
    reason = {"sandbox": "*", "reason": f"{expected.subject} was not violated yet"}
    return judged(expected.subject, HELD if caught else INCONCLUSIVE, 1, place, [] if caught else [reason])
