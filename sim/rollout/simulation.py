"""Its hours of virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.files.fleet_file import Fleet, Floats, Ints, MassEviction
from sim.rollout.costs import Costs
from sim.rollout.virtual_fleet import VirtualFleet, VirtualGroup, stream

STEP = 60.0
_RUNNING = -1


@dataclass(frozen=True, slots=True)
class PauseLoad:
    """What each sandbox's pause asks of its node's 4 KiB pages: bytes, and seconds; off and on are the flag.

    `guest` is 0 for 2 MiB pages: they are a pool of their own. `freed` is what a node has back while the sandbox is
    paused. `seconds` are of the slower of off and on.
    """

    guest: Floats
    freed: Floats
    extra_off: Floats
    extra_on: Floats
    seconds: Floats


def demand(fleet: VirtualFleet, costs: Costs, cache: str) -> PauseLoad:
    """A copy goes to 4 KiB pages whatever the guest has: punching 2 MiB pages gives back to their own pool only."""
    guest = np.where(fleet.huge, 0.0, fleet.resident)
    return PauseLoad(
        guest=guest,
        freed=guest - fleet.dirty if cache == "tmpfs" else guest,
        extra_off=fleet.dirty,
        extra_on=np.where(fleet.huge, fleet.dirty, costs.over(fleet, cache)),
        seconds=np.maximum(costs.seconds(fleet, cache, punch=False), costs.seconds(fleet, cache, punch=True)),
    )


@dataclass(frozen=True, slots=True)
class Simulated:
    """The outcome. `all_guests` (all at once) and `peak` are bytes of 4 KiB pages by (weights and) nodes.

    `punched` and `punched_bytes` are by steps and weights; `losable` sums, by weights, over the pauses that punched,
    how likely a failure in the copy finds the sandbox condemned; `losable_if_all` does so over all pauses. `queued` is
    seconds that pauses waited for a slot. `most_at_once` pauses and checkpoints were in flight on a node, by nodes.
    """

    step: float
    all_guests: Floats
    peak: Floats
    pauses: Ints
    punched: Ints
    punched_bytes: Floats
    losable: Floats
    losable_if_all: float
    queued: float
    most_at_once: Ints


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
        self._load = Load(fleet, file.mass_eviction, seed, step, burst=file.node.burst is not None)
        self._back = self._already_paused(file.paused_for, seed)
        sandboxes = np.arange(fleet.count)
        self._all_guests = self._by_node(sandboxes, self._demand.guest)
        away = np.flatnonzero(self._back != _RUNNING)
        running = self._all_guests - self._by_node(away, self._demand.freed)
        self._nodes = Nodes(running, len(weights), file.node.at_once)
        self._losable = np.zeros(len(weights))
        self._losable_if_all = 0.0
        self._queued = 0.0

    def run(self, hours: float, progress: Callable[[float], None] = lambda _: None) -> Simulated:
        """Through so much virtual time; `progress` is called with the share that is done."""
        steps = max(1, round(hours * 3600 / self._step))
        pauses = np.zeros(steps, np.int64)
        punched = np.zeros((steps, len(self._weights)), np.int64)
        freed = np.zeros((steps, len(self._weights)))
        for number in range(steps):
            progress(number / steps)
            self._resume(number)
            who, at = self._asked(number)
            on = self._fleet.punches(self._weights, who)
            pauses[number], punched[number] = len(who), on.sum(axis=1)
            freed[number] = on @ self._fleet.resident[who]
            past_the_first = 1.0 - 1.0 / self._fleet.chunks[who]
            self._losable += on @ past_the_first
            self._losable_if_all += float(past_the_first.sum())
            self._take(number, who, at, on)
        made = (pauses, punched, freed, self._losable, self._losable_if_all, self._queued)
        return Simulated(self._step, self._all_guests, self._nodes.peak, *made, self._nodes.most_at_once)

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

    def _take(self, number: int, who: Ints, at: Floats, on: NDArray[np.bool_]) -> None:
        """Pauses, with the checkpoints of the same step: the first of every node, then the second, and on."""
        others, when = self._load.checkpointed(number)
        goes_on = (self._back[others] == _RUNNING) & ~np.isin(others, who)
        others, when = others[goes_on], when[goes_on]
        everyone, times = np.concatenate([who, others]), np.concatenate([at, when])
        is_on = np.concatenate([on, self._fleet.punches(self._weights, others)], axis=1)
        pauses = np.arange(len(everyone)) < len(who)
        order = np.lexsort((times, self._fleet.node[everyone]))
        turn = _turns(self._fleet.node[everyone[order]])
        for each in range(int(turn.max(initial=-1)) + 1):
            now = order[turn == each]
            self._take_one_each(everyone[now], times[now], is_on[:, now], pauses[now])

    def _take_one_each(self, who: Ints, at: Floats, on: NDArray[np.bool_], pauses: NDArray[np.bool_]) -> None:
        """A checkpoint also needs its new guest until the old one is gone, and gives nothing back."""
        asks = self._demand
        extra = np.where(on, asks.extra_on[who], asks.extra_off[who]) + np.where(pauses, 0.0, asks.guest[who])
        freed = np.where(pauses, asks.freed[who], 0.0)
        begun, ended = self._nodes.pause(self._fleet.node[who], at, extra, freed, asks.seconds[who])
        self._queued += float((begun - at)[pauses].sum())
        self._back[who[pauses]] = np.ceil(ended[pauses] / self._step + self._paused_steps)


def _turns(nodes: Ints) -> Ints:
    """For entries sorted by node: how many of the same node are before each."""
    index = np.arange(len(nodes))
    first = np.diff(nodes, prepend=-1) != 0
    turns: Ints = index - np.maximum.accumulate(np.where(first, index, 0))
    return turns


DAY = 86_400.0


def rate(group: VirtualGroup, t: float) -> float:
    """Pauses an hour of each sandbox at `t` seconds: half of the day above the median, at most the peak."""
    wave = math.sin(2 * math.pi * t / DAY)
    return group.median * math.exp(wave * math.log(group.peak / group.median))


class Load:
    """Draws who is asked to pause, and when; it knows nothing of who runs. One step after the other.

    In a `burst` all pauses of a step, except an eviction's, are asked for in the same moment.
    """

    def __init__(
        self, fleet: VirtualFleet, eviction: MassEviction | None, seed: int, step: float, *, burst: bool = False
    ) -> None:
        self._groups: Sequence[VirtualGroup] = fleet.groups
        self._checkpoints = fleet.checkpoints
        self._draw = stream(seed, "arrivals")
        self._draw_checkpoints = stream(seed, "checkpoints")
        self._burst = burst
        self._step = step
        self._latest = np.zeros(fleet.count, np.int64)
        self._evicted, self._evicted_at = _eviction(fleet, eviction, seed)

    def asked(self, number: int) -> tuple[Ints, Floats]:
        """Sandboxes, each once, and the seconds at which they are asked, in step `number` from 0."""
        begin = number * self._step
        parts = [self._of(group, begin) for group in self._groups]
        low, high = np.searchsorted(self._evicted_at, [begin % DAY, begin % DAY + self._step])
        who = np.concatenate([*parts, self._evicted[low:high]])
        at = np.concatenate(
            [begin + self._draw.random(len(part)) * self._step * (not self._burst) for part in parts]
            + [self._evicted_at[low:high] - begin % DAY + begin]
        )
        order = np.arange(len(who))
        self._latest[who] = order  # of two requests for one sandbox the later one in the list stays
        once = self._latest[who] == order
        return who[once], at[once]

    def checkpointed(self, number: int) -> tuple[Ints, Floats]:
        """Sandboxes, each once, and the seconds at which they are asked for a checkpoint in step `number`."""
        if not self._checkpoints.any():
            return np.zeros(0, np.int64), np.zeros(0)
        once = 1 - np.exp(-self._checkpoints * self._step / 3600)
        who = np.flatnonzero(self._draw_checkpoints.random(len(once)) < once)
        return who, (number + self._draw_checkpoints.random(len(who))) * self._step

    def _of(self, group: VirtualGroup, begin: float) -> Ints:
        expected = rate(group, begin) * len(group.members) * self._step / 3600
        return group.members[self._draw.integers(0, len(group.members), self._draw.poisson(expected))]


def _eviction(fleet: VirtualFleet, eviction: MassEviction | None, seed: int) -> tuple[Ints, Floats]:
    """Every sandbox on the evicted nodes and the second of the day at which each is asked, in order."""
    if eviction is None:
        return np.zeros(0, np.int64), np.zeros(0)
    draw = stream(seed, "eviction")
    chosen = draw.permutation(fleet.nodes)[: math.ceil(fleet.nodes * eviction.nodes / 100)]
    evicted = np.zeros(fleet.nodes, np.bool_)
    evicted[chosen] = True
    who = np.flatnonzero(evicted[fleet.node])
    at = eviction.at + draw.random(len(who)) * eviction.within
    order = np.argsort(at, kind="stable")
    return who[order], at[order]


class Nodes:
    """For each arm (a weight of the flag) and each node: bytes of guests now, and the most there ever was in all.

    A pause holds its `extra` from its start to its end, and then gives back `freed`. Its seconds are the same in every
    arm. Peaks are an upper bound: real copies reach their most at different moments.
    """

    def __init__(self, base: Floats, arms: int, slots: int) -> None:
        nodes = len(base)
        self.base: Floats = base.copy()
        self.peak: Floats = np.repeat(base[None], arms, axis=0)
        self._ends: Floats = np.zeros((slots, nodes))
        self._extra: Floats = np.zeros((slots, arms, nodes))
        self._freed: Floats = np.zeros((slots, nodes))
        self.most_at_once: Ints = np.zeros(nodes, np.int64)

    def pause(self, nodes: Ints, asked: Floats, extra: Floats, freed: Floats, seconds: Floats) -> tuple[Floats, Floats]:
        """One pause on each of these nodes, each named once, no earlier than those before it; gives starts and ends.

        `extra` by arms and nodes, everything else by nodes.
        """
        ends = self._ends[:, nodes]
        slot = ends.argmin(axis=0)
        begun: Floats = np.maximum(asked, ends.min(axis=0))
        self._release(nodes, ends, begun)
        self._reach(nodes, ends, begun, extra)
        done: Floats = begun + seconds
        self._ends[slot, nodes] = done
        self._extra[slot, :, nodes] = extra.T
        self._freed[slot, nodes] = freed
        in_flight = (self._ends[:, nodes] > begun).sum(axis=0)
        self.most_at_once[nodes] = np.maximum(self.most_at_once[nodes], in_flight)
        return begun, done

    def resume(self, nodes: Ints, now: float, taken: Floats) -> None:
        """Guests are back on these nodes, each named once, with `taken` bytes."""
        ends, when = self._ends[:, nodes], np.full(len(nodes), now)
        self._release(nodes, ends, when)
        self.base[nodes] += taken
        self._reach(nodes, ends, when, np.zeros((len(self.peak), len(nodes))))

    def _release(self, nodes: Ints, ends: Floats, now: Floats) -> None:
        """What has ended by then gives back what it had, once."""
        freed = self._freed[:, nodes]
        over = freed * (ends <= now)
        self.base[nodes] -= over.sum(axis=0)
        self._freed[:, nodes] = freed - over

    def _reach(self, nodes: Ints, ends: Floats, now: Floats, extra: Floats) -> None:
        """What a node holds now is a new peak, or is not; few have pauses in flight."""
        total = self.base[nodes] + extra
        busy = np.flatnonzero(ends.max(axis=0) > now)
        if len(busy):
            in_flight = ends[:, busy] > now[busy]
            total[:, busy] += (self._extra[:, :, nodes[busy]] * in_flight[:, None]).sum(axis=0)
        self.peak[:, nodes] = np.maximum(self.peak[:, nodes], total)
