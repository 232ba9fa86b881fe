"""Nodes through time, event by event: pauses asked for, begun and ended, guests that come back.

All nodes take their next event together, each its own: what would be a loop over events is one over the events of the
busiest node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.files.fleet_file import Floats, Ints

Mask = NDArray[np.bool_]


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


@dataclass(frozen=True, slots=True)
class Requests:
    """Who is asked, when (seconds), and whether for a pause or a checkpoint; by node, then in order of time."""

    who: Ints
    at: Floats
    pause: Mask


@dataclass(frozen=True, slots=True)
class Begun:
    """The pauses and checkpoints that began: seconds."""

    who: Ints
    asked: Floats
    begun: Floats
    ended: Floats
    pause: Mask


class _Queue:
    """A queue a node, of sandboxes with a time and a mark; none is in it twice, so `room` is a node's sandboxes."""

    def __init__(self, nodes: int, room: int) -> None:
        self._room = max(1, room)
        self._who: Ints = np.zeros((nodes, self._room), np.int64)
        self._at: Floats = np.full((nodes, self._room), np.inf)
        self._mark: Mask = np.zeros((nodes, self._room), np.bool_)
        self._head: Ints = np.zeros(nodes, np.int64)
        self.length: Ints = np.zeros(nodes, np.int64)

    def push(self, nodes: Ints, who: Ints, at: Floats, mark: Mask) -> None:
        """One for each of these nodes, each named once."""
        place = (self._head[nodes] + self.length[nodes]) % self._room
        self._who[nodes, place], self._at[nodes, place], self._mark[nodes, place] = who, at, mark
        self.length[nodes] += 1

    def pop(self, nodes: Ints) -> tuple[Ints, Floats, Mask]:
        """The first of each."""
        place = self._head[nodes]
        self._head[nodes] = (place + 1) % self._room
        self.length[nodes] -= 1
        return self._who[nodes, place], self._at[nodes, place], self._mark[nodes, place]

    def first(self, nodes: Ints) -> Floats:
        """The time of the first of each; infinite for an empty one."""
        times: Floats = np.where(self.length[nodes] > 0, self._at[nodes, self._head[nodes]], np.inf)
        return times


