"""The stage's twelve rows: view and beat in, spans out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.record.view import SandboxView, View
from sim.report import words
from sim.tui import rows
from sim.tui.keys import STAGE
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of, opposite, width
from sim.tui.stage_beats import BEATS, FIRST, Beat

ROWS = 12
SANDBOX_ROWS = 4
SCALE = 2.4
"""The bars' right end, in units of a guest's memory."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is on stage: the beat, the act's words, what stays of the beats before, what the checkers found.

    `looked`: they have looked at what was asked last.
    """

    beat: Beat
    says: Span
    view: View = field(default_factory=View)
    peaks: Mapping[str, float] = field(default_factory=dict)
    found: Sequence[Mapping[str, Any]] = ()
    looked: bool = True
    beats: Sequence[Beat] = BEATS


def lines(scene: Scene, cells: int) -> list[Spans]:
    """Always twelve."""
    middle = _MIDDLE[scene.beat.shows](scene, cells)
    fleet = [sandbox_line(each, cells) for each in list(scene.view.sandboxes.values())[:SANDBOX_ROWS]]
    blank: Spans = ()
    return [
        head(scene, cells),
        fit((Span(f" {scene.beat.sentence}"),), cells),
        *middle,
        blank,
        *(fleet + [blank] * SANDBOX_ROWS)[:SANDBOX_ROWS],
        opposite((Span(" "), *fit((scene.says,), min(len(scene.says.text), cells - 2))), (), cells),
        foot(scene, cells),
    ]


def head(scene: Scene, cells: int) -> Spans:
    """Which beat, its title; at the right what the checkers say."""
    right = verdict(scene)
    number = f" {scene.beats.index(scene.beat) + 1}/{len(scene.beats)} "
    left = fit((Span(number, "muted"), Span(scene.beat.title, "title")), cells - width(right) - 2)
    return opposite(left, (*right, Span(" ")), cells)


def verdict(scene: Scene) -> Spans:
    """In red as soon as a checker has found anything."""
    ended = scene.view.ended
    if scene.found or (ended is not None and ended.verdict == "violated"):
        return (Span("‼ VIOLATED", "bad"),)
    if scene.looked and any(pause.settled_at is not None for pause in scene.view.pauses):
        return (Span("✓ HELD", "good"),)
    return ()


def bars(scene: Scene, cells: int) -> list[Spans]:
    """Memory off and on, on one axis: what stays of a beat is its peak."""
    return [_bar("off", scene, cells), _bar("on", scene, cells), _axis(cells)]


def _room(cells: int) -> int:
    return max(10, cells - 6 - 14)


def _bar(name: str, scene: Scene, cells: int) -> Spans:
    """As far as the highest peak of a sandbox: what its guest had, and the copy beside it."""
    room, label = _room(cells), Span(f" {name:<5}", "title" if scene.beat.bar == name else "muted")
    peak = highest_peak(scene.view) if scene.beat.bar == name else scene.peaks.get(name)
    if not peak:
        return (label,)
    tone: Tone = "warn" if peak >= rows.HIGH else "good"
    once = _cells(min(1.0, peak), room)
    copy = _cells(peak, room) - once
    mark, said = Span("┃", tone), Span(f" peak {words.ratio(peak)}", tone)
    return (label, Span("█" * once, "resident"), Span("▓" * copy, "cached"), mark, said)


def highest_peak(view: View) -> float:
    """Of any pause, in units of what its guest had; while it goes on, of its guest's memory. 0 before any."""
    sizes = {sandbox.name: sandbox.memory for sandbox in view.sandboxes.values()}
    return max((each.peak_ratio or each.peak / sizes[each.sandbox] for each in view.pauses), default=0.0)


def _cells(share: float, room: int) -> int:
    return min(room, round(room * share / SCALE))


def _axis(cells: int) -> Spans:
    room, line = _room(cells), ""
    for factor in (1, 2):
        line = f"{line:<{_cells(factor, room)}}╵{factor}x"
    return (Span(" " * 6), Span(line, "muted"))


