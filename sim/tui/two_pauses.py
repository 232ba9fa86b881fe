"""A pause without punching beside one with, on the same axes: the newest of each in this run. Pure."""

from __future__ import annotations

from sim.report import words
from sim.tui import stacked
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of, wrap
from sim.view import PauseView, View

GAP = 2
ADVICE = ": f flips the flag, P pauses all, V resumes them"
TOP = 2.25
"""The upper edge, in units of what the guest held at the freeze."""


def lines(view: View, cells: int, height: int, hint: str = "") -> list[Spans]:
    """What it is, two charts side by side, and what all pauses come to; `height` lines at most.

    `hint`: how to get more, where somebody can ask for it.
    """
    off, on = of_kind(view, punch=False), of_kind(view, punch=True)
    each = (cells - GAP) // 2
    took = max((_took(pause) for pause in (*off[-1:], *on[-1:])), default=0.0)
    summary = _summary(view, off, on, cells)
    room = max(2, height - 2 - len(summary))
    advice = ADVICE if hint else ""
    halves = [_half(name, kind, each, room, took, advice) for name, kind in (("off", off), ("on", on))]
    beside = [(*fit(left, each), Span(" " * GAP), *right) for left, right in zip(*halves, strict=True)]
    return [_head(hint, cells), *beside, *summary][:height]


def _head(hint: str, cells: int) -> Spans:
    """These are two pauses of this run: not the same moment, nor the same sandbox."""
    what = (Span(" two pauses ", "title"), Span("of this run, the newest of each kind", "muted"))
    return line_of([Piece(0, what), Piece(1, (Span(hint, "muted"),))], cells)


def of_kind(view: View, *, punch: bool) -> list[PauseView]:
    """Finished pauses at their own pace, oldest first; what somebody slowed or held is in no figure."""
    return [
        pause
        for pause in view.pauses
        if pause.outcome == "finished"
        and pause.punch is punch
        and not pause.checkpoint
        and not pause.paced
        and len(pause.track.samples) > 1
    ]


def _took(pause: PauseView) -> float:
    samples = pause.track.samples
    return samples[-1].t - samples[0].t


def _half(name: str, pauses: list[PauseView], cells: int, height: int, took: float, advice: str) -> list[Spans]:
    tone: Tone = "punched" if name == "on" else "plain"
    title: Spans = (Span(f" punch {name}", "title"),)
    if not pauses:
        empty = [*wrap((Span(" "), Span(f"none yet{advice}", "muted")), cells - 1, indent=" ")]
        return [title, *empty, *[()] * height][: height + 1]
    pause = pauses[-1]
    title = line_of([Piece(0, title), *_figures(pause, tone)], cells, gap=1)
    samples = pause.track.samples
    once = max(1, samples[0].source)
    found = stacked.columns(samples, samples[0].t, samples[0].t + took, max(8, cells - stacked.LABEL - 1))
    levels: dict[str, tuple[int, Tone]] = {"1x": (once, "muted"), "2x": (2 * once, "warn")}
    return [fit(title, cells), *stacked.area(found, int(TOP * once), height, levels)]


def _figures(pause: PauseView, tone: Tone) -> list[Piece]:
    ratio = "-" if pause.peak_ratio is None else words.ratio(pause.peak_ratio)
    pieces = [Piece(1, (Span(pause.id, "muted"),)), Piece(0, (Span(f" peak {ratio}", tone),))]
    return pieces if pause.copy_ms is None else [*pieces, Piece(2, (Span(f" copied in {words.ms(pause.copy_ms)}"),))]


def _summary(view: View, off: list[PauseView], on: list[PauseView], cells: int) -> list[Spans]:
    """Both kinds in numbers, and what was left out."""
    said = [f"{name}: {_numbers(pauses)}" for name, pauses in (("off", off), ("on", on)) if pauses]
    paced = sum(pause.paced for pause in view.pauses)
    said += [f"{words.plural(paced, 'pause')} slowed or held: in no figure"] if paced else []
    return [] if not said else wrap((Span(" "), Span("; ".join(said), "muted")), cells - 1, indent=" ")[:1]


def _numbers(pauses: list[PauseView]) -> str:
    most = max((pause.peak_ratio for pause in pauses if pause.peak_ratio is not None), default=None)
    return words.plural(len(pauses), "pause") + ("" if most is None else f", peak {words.ratio(most)} at most")
