"""A chart of memory over time in cells: the memfds below, the caches on them, lines where there is room. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from sim.track import Sample
from sim.tui.spans import Span, Spans, Tone

Cell = tuple[str, Tone]
SOURCE: Cell = ("█", "resident")
CACHE: Cell = ("▓", "cached")
LABEL = 10
"""Cells of the labels at the left, with the axis."""


def columns(samples: Sequence[Sample], begin: float, end: float, cells: int) -> list[Sample | None]:
    """For each column the largest sum in its time, else what was known last; None before the first sample."""
    times = [sample.t for sample in samples]
    length = max(end - begin, 1e-9)
    found: list[Sample | None] = []
    low = bisect_right(times, begin) - 1
    for column in range(cells):
        high = bisect_right(times, begin + length * (column + 1) / cells) if column < cells - 1 else len(samples)
        inside = samples[max(low, 0) : high]
        found.append(max(inside, key=lambda each: each.sum) if low + 1 < high and inside else _at(samples, low))
        low = max(low, high - 1)
    return found


def _at(samples: Sequence[Sample], index: int) -> Sample | None:
    return samples[index] if 0 <= index < len(samples) else None


def area(found: Sequence[Sample | None], top: int, height: int, lines: Mapping[str, tuple[int, Tone]]) -> list[Spans]:
    """`height` lines, the highest first; `top` is the bytes of the upper edge, `lines` are levels with their labels."""
    unit = max(1.0, top / height)
    levels = {min(height - 1, int(size / unit)): (name, tone) for name, (size, tone) in lines.items() if size <= top}
    drawn = []
    for row in range(height - 1, -1, -1):
        name, tone = levels.get(row, ("", "muted"))
        empty: Cell = ("┄", tone) if name else (" ", "plain")
        label = Span(f"{name:>{LABEL - 2}} {'┼' if name else '│'}", tone)
        drawn.append((label, *_runs(_cell(each, row, unit, empty) for each in found)))
    return drawn


def _cell(sample: Sample | None, row: int, unit: float, empty: Cell) -> Cell:
    """What the middle of the cell lies in; the lowest shows what is there at all."""
    if sample is None:
        return empty
    middle = unit * (row + 0.5)
    if middle < sample.source or (row == 0 and 0 < sample.source >= sample.cache):
        return SOURCE
    return CACHE if middle < sample.sum or (row == 0 and sample.cache) else empty


def _runs(cells: Iterable[Cell]) -> list[Span]:
    return [Span(glyph * len(list(run)), tone) for (glyph, tone), run in groupby(cells)]
