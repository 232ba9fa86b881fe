"""A whole fleet through hours of virtual time, step by step, with the flag at several weights side by side.

All weights see the same pauses: what differs between them is the flag's doing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats, Ints
from sim.fleet_file import Fleet
from sim.forecast.costs import Costs
from sim.forecast.load import Load
from sim.forecast.node_model import Nodes
from sim.forecast.streams import stream
from sim.forecast.virtual_fleet import VirtualFleet

STEP = 60.0
_RUNNING = -1


@dataclass(frozen=True, slots=True)
class Demand:
    """What each sandbox's pause asks of its node's 4 KiB pages: bytes, and seconds; off and on are the flag.

    `guest` is 0 for 2 MiB pages: they are a pool of their own. `freed` is what a node has back while the sandbox is
    paused. `seconds` are of the slower of off and on.
    """

    guest: Floats
    freed: Floats
    extra_off: Floats
    extra_on: Floats
    seconds: Floats


def demand(fleet: VirtualFleet, costs: Costs, cache: str) -> Demand:
    """A copy goes to 4 KiB pages whatever the guest has: punching 2 MiB pages gives back to their own pool only."""
    guest = np.where(fleet.huge, 0.0, fleet.resident)
    return Demand(
        guest=guest,
        freed=guest - fleet.dirty if cache == "tmpfs" else guest,
        extra_off=fleet.dirty,
        extra_on=np.where(fleet.huge, fleet.dirty, costs.over(fleet, cache)),
        seconds=np.maximum(costs.seconds(fleet, cache, punch=False), costs.seconds(fleet, cache, punch=True)),
    )


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it. `everybody` (all guests at once) and `peak` are bytes of 4 KiB pages by (weights and) nodes.

    `punched` and `punched_bytes` are by steps and weights; `losable` sums, by weights, over the pauses that punched,
    how likely a failure in the copy finds the sandbox condemned; `losable_if_all` does so over all pauses. `queued` is
    seconds that pauses waited for a slot.
    """

    step: float
    everybody: Floats
    peak: Floats
    pauses: Ints
    punched: Ints
    punched_bytes: Floats
    losable: Floats
    losable_if_all: float
    queued: float


class Simulation:
    """One fleet on its way through time; `step` in seconds."""

    def __init__(
        self,
        fleet: VirtualFleet,
        file: Fleet,
        costs: Costs,
        *,
        weights: tuple[float, ...],
        seed: int,
        step: float = STEP,
    ) -> None:
        self._fleet = fleet
        self._step = step
        self._paused_steps = file.paused_for / step
        self._demand = demand(fleet, costs, file.node.cache)
        self._weights = weights
        self._load = Load(fleet, file.mass_eviction, seed, step)
        self._back = self._already_paused(file.paused_for, seed)
        everybody = np.arange(fleet.count)
        self._everybody = self._by_node(everybody, self._demand.guest)
        away = np.flatnonzero(self._back != _RUNNING)
        running = self._everybody - self._by_node(away, self._demand.freed)
        self._nodes = Nodes(running, len(weights), file.node.concurrency)
        self._losable = np.zeros(len(weights))
        self._losable_if_all = 0.0
        self._queued = 0.0

    def run(self, hours: float, tell: Callable[[float], None] = lambda _: None) -> Simulated:
        """Through so much virtual time; `tell` is given the share that is done."""
        steps = max(1, round(hours * 3600 / self._step))
        pauses = np.zeros(steps, np.int64)
        punched = np.zeros((steps, len(self._weights)), np.int64)
        freed = np.zeros((steps, len(self._weights)))
        for number in range(steps):
            tell(number / steps)
            self._resume(number)
            who, at = self._asked(number)
            on = self._fleet.is_on(self._weights, who)
            pauses[number], punched[number] = len(who), on.sum(axis=1)
            freed[number] = on @ self._fleet.resident[who]
            past_the_first = 1.0 - 1.0 / self._fleet.chunks[who]
            self._losable += on @ past_the_first
            self._losable_if_all += float(past_the_first.sum())
            self._pause(who, at, on)
        made = (pauses, punched, freed, self._losable, self._losable_if_all, self._queued)
        return Simulated(self._step, self._everybody, self._nodes.peak, *made)

    def _already_paused(self, paused_for: float, seed: int) -> NDArray[np.int32]:
        """The step in which each is back: a fleet that has run for long has its share of paused sandboxes."""
        draw = stream(seed, "already paused")
        rates = np.zeros(self._fleet.count)
        for group in self._fleet.groups:
            rates[group.members] = group.median
        away = rates * paused_for / 3600
        paused = draw.random(self._fleet.count) < away / (1 + away)
        left = np.ceil(draw.random(self._fleet.count) * self._paused_steps)
        return np.where(paused, left, _RUNNING).astype(np.int32)

    def _by_node(self, who: Ints, amounts: Floats) -> Floats:
        """Sums by nodes."""
        sums: Floats = np.bincount(self._fleet.node[who], amounts[who], self._fleet.nodes).astype(np.float64)
        return sums

    def _resume(self, number: int) -> None:
        """Guests are back at the beginning of the step in which their time is over."""
        who = np.flatnonzero(self._back == number)
        if not len(who):
            return
        self._back[who] = _RUNNING
        taken = self._by_node(who, self._demand.freed)
        nodes = np.flatnonzero(np.bincount(self._fleet.node[who], minlength=self._fleet.nodes))
        self._nodes.resume(nodes, number * self._step, taken[nodes])

    def _asked(self, number: int) -> tuple[Ints, Floats]:
        """Those that run, by node and then in order of time."""
        who, at = self._load.asked(number)
        runs = self._back[who] == _RUNNING
        who, at = who[runs], at[runs]
        within = (at - number * self._step) / self._step
        order = np.argsort(self._fleet.node[who] + within, kind="stable")
        return who[order], at[order]

    def _pause(self, who: Ints, at: Floats, on: NDArray[np.bool_]) -> None:
        """The first pause of every node, then the second, and on."""
        turn = _turns(self._fleet.node[who])
        for number in range(int(turn.max(initial=-1)) + 1):
            now = np.flatnonzero(turn == number)
            self._pause_one_each(who[now], at[now], on[:, now])

    def _pause_one_each(self, who: Ints, at: Floats, on: NDArray[np.bool_]) -> None:
        asks = self._demand
        extra = np.where(on, asks.extra_on[who], asks.extra_off[who])
        begun, ended = self._nodes.pause(self._fleet.node[who], at, extra, asks.freed[who], asks.seconds[who])
        self._queued += float((begun - at).sum())
        self._back[who] = np.ceil(ended / self._step + self._paused_steps)


def _turns(nodes: Ints) -> Ints:
    """For entries sorted by node: how many of the same node are before each."""
    index = np.arange(len(nodes))
    first = np.diff(nodes, prepend=-1) != 0
    turns: Ints = index - np.maximum.accumulate(np.where(first, index, 0))
    return turns
