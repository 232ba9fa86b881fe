"""What the first screen of a rehearsal's page draws, stage by stage: exposure, loss bound and memory. Pure values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sim.files import figures
from sim.files.figures import percent
from sim.rollout.decision_page import stage_bound
from sim.rollout.results import Rehearsal
from sim.rollout.stretch import Pools

Arm = Literal["on", "off"]


@dataclass(frozen=True, slots=True)
class Bar:
    """`length` from 0 to 1 of the panel's width; None where the value is unknown. `text` says the value."""

    length: float | None
    text: str
    arm: Arm = "on"


@dataclass(frozen=True, slots=True)
class StageBars:
    """The bars of one stage, under each other."""

    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture, a row a stage; `mark` (0 to 1) is a line that the bars are to stay below, `marked` what it is."""

    title: str
    rows: tuple[StageBars, ...]
    mark: float | None = None
    marked: str = ""


def stage_panels(found: Rehearsal) -> tuple[Panel, ...]:
    """None where no stage was reached."""
    return (_exposure(found), _bounds(found), _memory(found)) if found.stages else ()


def _exposure(found: Rehearsal) -> Panel:
    """Of the user's whole fleet where the plan names a table of it."""
    if found.fleet is not None:
        counts = [found.fleet.exposures[each.stage.number - 1].count for each in found.stages]
        return _shares("Exposed, of your whole fleet", found, counts, found.fleet.rows.count)
    counts = [len(each.exposure.sandboxes) for each in found.stages]
    return _shares("Exposed, of the rehearsed fleet", found, counts, len(found.plan.sandboxes()))


def _shares(title: str, found: Rehearsal, counts: Sequence[int], whole: int) -> Panel:
    rows = [
        StageBars(_label(stage.stage.weight), (Bar(count / whole, f"{count:,} of {whole:,}"),))
        for stage, count in zip(found.stages, counts, strict=True)
    ]
    return Panel(title, tuple(rows))


def _bounds(found: Rehearsal) -> Panel:
    bounds = [stage_bound(each) for each in found.stages]
    demanded = None if found.plan.demand is None else found.plan.demand.lost_because_of_the_flag
    top = max([each for each in bounds if each is not None] + ([demanded.share] if demanded else []), default=1.0)
    rows = [
        StageBars(
            _label(each.stage.weight),
            (Bar(None, "none punched") if bound is None else Bar(bound / top, _lost(len(each.lost_by_flag), bound)),),
        )
        for each, bound in zip(found.stages, bounds, strict=True)
    ]
    marked = "" if demanded is None else f"demanded {demanded}"
    return Panel(
        "Loss rate not ruled out, at 95 %", tuple(rows), None if demanded is None else demanded.share / top, marked
    )


def _lost(lost: int, bound: float) -> str:
    return f"< {percent(bound)}, {lost} lost"


def _memory(found: Rehearsal) -> Panel:
    top = max(max(each.off.pools.both, each.on.pools.both) for each in found.stages) or 1
    rows = []
    for each in found.stages:
        bars = (_peak("off", each.off.pools, top), _peak("on", each.on.pools, top))
        rows.append(StageBars(_label(each.stage.weight), bars))
    return Panel("Peak memory of the node, flag off and on", tuple(rows))


def _peak(arm: Arm, pools: Pools, top: int) -> Bar:
    if not pools.samples:
        return Bar(None, f"{arm}: not sampled", arm)
    return Bar(pools.both / top, f"{arm}: {figures.in_gib(pools.both)}", arm)


def _label(weight: float) -> str:
    return f"{weight:g} %"