def slow_motion(scene: Scene, cells: int) -> list[Spans]:
    """The first sandbox's copy, large: its colour turns where its guest is condemned."""
    sandbox = scene.view.sandboxes.get(FIRST)
    pause = sandbox.pause if sandbox else None
    room = max(10, cells - 12)
    if sandbox is None or pause is None or not pause.chunks:
        return [(Span(f" copy {'─' * room}", "muted"),), (), ()]
    tone: Tone = "condemned" if pause.condemned else "busy"
    done, freed = round(room * pause.published / pause.chunks), round(room * sandbox.punched / sandbox.memory)
    count = Span(f" {pause.published}/{pause.chunks}", tone)
    copied: Spans = (Span(" copy "), Span("━" * done, tone), Span("─" * (room - done), "muted"), count)
    punched: Spans = (Span(" free "), Span(rows.FREED * freed, "punched"), Span("·" * (room - freed), "muted"))
    if pause.condemned:
        return [copied, punched, (Span("      ◆ PAST THE POINT OF NO RETURN: it can never run again", "condemned"),)]
    return [copied, punched, (Span("      before the point of no return: it can still run on", "good"),)]


def evidence(scene: Scene, cells: int) -> list[Spans]:
    """What did not hold: the guest that ran, and the page that it lost."""
    if not scene.found:
        return [(Span(" the engine of the pull request, as written", "muted"),), (), ()]
    first = min(scene.found, key=lambda each: "page" not in each)
    said: list[Spans] = [(Span(f" ‼ {first.get('sandbox', '')}: {first.get('reason', '')}", "bad"),)]
    if "page" in first:
        was = str(first.get("expected", "")).removeprefix("begins ")
        said.append((Span(f"   page {first['page']} was  ", "muted"), Span(_bytes(was), "good")))
        said.append((Span(f"   page {first['page']} is   ", "muted"), Span(_bytes("0" * len(was)), "bad")))
    return [fit(each, cells) for each in (*said, (), ())][:3]


def machine(scene: Scene, cells: int) -> list[Spans]:
    """The machine that ran on: what the rules say, the bytes at its instruction pointer, and how it ended."""
    first = next(iter(scene.found), None)
    rule: Spans = (Span(" the program is in the first page of each machine's memory", "muted"),)
    if first is not None:
        rule = (Span(f" ‼ {first.get('sandbox', '')}: {first.get('reason', '')}", "bad"),)
    sandbox = scene.view.sandboxes.get(FIRST)
    end = None if sandbox is None else sandbox.vm_end
    if end is None:
        return [fit(rule, cells), (), ()]
    at = f"{end.began:#x}"
    was: Spans = (Span(f"   {at} was  ", "muted"), Span(end.had, "good"), Span("   its next instruction", "muted"))
    ended = Span(f"   KVM_EXIT_{end.exit}, rip {end.rip:#x}", "bad")
    now: Spans = (Span(f"   {at} is   ", "muted"), Span(end.found, "bad"), ended)
    return [fit(each, cells) for each in (rule, was, now)]


def _bytes(digits: str) -> str:
    return " ".join(digits[at : at + 2] for at in range(0, len(digits), 2)) + " …"


def sandbox_line(sandbox: SandboxView, cells: int) -> Spans:
    """Name, state in capitals, its memory, how its copy goes or went, its peak."""
    glyph, _, word = rows.state_cell(sandbox)[0].text.partition(" ")
    tone = rows.state_cell(sandbox)[0].tone
    name: Spans = (Span(f" {sandbox.name:<7}", "title"),)
    state = fit((Span(f"{glyph} {word.upper()}", tone),), 14)
    bar = max(9, min(31, (cells - 51) | 1))
    parts = (*name, *state, *rows.memory_cell(sandbox, bar), Span("  "))
    return (*parts, *fit(rows.pause_cell(sandbox, 17), 18), *rows.peak_cell(sandbox))


def foot(scene: Scene, cells: int) -> Spans:
    """The keys; at the right the seed."""
    shown = [key for key in STAGE if key.rank < 9]
    keys = [Piece(key.rank, (Span(key.shown, "title"), Span(f" {key.short}", "muted"))) for key in shown]
    right: Spans = (Span(f"seed {scene.view.run.seed}" if scene.view.run else "", "muted"), Span(" "))
    return opposite((Span(" "), *line_of(keys, cells - width(right) - 3, gap=2)), right, cells)


_MIDDLE = {"bars": bars, "slow": slow_motion, "evidence": evidence, "machine": machine}
"""The three rows in the middle, by what a beat shows."""
