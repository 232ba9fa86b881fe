"""Memory of many nodes at once, exactly in time: pauses take a node's slots in turn, first come first served."""

from __future__ import annotations

import numpy as np

from sim.distributions import Floats, Ints


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

    def pause(self, nodes: Ints, asked: Floats, extra: Floats, freed: Floats, seconds: Floats) -> tuple[Floats, Floats]:
        """One pause on each of these nodes, each named once, no earlier than those before it; gives starts and ends.

        `extra` by arms and nodes, all else by nodes.
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