class NodeEvents:
    """For each arm (a stage of the flag) and each node: bytes of guests now, and the most there ever was in all.

    A pause holds its `extra` from its beginning to its end, then gives back `freed` until its guest comes back,
    `paused_for` seconds later. A checkpoint holds its new guest too, and gives nothing back. Who is paused, in flight
    or waiting for one of the `slots` is not asked again. Seconds are the same in every arm. Peaks are an upper bound:
    real copies reach their most at different moments.
    """

    def __init__(
        self, node: Ints, load: PauseLoad, punches: Mask, *, slots: int, paused_for: float, back: Floats | None = None
    ) -> None:
        """`node` of each sandbox; `punches` by arms and sandboxes; `back`: when a paused one comes back, else inf."""
        nodes = int(node.max(initial=-1)) + 1
        room = int(np.bincount(node, minlength=1).max())
        self._node, self._load, self._punches, self._paused_for = node, load, punches, paused_for
        self._slots = min(slots, room)
        self._end: Floats = np.full((self._slots, nodes), np.inf)
        self._in: Ints = np.zeros((self._slots, nodes), np.int64)
        self._is_pause: Mask = np.zeros((self._slots, nodes), np.bool_)
        self._in_flight: Ints = np.zeros(nodes, np.int64)
        self._busy: Mask = np.zeros(len(node), np.bool_)
        self._waiting, self._paused = _Queue(nodes, room), _Queue(nodes, room)
        self._next_end, self._next_back = np.full(nodes, np.inf), np.full(nodes, np.inf)
        self.base: Floats = np.bincount(node, load.guest, nodes).astype(np.float64)
        self.all_guests: Floats = self.base.copy()
        self._held: Floats = np.zeros((len(punches), nodes))
        self._begun: list[tuple[Ints, Floats, Floats, Floats, Mask]] = []
        if back is not None:
            self._put_away(back)
        self.peak: Floats = np.repeat(self.base[None], len(punches), axis=0)
        self.most_at_once: Ints = np.zeros(nodes, np.int64)

    def _put_away(self, back: Floats) -> None:
        away = np.flatnonzero(np.isfinite(back))
        away = away[np.lexsort((back[away], self._node[away]))]
        self._busy[away] = True
        np.subtract.at(self.base, self._node[away], self._load.freed[away])
        turn = _turns(self._node[away])
        for each in range(int(turn.max(initial=-1)) + 1):
            who = away[turn == each]
            self._paused.push(self._node[who], who, back[who], np.ones(len(who), np.bool_))
        everywhere = np.arange(len(self._next_back))
        self._next_back = self._paused.first(everywhere)

    def advance(self, requests: Requests, until: float) -> Begun:
        """Take every event before `until`, with these requests, which are all from here to there."""
        nodes = np.arange(len(self._next_end))
        by_node = self._node[requests.who]
        place, last = np.searchsorted(by_node, nodes), np.searchsorted(by_node, nodes, "right")
        times = np.append(requests.at, np.inf)
        asked = np.where(place < last, times[np.minimum(place, len(times) - 1)], np.inf)
        live = nodes
        while len(live):
            now = np.minimum(np.minimum(self._next_end[live], self._next_back[live]), asked[live])
            live, now = live[now < until], now[now < until]
            ends = self._next_end[live] <= now
            backs = ~ends & (self._next_back[live] <= now)
            asks = ~ends & ~backs
            self._take_ends(live[ends], now[ends])
            self._take_backs(live[backs])
            mine = live[asks]
            if len(mine):
                at = place[mine]
                self._take_requests(mine, requests.who[at], requests.at[at], requests.pause[at])
                place[mine] += 1
                asked[mine] = np.where(place[mine] < last[mine], times[place[mine]], np.inf)
        made, self._begun = self._begun, []
        if not made:
            none = np.zeros(0)
            return Begun(none.astype(np.int64), none, none, none, none.astype(np.bool_))
        who, when, begun, ended, pause = (np.concatenate(each) for each in zip(*made, strict=True))
        return Begun(who, when, begun, ended, pause)

    def _extra(self, who: Ints, pause: Mask) -> Floats:
        """By arms and sandboxes."""
        load = self._load
        own = np.where(self._punches[:, who], load.extra_on[who], load.extra_off[who])
        extra: Floats = own + np.where(pause, 0.0, load.guest[who])
        return extra

    def _take_ends(self, nodes: Ints, now: Floats) -> None:
        if not len(nodes):
            return
        slot = self._end[:, nodes].argmin(axis=0)
        who, pause = self._in[slot, nodes], self._is_pause[slot, nodes]
        self._held[:, nodes] -= self._extra(who, pause)
        self._end[slot, nodes] = np.inf
        self._in_flight[nodes] -= 1
        self._busy[who[~pause]] = False
        paused, gone = nodes[pause], who[pause]
        self.base[paused] -= self._load.freed[gone]
        self._paused.push(paused, gone, now[pause] + self._paused_for, pause[pause])
        self._next_back[paused] = self._paused.first(paused)
        self._next_end[nodes] = self._end[:, nodes].min(axis=0)
        next_one = self._waiting.length[nodes] > 0
        if next_one.any():
            mine = nodes[next_one]
            self._begin(mine, *self._waiting.pop(mine), now[next_one])

    def _take_backs(self, nodes: Ints) -> None:
        if not len(nodes):
            return
        who, _, _ = self._paused.pop(nodes)
        self._next_back[nodes] = self._paused.first(nodes)
        self._busy[who] = False
        self.base[nodes] += self._load.freed[who]
        self._reach(nodes)

    def _take_requests(self, nodes: Ints, who: Ints, at: Floats, pause: Mask) -> None:
        runs = ~self._busy[who]
        nodes, who, at, pause = nodes[runs], who[runs], at[runs], pause[runs]
        self._busy[who] = True
        free = self._in_flight[nodes] < self._slots
        self._begin(nodes[free], who[free], at[free], pause[free], at[free])
        self._waiting.push(nodes[~free], who[~free], at[~free], pause[~free])

    def _begin(self, nodes: Ints, who: Ints, asked: Floats, pause: Mask, now: Floats) -> None:
        if not len(nodes):
            return
        slot = self._end[:, nodes].argmax(axis=0)  # a free one ends never
        ended = now + self._load.seconds[who]
        self._end[slot, nodes], self._in[slot, nodes], self._is_pause[slot, nodes] = ended, who, pause
        self._in_flight[nodes] += 1
        self._held[:, nodes] += self._extra(who, pause)
        self._next_end[nodes] = np.minimum(self._next_end[nodes], ended)
        self.most_at_once[nodes] = np.maximum(self.most_at_once[nodes], self._in_flight[nodes])
        self._reach(nodes)
        self._begun.append((who, asked, now, ended, pause))

    def _reach(self, nodes: Ints) -> None:
        self.peak[:, nodes] = np.maximum(self.peak[:, nodes], self.base[nodes] + self._held[:, nodes])


def _turns(nodes: Ints) -> Ints:
    """For entries sorted by node: how many of the same node are before each."""
    index = np.arange(len(nodes))
    first = np.diff(nodes, prepend=-1) != 0
    turns: Ints = index - np.maximum.accumulate(np.where(first, index, 0))
    return turns
