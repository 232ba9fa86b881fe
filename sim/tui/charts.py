"""Memory and time, drawn in cells."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from sim.record.stages import Sample, Track
from sim.record.view import PauseView, SandboxView, View
from sim.report import words
from sim.tui import headlines, rows
from sim.tui.spans import HARD, Piece, Span, Spans, Tone, fit, line_of, wrap
from sim.tui.windows import ChartWindow, window

MARKS: dict[str, tuple[str, Tone, str]] = {
    "off": ("△", "plain", "pause"),
    "on": ("▲", "punched", "punching pause"),
    "lost": ("✗", "bad", "discarded"),
}


def memory_lines(view: View, cells: int, height: int, seconds: float | None = None) -> list[Spans]:
    """A title, the chart, the pauses under it, the time; `height` lines at most. `seconds` as `windows.window` has
    it."""
    room, high = max(8, cells - LABEL - 1), max(2, height - 3)
    once = sum(sandbox.memory for sandbox in view.sandboxes.values())
    top = _top(view, once)
    part = window(seconds, max(view.t, 1.0), view.samples, (each.began for each in view.pauses))
    found = columns(part.shown(view.samples), 0.0, part.length, room)
    levels: dict[str, tuple[int, Tone]] = {
        "budget": (view.memory.budget, "bad"),
        f"1x {words.mib(once)}": (once, "muted"),
        f"2x {words.mib(2 * once)}": (2 * once, "muted"),
    }
    chart = area(found, top, high, levels)
    return [_title(view, top, cells), *chart, _pauses(view, part, room), _time(part, room)][:height]


def _top(view: View, once: int) -> int:
    """The upper edge, bytes: of the budget, unless all that matters would be squeezed at its foot."""
    matters = max(view.memory.peak, 2 * once, 1)
    return int(1.05 * (view.memory.budget if view.memory.budget <= 2 * matters else matters))


def _title(view: View, top: int, cells: int) -> Spans:
    memory = view.memory
    above = " (above the chart)" if memory.budget > top else ""
    over = memory.peak > memory.budget
    pieces = [
        Piece(0, (Span(" memory ", "muted"), Span("█ guests", "resident"), Span("  "), Span("▓ caches", "cached"))),
        Piece(0, (Span("now ", "muted"), Span(f"{words.mib(memory.now)} MiB"))),
        Piece(0, (Span("peak ", "muted"), Span(f"{words.mib(memory.peak)} MiB", "bad" if over else "title"))),
        Piece(1, (Span(f"budget {words.mib(memory.budget)} MiB{above}", "muted"),)),
        *headlines.page_cache(memory, 2),
    ]
    return line_of(pieces, cells)


def _pauses(view: View, part: ChartWindow, room: int) -> Spans:
    """A mark where each pause began; where several are, the worst."""
    marks = [" "] * room
    tones: list[Tone] = ["plain"] * room
    for kind, (glyph, tone, _) in MARKS.items():
        for pause in view.pauses:
            if kind_of(pause) == kind and pause.began >= part.begin:
                at = min(room - 1, int(room * part.place(pause.began) / part.length))
                marks[at], tones[at] = glyph, tone
    drawn = [Span(mark, tone) for mark, tone in zip(marks, tones, strict=True)]
    return (Span(f"{'pauses':>{LABEL - 2}} │", "muted"), *drawn)


def kind_of(pause: PauseView) -> str:
    """Which mark a pause gets."""
    return "lost" if pause.outcome == "discarded" else "on" if pause.punch else "off"


def _time(part: ChartWindow, room: int) -> Spans:
    idle = f", {part.left_out:.0f} s idle left out" if part.folded else ""
    said = f"{part.end:.1f} s{idle}"
    legend = "   ".join(f"{glyph} {name}" for glyph, _, name in MARKS.values())
    gap = room - len(said) - len(legend) - 4
    middle = f"  {legend}  " if gap >= 0 else ""
    axis = "─" * max(0, room - len(said) - len(middle) - 1)
    return (Span(f"{f'{part.begin:.0f} s':>{LABEL - 2}} └{middle}{axis} {said}", "muted"),)


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


SHOWN = {
    "frozen": "frozen",
    "scanned": "scanned",
    "planned": "copying",
    "published": "published",
    "condemned": "◆ condemned",
    "punched": "punched",
    "returned": "answered",
    "failed": "failed",
    "thawed": "runs on",
    "finished": "finished",
}
"""The stages in words: the first time each. In the order in which those of the same moment come."""


def time_lines(sandbox: SandboxView, cells: int, height: int) -> list[Spans]:
    """The chunks, the axis, the stages with milliseconds since the decision; `height` lines at most."""
    pause = sandbox.pause
    if pause is None:
        return [(Span(" pause ", "muted"), Span("none yet", "muted"))]
    drawn = [_chunks(sandbox, pause, cells), _axis(pause, cells)]
    stages = wrap(_stages(pause), cells - 1, indent=" " * 7)
    return [*drawn, *stages][:height]


def _chunks(sandbox: SandboxView, pause: PauseView, cells: int) -> Spans:
    """How many chunks are published, which side of the point of no return that is, and at what pace it goes."""
    badges = _badges(sandbox, pause)
    pieces = [
        Piece(0, (Span(" copy ", "muted"), *rows.progress(pause, 15 if cells < 100 else 32))),
        Piece(0, (_fate(sandbox, pause, wide=cells >= 100),)),
        *(Piece(rank, (badge,)) for rank, badge in enumerate(badges)),
    ]
    return line_of(pieces, cells - 1, gap=2)


def _fate(sandbox: SandboxView, pause: PauseView, *, wide: bool) -> Span:
    if rows.in_flight(sandbox) is None:
        outcome = (pause.outcome or "not begun").replace("-", " ")
        return Span(outcome, "good" if outcome == "finished" else "bad" if pause.condemned else "warn")
    if pause.condemned:
        return Span("◆ past the point of no return" if wide else "◆ no way back", "condemned")
    return Span("it can still roll back", "busy")


def _badges(sandbox: SandboxView, pause: PauseView) -> list[Span]:
    """Whether its pace was set by hand; such a pause is in no figure."""
    pace, track = sandbox.pace, pause.track
    if rows.in_flight(sandbox) is None:
        return [Span("it was slowed or stopped: in no figure", "warn")] if track.paced else []
    badges = []
    if pace.factor > 1:
        badges.append(Span(f"SLOWED x{pace.factor:g}", "warn"))
    if pace.held:
        badges.append(Span("STOPPED" + _place(track), "warn"))
    return [*badges, Span("in no figure", "muted")] if track.paced else badges


def _place(track: Track) -> str:
    """` before chunks 3, 4`, or at which of the pause's own boundaries."""
    waits = {"condemn": " before condemn", "finish": " before finish"}
    if track.waits_for in waits:
        return waits[track.waits_for]
    chunks = ", ".join(str(chunk) for chunk in sorted(track.under))
    return f" before chunk{'s' if len(track.under) > 1 else ''} {chunks}" if chunks else ""


