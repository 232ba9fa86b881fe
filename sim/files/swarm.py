"""What `swarm:` of a scenario allows a seed to draw: bounds of the fleet, flags, steps and faults."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from flags.catalog import FLAGS
from sim.files.faults import FaultPoint, Kind
from sim.files.flag_values import FlagKey
from sim.files.fleet import Group, NodeSpec, PageSize, Pattern
from sim.files.strict import Strict
from sim.files.units import format_size, parse_percent, parse_size, show


@dataclass(frozen=True, slots=True)
class DrawRange:
    """From `low` to `high`, both included."""

    low: int
    high: int


def _span(one: Callable[[str], int], example: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, DrawRange):
            return value
        parts = str(value).split("-") if isinstance(value, int | str) and not isinstance(value, bool) else []
        if len(parts) not in {1, 2}:
            raise ValueError(f"expected a range such as {example}, got {show(value)}")
        low, high = one(parts[0].strip()), one(parts[-1].strip())
        if low > high:
            raise ValueError(f"the range {show(value)} is empty; write the smaller end first")
        return DrawRange(low, high)

    return read


def _whole(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", text) is None:
        raise ValueError(f"expected a range such as 1-6, got {show(text)}")
    return int(text)


def _share(text: str) -> int:
    percent = parse_percent(text)
    if percent < 1 or percent != int(percent):
        raise ValueError(f"expected whole percents from 1%, got {show(text)}")
    return int(percent)


def _positive(span: DrawRange) -> DrawRange:
    if span.low < 1:
        raise ValueError(f"expected at least 1, got {span.low}")
    return span


Whole = Annotated[DrawRange, BeforeValidator(_span(_whole, "1-6"), json_schema_input_type=str | int)]
Positive = Annotated[Whole, AfterValidator(_positive)]
Size = Annotated[
    DrawRange, BeforeValidator(_span(parse_size, "2MiB-8MiB"), json_schema_input_type=str), AfterValidator(_positive)
]
Share = Annotated[DrawRange, BeforeValidator(_span(_share, "10%-100%"), json_schema_input_type=str)]
Listed = Field(strict=False, min_length=1)

ACTS = Literal["pause", "checkpoint", "resume", "kill", "flag", "crash"]
"""The acts that a seed may draw besides `tick`."""

EFFECTIVE = tuple(key for key, each in FLAGS.items() if each.effect)


class SwarmFleet(Strict):
    """`count` sandboxes in all, in up to `groups` groups like those of the scenario's own fleet.

    Unless given, `count` and `memory` go up to that fleet's; page and block sizes are its own. A page size that the
    host has no pool for becomes 4 KiB.
    """

    count: Positive | None = None
    groups: Positive = DrawRange(1, 3)
    memory: Size | None = None
    page_sizes: Annotated[tuple[PageSize, ...], Listed] | None = None
    block_sizes: Annotated[tuple[PageSize, ...], Listed] | None = None
    dirty: Share = DrawRange(1, 100)
    patterns: Annotated[tuple[Pattern, ...], Listed] = get_args(Pattern)
    teams: Positive = DrawRange(1, 2)


class SwarmSteps(Strict):
    """`count` acts out of `acts`, with `ticks` ticks between them; `returned` allows pauses that no step waits for,
    `readers` pauses that are read at once."""

    count: Whole = DrawRange(3, 10)
    acts: Annotated[tuple[ACTS, ...], Listed] = get_args(ACTS)
    ticks: Positive = DrawRange(1, 2)
    returned: bool = True
    readers: bool = True


class SwarmFlags(Strict):
    """Which flags a seed may set (those that have an effect, unless given), and how often a `flag` step changes one."""

    keys: Annotated[tuple[FlagKey, ...], Listed] = EFFECTIVE
    flips: Whole = DrawRange(0, 3)


class SwarmFaults(Strict):
    """How many faults, at which points and of which kinds; only pairs that the catalogue has are drawn."""

    count: Whole = DrawRange(0, 4)
    points: Annotated[tuple[FaultPoint, ...], Listed] = get_args(FaultPoint)
    kinds: Annotated[tuple[Kind, ...], Listed] = get_args(Kind)


class Swarm(Strict):
    """Bounds of what a seed draws; `swarm: {}` is all of it. The scenario's own steps come first in every seed."""

    fleet: SwarmFleet = SwarmFleet()
    flags: SwarmFlags = SwarmFlags()
    steps: SwarmSteps = SwarmSteps()
    faults: SwarmFaults = SwarmFaults()


def largest_fleet(swarm: Swarm, fleet: Sequence[Group]) -> int:
    """Bytes of guest memory that a seed may draw at most."""
    count = swarm.fleet.count.high if swarm.fleet.count else sum(each.count for each in fleet)
    memory = swarm.fleet.memory.high if swarm.fleet.memory else max(each.memory for each in fleet)
    return count * memory


def check_memory(swarm: Swarm, fleet: Sequence[Group], node: NodeSpec) -> None:
    """Raise ValueError where the node has no memory for the largest fleet."""
    need = largest_fleet(swarm, fleet)
    if need > node.memory:
        what = f"the largest fleet would need {format_size(need)}, the node has {format_size(node.memory)}"
        raise ValueError(f"{what}; lower fleet.count or fleet.memory, or raise node.memory")
