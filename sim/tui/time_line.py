"""A pause's time line: its stages on one axis with the point of no return, and how far its chunks are. Pure."""

from __future__ import annotations

from sim.report import words
from sim.track import Track
from sim.tui import rows
from sim.tui.spans import HARD, Piece, Span, Spans, Tone, line_of, wrap
from sim.view import PauseView, SandboxView

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


def lines(sandbox: SandboxView, cells: int, height: int) -> list[Spans]:
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
        return Span("◆ past the point of no return" if wide else "◆ no way back", "warn")
    return Span("it can still roll back", "busy")


def _badges(sandbox: SandboxView, pause: PauseView) -> list[Span]:
    """What somebody does to its pace; such a pause is in no figure."""
    pace, track = sandbox.pace, pause.track
    if rows.in_flight(sandbox) is None:
        return [Span("it was slowed or held: in no figure", "warn")] if track.paced else []
    badges = []
    if pace.factor > 1:
        badges.append(Span(f"SLOWED x{pace.factor:g}", "warn"))
    if pace.held:
        badges.append(Span("HELD" + _place(track), "warn"))
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
        drawn[min(room - 1, int(room * (condemned - begin) / length))] = Span("◆", "warn")
    return (Span(" time ", "muted"), *drawn, Span(f" {took}", "muted"))


def _tone(pause: PauseView, *, after: bool) -> Tone:
    failed = pause.outcome == "discarded"
    return ("bad" if failed else "warn") if after else "busy"


def _stages(pause: PauseView) -> Spans:
    stages = pause.track.stages
    begin = stages.get("decided", pause.began)
    order = list(SHOWN)
    reached = sorted((name for name in stages if name in SHOWN), key=lambda name: (stages[name], order.index(name)))
    spans: list[Span] = [Span(f"      {HARD}")]
    for name in reached:
        tone: Tone = "warn" if name == "condemned" else "bad" if name == "failed" else "plain"
        said = f"{SHOWN[name]} +{words.ms((stages[name] - begin) * 1e3)}"
        spans.append(Span(said.replace(" ", HARD) + "  ", tone))
    return tuple(spans)