def _axis(pause: PauseView, cells: int) -> Spans:
    """From the decision to the last stage: it turns where the guest is condemned."""
    stages = pause.track.stages
    begin, end = stages.get("decided", pause.began), max(stages.values(), default=pause.began)
    took = words.ms((end - begin) * 1e3)
    room = max(8, cells - 9 - len(took))
    condemned = stages.get("condemned")
    length = max(end - begin, 1e-9)
    drawn = []
    for at in range(room):
        t = begin + length * (at + 0.5) / room
        after = condemned is not None and t >= condemned
        drawn.append(Span("━", _tone(pause, after=after)))
    if condemned is not None:
        drawn[min(room - 1, int(room * (condemned - begin) / length))] = Span("◆", "condemned")
    return (Span(" time ", "muted"), *drawn, Span(f" {took}", "muted"))


def _tone(pause: PauseView, *, after: bool) -> Tone:
    failed = pause.outcome == "discarded"
    return ("bad" if failed else "condemned") if after else "busy"


def _stages(pause: PauseView) -> Spans:
    stages = pause.track.stages
    begin = stages.get("decided", pause.began)
    order = list(SHOWN)
    reached = sorted((name for name in stages if name in SHOWN), key=lambda name: (stages[name], order.index(name)))
    spans: list[Span] = [Span(f"      {HARD}")]
    for name in reached:
        tone: Tone = "condemned" if name == "condemned" else "bad" if name == "failed" else "plain"
        said = f"{SHOWN[name]} +{words.ms((stages[name] - begin) * 1e3)}"
        spans.append(Span(said.replace(" ", HARD) + "  ", tone))
    return tuple(spans)


GAP = 2
ADVICE = ": f flips the flag, P pauses all, V resumes them"
TOP = 2.25
"""The upper edge, in units of what the guest had at the freeze."""


