"""Which sandboxes of a fleet are rehearsed for real, and how much of the fleet each of them stands for. Pure.

A sample in proportion exposes no sandbox at 1 % in a third of all draws. So it is stratified by the first stage that
exposes a sandbox; within a stratum it goes evenly through templates and sizes, and every sandbox weighs the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.files.fleet_file import Floats, Ints
from sim.rollout.bounds import Stratum
from sim.rollout.virtual_fleet import stream

_PLENTY = 4
"""A small stratum has at least one of so many parts of what it would have if all strata were alike."""


@dataclass(frozen=True, slots=True)
class FleetSample:
    """`rows` of the table, rising; each stands for `weights` sandboxes of the fleet; `strata` by their number."""

    rows: Ints
    weights: Floats
    strata: Ints

    def exposed(self, stage: int) -> int:
        """How many of them stages up to this one (from 0) expose, where each stage only adds."""
        return int(((self.strata >= 0) & (self.strata <= stage)).sum())


def sample(first_stage: Ints, template: Ints, memory: Floats, size: int, seed: int) -> FleetSample:
    """`size` sandboxes; `first_stage` by row is -1 for those that no stage exposes. All where there are no more."""
    strata, of = np.unique(first_stage, return_inverse=True)
    counts = np.bincount(of)
    chosen, weights, named = [], [], []
    for number, share in enumerate(shares(counts.tolist(), size)):
        if share == 0:
            continue
        members = np.flatnonzero(of == number)
        ordered = members[np.lexsort((members, memory[members], template[members]))]
        begin = float(stream(seed, f"sample {strata[number]}").random())
        places = np.floor((np.arange(share) + begin) * len(members) / share).astype(np.int64)
        chosen.append(ordered[places])
        weights.append(np.full(share, len(members) / share))
        named.append(np.full(share, strata[number]))
    rows = np.concatenate(chosen)
    order = np.argsort(rows)
    return FleetSample(rows[order], np.concatenate(weights)[order], np.concatenate(named)[order])


def shares(counts: Sequence[int], size: int) -> list[int]:
    """How many of each stratum: in proportion, but never less than a fair part of the sample, nor more than it has.

    At least one of each, as far as `size` goes.
    """
    size = min(size, sum(counts))
    least = max(1, size // (_PLENTY * len(counts)))
    dealt = [0] * len(counts)
    for at in sorted(range(len(counts)), key=lambda at: -counts[at]):
        dealt[at] = min(counts[at], least, size - sum(dealt))
    while (left := size - sum(dealt)) > 0:
        room = [at for at in range(len(counts)) if dealt[at] < counts[at]]
        at = max(room, key=lambda at: counts[at] / (dealt[at] + 0.5))
        gap = max(1, left // (len(counts) * 8))
        dealt[at] += min(gap, counts[at] - dealt[at], left)
    return dealt


def strata_of(found: FleetSample, first_stage: Ints, stage: int, lost: Ints) -> list[Stratum]:
    """Those that stages up to `stage` expose, for a bound on the fleet's exposed: `lost` are rows of the sample."""
    numbers = [int(each) for each in np.unique(first_stage) if 0 <= each <= stage]
    whole = sum(int((first_stage == number).sum()) for number in numbers)
    gone = np.isin(found.rows, lost)
    return [
        Stratum(
            share=float((first_stage == number).sum()) / whole,
            exposed=int((found.strata == number).sum()),
            lost=int(((found.strata == number) & gone).sum()),
        )
        for number in numbers
    ]
