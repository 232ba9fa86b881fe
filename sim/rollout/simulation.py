"""A virtual fleet through its hours: when which sandbox is asked to pause, and the outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.files.fleet_file import Fleet, Floats, Ints, MassEviction
from sim.rollout.costs import Costs
from sim.rollout.node_events import Begun, Mask, NodeEvents, PauseLoad, Requests
from sim.rollout.virtual_fleet import VirtualFleet, VirtualGroup, stream

_MINUTE = 60.0
_MANY = 1_000_000
"""Requests of a stretch of time that is drawn at once."""


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
class Worst:
    """The worst stretch of so many seconds, by arms: pauses and checkpoints that punch in it, and their guests'
    bytes."""

    sandboxes: Floats
    size: Floats


@dataclass(frozen=True, slots=True)
class Simulated:
    """The outcome. `all_guests` (all at once) and `peak` are bytes of 4 KiB pages by (arms and) nodes.

    `pauses` and `checkpoints` began; `punched` pauses and their `punched_bytes` are by arms; `losable` sums, by arms,
    over the pauses that punched, how likely a failure in the copy finds the sandbox condemned; `losable_if_all` does so
    over all pauses. `queued` is seconds that pauses waited for a slot. `most_at_once` pauses and checkpoints were in
    flight on a node, by nodes, and `fleet_at_once` on all nodes together, at `busiest` (seconds). `worst` is by the
    seconds that were asked for.
    """

    all_guests: Floats
    peak: Floats
    pauses: int
    checkpoints: int
    punched: Ints
    punched_bytes: Floats
    losable: Floats
    losable_if_all: float
    queued: float
    most_at_once: Ints
    fleet_at_once: int
    busiest: float
    worst: dict[float, Worst]


class Simulation:
    """One fleet on its way through time, whose sandboxes punch by `on`: arms by sandboxes, where they have a memfd."""

    def __init__(
        self, fleet: VirtualFleet, file: Fleet, costs: Costs, *, on: Mask, seed: int, stretches: Sequence[float] = ()
    ) -> None:
        """`stretches` are seconds of which the worst is looked for."""
        self._fleet = fleet
        self._punches: Mask = on & fleet.memfd
        self._load = Load(fleet, file.mass_eviction, seed, burst=file.node.burst is not None)
        self._events = NodeEvents(
            fleet.node,
            demand(fleet, costs, file.node.cache),
            self._punches,
            slots=file.node.at_once,
            paused_for=file.paused_for,
            back=_already_paused(fleet, file.paused_for, seed),
        )
        self._moments = _Moments(len(on), stretches)

    def run(self, hours: float, progress: Callable[[float], None] = lambda _: None) -> Simulated:
        """Through so much virtual time; `progress` is called with the share that is done."""
        arms = len(self._punches)
        pauses = checkpoints = 0
        punched, losable = np.zeros(arms, np.int64), np.zeros(arms)
        freed, losable_if_all, queued = np.zeros(arms), 0.0, 0.0
        past_the_first = 1.0 - 1.0 / self._fleet.chunks
        for begin, end in self._stretches(hours * 3600):
            progress(begin / (hours * 3600))
            begun = self._events.advance(self._load.asked(begin, end), end)
            who = begun.who[begun.pause]
            on = self._punches[:, who]
            pauses, checkpoints = pauses + len(who), checkpoints + len(begun.who) - len(who)
            punched += on.sum(axis=1)
            freed += on @ self._fleet.resident[who]
            losable += on @ past_the_first[who]
            losable_if_all += float(past_the_first[who].sum())
            queued += float((begun.begun - begun.asked)[begun.pause].sum())
            self._moments.take(begun, self._punches, self._fleet.resident, end)
        made = (pauses, checkpoints, punched, freed, losable, losable_if_all, queued)
        events, moments = self._events, self._moments
        at_once = (events.most_at_once, moments.at_once, moments.busiest, moments.worst)
        return Simulated(events.all_guests, events.peak, *made, *at_once)

    def _stretches(self, seconds: float) -> Iterator[tuple[float, float]]:
        """Whole minutes each, with not too many requests."""
        minutes = max(1, int(_MANY / max(1e-9, self._load.per_second * _MINUTE)))
        step, begin = minutes * _MINUTE, 0.0
        while begin < seconds:
            yield begin, min(begin + step, seconds)
            begin += step


def _already_paused(fleet: VirtualFleet, paused_for: float, seed: int) -> Floats:
    """When each is back, infinite for a running one: a fleet that has run for long has its share of paused ones."""
    draw = stream(seed, "already paused")
    rates = fleet.rates.copy()
    for group in fleet.groups:
        rates[group.members] = group.median
    away = rates * paused_for / 3600
    paused = draw.random(fleet.count) < away / (1 + away)
    back: Floats = np.where(paused, draw.random(fleet.count) * paused_for, np.inf)
    return back


class _Moments:
    """The worst stretches, and the most in flight on all nodes together, as time goes on."""

    def __init__(self, arms: int, stretches: Sequence[float]) -> None:
        self.worst = {each: Worst(np.zeros(arms), np.zeros(arms)) for each in stretches}
        self.at_once, self.busiest = 0, 0.0
        self._longest = max(stretches, default=0.0)
        self._who, self._at = np.zeros(0, np.int64), np.zeros(0)
        self._ends = np.zeros(0)

    def take(self, begun: Begun, punches: Mask, size: Floats, until: float) -> None:
        """What began before `until`, and after what was taken before."""
        order = np.argsort(begun.begun, kind="stable")
        self._in_flight(begun.begun[order], begun.ended, until)
        who, at = np.append(self._who, begun.who[order]), np.append(self._at, begun.begun[order])
        for arm, on in enumerate(punches):
            mine = on[who]
            times, upto = at[mine], np.append(0.0, np.cumsum(size[who[mine]]))
            for seconds, worst in self.worst.items():
                first, last = np.arange(len(times)), np.searchsorted(times, times + seconds)
                worst.sandboxes[arm] = max(worst.sandboxes[arm], (last - first).max(initial=0))
                worst.size[arm] = max(worst.size[arm], (upto[last] - upto[first]).max(initial=0.0))
        kept = at >= until - self._longest
        self._who, self._at = who[kept], at[kept]

    def _in_flight(self, begun: Floats, ended: Floats, until: float) -> None:
        ends = np.sort(np.append(self._ends, ended))
        count = len(self._ends) + np.arange(1, len(begun) + 1) - np.searchsorted(ends, begun, "right")
        if len(count) and (most := int(count.max())) > self.at_once:
            self.at_once, self.busiest = most, float(begun[count.argmax()])
        self._ends = ends[ends > until]


DAY = 86_400.0


def rate(group: VirtualGroup, t: NDArray[np.float64] | float) -> Floats:
    """Pauses an hour of each sandbox at `t` seconds: half of the day above the median, at most the peak."""
    wave: Floats = group.median * np.exp(
        np.sin(2 * math.pi / DAY * np.asarray(t)) * math.log(group.peak / group.median)
    )
    return wave


class Load:
    """Draws who is asked to pause, and when; it knows nothing of who runs. One stretch of time after the other.

    In a `burst` all pauses of a minute, except an eviction's, are asked for in the same moment.
    """

    def __init__(self, fleet: VirtualFleet, eviction: MassEviction | None, seed: int, *, burst: bool = False) -> None:
        self._fleet = fleet
        self._draw = stream(seed, "arrivals")
        self._draw_checkpoints = stream(seed, "checkpoints")
        self._burst = burst
        self._evicted, self._evicted_at = _eviction(fleet, eviction, seed)
        waves = sum(group.peak * len(group.members) for group in fleet.groups)
        self.per_second = (waves + float((fleet.rates + fleet.checkpoints).sum())) / 3600

    def asked(self, begin: float, end: float) -> Requests:
        """From `begin` on, before `end`: seconds."""
        parts = [self._of(group, begin, end) for group in self._fleet.groups]
        parts.append(_even(self._draw, self._fleet.rates, begin, end))
        if self._burst:
            parts = [(who, np.maximum(begin, np.floor(at / _MINUTE) * _MINUTE)) for who, at in parts]
        parts += self._of_eviction(begin, end)
        pauses = sum(len(who) for who, _ in parts)
        parts.append(_even(self._draw_checkpoints, self._fleet.checkpoints, begin, end))
        who, at = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.lexsort((at, self._fleet.node[who]))
        return Requests(who[order], at[order], order < pauses)

    def _of(self, group: VirtualGroup, begin: float, end: float) -> tuple[Ints, Floats]:
        """As many as at the peak, of which those of the hour's rate stay."""
        count = self._draw.poisson(group.peak * len(group.members) * (end - begin) / 3600)
        at = begin + self._draw.random(count) * (end - begin)
        who = group.members[self._draw.integers(0, len(group.members), count)]
        kept = self._draw.random(count) * group.peak < rate(group, at)
        return who[kept], at[kept]

    def _of_eviction(self, begin: float, end: float) -> Iterator[tuple[Ints, Floats]]:
        for day in range(int(begin // DAY), int(end // DAY) + 1) if len(self._evicted) else ():
            at = self._evicted_at + day * DAY
            now = (begin <= at) & (at < end)
            yield self._evicted[now], at[now]


def _even(draw: np.random.Generator, rates: Floats, begin: float, end: float) -> tuple[Ints, Floats]:
    """Of each sandbox's own rate an hour, the same all day."""
    if not rates.any():
        return np.zeros(0, np.int64), np.zeros(0)
    who = np.repeat(np.arange(len(rates)), draw.poisson(rates * (end - begin) / 3600))
    return who, begin + draw.random(len(who)) * (end - begin)


def _eviction(fleet: VirtualFleet, eviction: MassEviction | None, seed: int) -> tuple[Ints, Floats]:
    """Every sandbox on the evicted nodes and the second of the day at which each is asked."""
    if eviction is None:
        return np.zeros(0, np.int64), np.zeros(0)
    draw = stream(seed, "eviction")
    chosen = draw.permutation(fleet.nodes)[: math.ceil(fleet.nodes * eviction.nodes / 100)]
    evicted = np.zeros(fleet.nodes, np.bool_)
    evicted[chosen] = True
    who = np.flatnonzero(evicted[fleet.node])
    return who, eviction.at + draw.random(len(who)) * eviction.within