def two_pause_lines(view: View, cells: int, height: int, hint: str = "") -> list[Spans]:
    """A title, two charts side by side, and the totals of all such pauses; `height` lines at most.

    Only pauses of as many dirty bytes are beside each other: one that copied less would look better for no other
    reason. `hint`: how to get more, if the run takes requests.
    """
    off, on = alike(of_kind(view, punch=False), of_kind(view, punch=True))
    each = (cells - GAP) // 2
    took = max((_took(pause) for pause in (*off[-1:], *on[-1:])), default=0.0)
    summary = _summary(view, off, on, cells)
    room = max(2, height - 2 - len(summary))
    dirty = next((pause.dirty_bytes for pause in (*off[-1:], *on[-1:])), None)
    none = "none yet" if dirty is None else f"none yet with {words.mib(dirty)} MiB dirty"
    none += ADVICE if hint else ""
    halves = [_half(name, kind, each, room, took, none) for name, kind in (("off", off), ("on", on))]
    beside = [(*fit(left, each), Span(" " * GAP), *right) for left, right in zip(*halves, strict=True)]
    return [_head(hint, dirty, cells), *beside, *summary][:height]


def _head(hint: str, dirty: int | None, cells: int) -> Spans:
    """These are two pauses of this run: not the same moment, nor the same sandbox."""
    of = "" if dirty is None else f", {words.mib(dirty)} MiB dirty in each"
    what = (Span(" two pauses ", "title"), Span(f"of this run, the newest of each kind{of}", "muted"))
    return line_of([Piece(0, what), Piece(1, (Span(hint, "muted"),))], cells)


def of_kind(view: View, *, punch: bool) -> list[PauseView]:
    """Finished pauses and checkpoints with a new guest that had something to copy, oldest first; what was slowed or
    stopped by hand is in no figure."""
    return [
        pause
        for pause in view.pauses
        if pause.outcome == "finished"
        and pause.punch is punch
        and pause.dirty_bytes
        and pause.consumed
        and not pause.paced
        and len(pause.track.samples) > 1
    ]


def alike(off: Sequence[PauseView], on: Sequence[PauseView]) -> tuple[list[PauseView], list[PauseView]]:
    """Of both kinds those with as many dirty bytes as the newest that has a like; of the newest where none has."""
    newest = sorted((*off, *on), key=lambda pause: pause.began, reverse=True)
    sizes = [pause.dirty_bytes for pause in newest]
    both = {pause.dirty_bytes for pause in off} & {pause.dirty_bytes for pause in on}
    size = next((each for each in sizes if each in both), sizes[0] if sizes else None)
    return [pause for pause in off if pause.dirty_bytes == size], [pause for pause in on if pause.dirty_bytes == size]


def _took(pause: PauseView) -> float:
    samples = pause.track.samples
    return samples[-1].t - samples[0].t


def _half(name: str, pauses: list[PauseView], cells: int, height: int, took: float, none: str) -> list[Spans]:
    tone: Tone = "punched" if name == "on" else "plain"
    title: Spans = (Span(f" punch {name}", "title"),)
    if not pauses:
        empty = [*wrap((Span(" "), Span(none, "muted")), cells - 1, indent=" ")]
        return [title, *empty, *[()] * height][: height + 1]
    pause = pauses[-1]
    title = line_of([Piece(0, title), *_figures(pause, tone)], cells, gap=1)
    samples = pause.track.samples
    once = max(1, samples[0].source)
    found = columns(samples, samples[0].t, samples[0].t + took, max(8, cells - LABEL - 1))
    levels: dict[str, tuple[int, Tone]] = {"1x": (once, "muted"), "2x": (2 * once, "warn")}
    return [fit(title, cells), *area(found, int(TOP * once), height, levels)]


def _figures(pause: PauseView, tone: Tone) -> list[Piece]:
    ratio = "-" if pause.peak_ratio is None else words.ratio(pause.peak_ratio)
    pieces = [Piece(1, (Span(pause.id, "muted"),)), Piece(0, (Span(f" peak {ratio}", tone),))]
    return pieces if pause.copy_ms is None else [*pieces, Piece(2, (Span(f" copied in {words.ms(pause.copy_ms)}"),))]


def _summary(view: View, off: list[PauseView], on: list[PauseView], cells: int) -> list[Spans]:
    """Both kinds in numbers, and what was left out."""
    empty = sum(pause.outcome == "finished" and pause.dirty_bytes == 0 for pause in view.pauses)
    said = [f"{name}: {_numbers(pauses)}" for name, pauses in (("off", off), ("on", on)) if pauses]
    paced = sum(pause.paced for pause in view.pauses)
    said += [f"{words.plural(paced, 'pause')} slowed or stopped: in no figure"] if paced else []
    said += [f"{words.plural(empty, 'pause')} with nothing dirty: in no figure"] if empty else []
    return [] if not said else wrap((Span(" "), Span("; ".join(said), "muted")), cells - 1, indent=" ")[:1]


def _numbers(pauses: list[PauseView]) -> str:
    most = max((pause.peak_ratio for pause in pauses if pause.peak_ratio is not None), default=None)
    return words.plural(len(pauses), "pause") + ("" if most is None else f", peak {words.ratio(most)} at most")
