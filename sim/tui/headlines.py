"""The lines above and below the fleet table: the run, node memory, flags, faults, one sandbox in full. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from flags.catalog import BACKGROUND, CATALOG, PUNCH, Flag
from sim.record.verdict import INVARIANT
from sim.record.view import MemoryView, PauseView, SandboxView, View
from sim.report import words
from sim.tui import rows
from sim.tui.spans import Piece, Span, Spans, Tone, line_of, opposite, whole, width, wrap, wrapped


def title(view: View, violations: int | None, cells: int, clock: str = "stopped") -> Spans:
    """Name, seed, tick, clock, node and states of the run; at the right what is judged so far."""
    verdict = verdict_so_far(view, violations)
    name, seed = (view.run.name, str(view.run.seed)) if view.run else ("starting", "?")
    pieces = [
        Piece(1, (Span(" snapdrill", "title"),)),
        Piece(0, (Span(name),)),
        Piece(0, _labelled("seed", seed)),
        Piece(0, (*_labelled("tick", str(view.tick)), Span(f" {clock}", "muted" if clock == "stopped" else "good"))),
        Piece(2, _labelled("node", view.node, "bad" if view.node == "crashed" else "plain")),
        Piece(3, _labelled("time", f"{view.t:.1f} s")),
        Piece(4, _counts(view)),
    ]
    return opposite(line_of(pieces, cells - width(verdict) - 3), (*verdict, Span(" ")), cells)


def _labelled(label: str, value: str, tone: Tone = "plain") -> Spans:
    return (Span(f"{label} ", "muted"), Span(value, tone))


def _counts(view: View) -> Spans:
    return (Span(", ".join(f"{count} {state}" for state, count in view.counts.items()), "muted"),)


def verdict_so_far(view: View, violations: int | None) -> Spans:
    """What the checkers have found; before a first pause has ended there is nothing to judge.

    `violations` is None where another process judges: what it has found is in the ledger at the end alone."""
    if view.ended is not None:
        return (Span(view.ended.verdict.upper(), words.verdict_tone(view.ended.verdict)),)
    violated = [judged for judged in view.judged if judged.verdict == "violated"]
    if violated:
        count = sum(len(judged.violations) for judged in violated)
        return (Span(f"‼ VIOLATED: {violated[0].subject.removeprefix(INVARIANT)} ({count})", "bad"),)
    if violations is None:
        return (Span("judged at its end", "muted"),)
    if violations:
        return (Span(f"‼ VIOLATED ({violations})", "bad"),)
    if view.judged or any(pause.settled_at is not None for pause in view.pauses):
        return (Span("HELD so far", "good"),)
    return (Span("nothing judged yet", "muted"),)


def node_memory(view: View, cells: int) -> list[Spans]:
    """Two lines: a bar of the budget (guests, caches, the peak's mark) with its numbers, and where 1x and 2x are."""
    memory = view.memory
    numbers = line_of(
        [
            Piece(0, _labelled("now", words.mib(memory.now), "title")),
            Piece(0, _labelled("peak", words.mib(memory.peak), "warn" if memory.peak > memory.budget else "title")),
            Piece(0, (*_labelled("of", words.mib(memory.budget)), Span(" MiB", "muted"))),
            *page_cache(memory, 1),
        ],
        cells - SHORTEST_BAR,
        gap=2,
    )
    label = Span(" memory ", "muted")
    room = max(8, cells - len(label.text) - width(numbers) - 3)
    bar = _memory_bar(memory, room)
    marks = _marks(sum(sandbox.memory for sandbox in view.sandboxes.values()), memory, room)
    return [(label, *bar, Span("  "), *numbers), (Span(" " * len(label.text)), *marks)]


def page_cache(memory: MemoryView, rank: int) -> list[Piece]:
    """What finished builds on disk have in memory, beside the budget: the kernel gives it up when it must."""
    return [Piece(rank, _labelled("+ page cache", words.mib(memory.page_cache), "muted"))] if memory.page_cache else []


SHORTEST_BAR = 40


def _memory_bar(memory: MemoryView, room: int) -> Spans:
    guests = min(room, _cells(memory.guests, memory, room))
    caches = min(room - guests, _cells(memory.now, memory, room) - guests)
    peak = min(room - 1, _cells(memory.peak, memory, room))
    empty = room - guests - caches
    if memory.peak > memory.now and peak >= guests + caches:
        before = peak - guests - caches
        rest: Spans = (Span("·" * before, "muted"), Span("┃", "warn"), Span("·" * (empty - before - 1), "muted"))
    else:
        rest = (Span("·" * empty, "muted"),)
    return (Span("█" * guests, "resident"), Span("▓" * max(0, caches), "cached"), *rest)


def _cells(size: int, memory: MemoryView, room: int) -> int:
    return round(room * size / max(memory.budget, memory.peak, 1))


def _marks(once: int, memory: MemoryView, room: int) -> Spans:
    """Under the bar: the fleet's own memory once, and twice; what is past the bar's end is not drawn."""
    line = ""
    for factor in (1, 2):
        at = _cells(once * factor, memory, room)
        if once and len(line) <= at <= room - 3:
            line = f"{line:<{at}}╵{factor}x "
    return (Span(line, "muted"),)


SHORT = {PUNCH: "punch", BACKGROUND: "background"}
ALWAYS_SHOWN = frozenset({"memfd-punch-on-snapshot", "memfd-background-copy"})


def flags_line(view: View, cells: int) -> Spans:
    """The two flags that keys change, every other one that was set, and what serves them."""
    shown = [known for known in CATALOG if known.key in view.flags or known.key in ALWAYS_SHOWN]
    source = [Piece(_rank_of_source(view), source_words(view))] if view.run is not None else []
    needed = [*_flags(view, shown, {}), *(piece for piece in source if piece.rank == 0)]
    is_wide = sum(width(piece.spans) + 3 for piece in needed) <= cells - 5
    pieces = [*_flags(view, shown, {} if is_wide else SHORT), *source]
    return (Span(" flags  ", "muted"), *line_of(pieces, cells - 8))


def _flags(view: View, shown: list[Flag], names: Mapping[str, str]) -> list[Piece]:
    return [Piece(index, _flag(view, known, names.get(known.key, known.key))) for index, known in enumerate(shown)]


def _flag(view: View, known: Flag, name: str) -> Spans:
    """What its source says; in an outage the node may not have heard of it."""
    change = view.flag_changes.get(known.key)
    unheard = (Span(" ‼ unheard", "bad"),) if change is not None and not change.effective else ()
    return (Span(f"{name} ", "muted"), *flag_value(view.flags.get(known.key, known.safe), known.safe), *unheard)


def flag_value(value: object, safe: object) -> Spans:
    """`● on`, `○ off`, `◐ on for 50% by sandbox`; what is not safe is a warning."""
    glyph = {True: "●", False: "○"}.get(value, "◐") if isinstance(value, bool) else "◐"
    return (Span(f"{glyph} {words.flag_value(value)}", "calm" if value == safe else "warn"),)


def _rank_of_source(view: View) -> int:
    """What is sound is left out first where room is short, what is not is left out last."""
    return 9 if source_words(view)[-1].tone in {"plain", "good"} else 0


BROKEN = {"freeze": "frozen", "drop": "dropped", "refuse": "refusing", "tear": "torn"}
"""What an outage makes of a source, where its name does not say it."""


def source_words(view: View) -> Spans:
    """What serves the flags, and how it does: `source relay ✓ VALID`, `source relay ‼ down`."""
    source, name = view.source, view.run.flag_source if view.run else "?"
    label = Span("source ", "muted")
    if source.outage == "drop" and source.state == "VALID":
        return (label, Span(f"{name} ◐ dropped once, VALID", "warn"))  # it takes a moment: the client is back
    if source.outage is not None:
        return (label, Span(f"{name} ‼ {BROKEN.get(source.outage, source.outage)}", "bad"))
    if source.lease is not None and not source.lease.open:
        return (label, Span(f"{name} ‼ lease expired", "bad"))
    if source.state is None:
        return (label, Span(name))
    good = source.state == "VALID"
    return (label, Span(f"{name} {'✓' if good else '‼'} {source.state}", "good" if good else "bad"))


def faults_line(view: View, cells: int) -> Spans:
    """What is armed and how often it fired, as many as there is room for."""
    label = Span(" faults ", "muted")
    if not view.faults:
        return (label, Span("none armed", "muted"))
    said = [
        f"{words.fault_words(each.fault, each.error, each.at, each.sandboxes)}{_fired(each.fired)}"
        for each in view.faults
    ]
    for shown in range(len(said), 0, -1):
        more = f"; and {len(said) - shown} more" if shown < len(said) else ""
        line = f"{len(said)} armed: {'; '.join(said[:shown])}{more}"
        if len(line) <= cells - 9:
            return (label, Span(line, "warn"))
    return (label, Span(f"{len(said)} armed", "warn"))


def _fired(times: int) -> str:
    return {0: "", 1: ", fired once"}.get(times, f", fired {times} times")


def detail(sandbox: SandboxView | None, cells: int, lines: int) -> list[Spans]:
    """One sandbox in full: its state and why, a refusal, its pause; at most `lines` lines."""
    if sandbox is None:
        return []
    of_pause = [_plans(sandbox.pause), _figures(sandbox)] if sandbox.pause is not None else []
    return whole([[_who(sandbox)], *of_pause, _identity(sandbox)], cells, lines)


def who(sandbox: SandboxView, cells: int, lines: int) -> list[Spans]:
    """One sandbox: its state and why, a refusal, its guest; at most `lines` lines."""
    pace = sandbox.pace
    asked = [f"SLOWED x{pace.factor:g}"] * (pace.factor > 1) + ["STOPPED"] * pace.held
    pieces = [
        Piece(0, (Span(f" {_guest(sandbox)}", "muted"),)),
        *(Piece(0, (Span(each, "warn"),)) for each in asked),
        Piece(1, _labelled("tracked by", sandbox.tracker or "nobody", "muted")),
        Piece(2, _labelled("template", sandbox.template, "muted")),
        Piece(3, _labelled("team", sandbox.team, "muted")),
        Piece(4, _labelled("cluster", sandbox.cluster, "muted")),
    ]
    said = wrapped([_who(sandbox)], cells, lines)
    if sandbox.vm_end is not None:
        pieces = [Piece(0, (Span(f" {words.vm_bytes(sandbox.vm_end)}", "bad"),))]
    return [*said, line_of(pieces, cells - 1, gap=2)][:lines]


def _guest(sandbox: SandboxView) -> str:
    """A condemned guest can never run again, however its copy ends."""
    if sandbox.pid is not None:
        return f"{_kind(sandbox)} {sandbox.incarnation}, pid {sandbox.pid}"
    pause = sandbox.pause
    if pause is None or not pause.condemned:
        return "no guest"
    build = pause.id if rows.in_flight(sandbox) else sandbox.build
    again = f"; r makes a new one of build {build}" if sandbox.state == "paused" and build else ""
    return f"guest {pause.incarnation or sandbox.incarnation} can never run again{again}"


def _kind(sandbox: SandboxView) -> str:
    return "virtual machine" if sandbox.guest == "vm" else "guest"


def why(sandbox: SandboxView, cells: int, lines: int) -> list[Spans]:
    """Its pause: the decision with its reason, the figures."""
    pause = sandbox.pause
    return whole([_plans(pause), _figures(sandbox)] if pause is not None else [], cells, lines)


def _who(sandbox: SandboxView) -> Spans:
    """What it is and why; a refusal, until the next change, says both."""
    state = rows.state_cell(sandbox)
    tone: Tone = "bad" if sandbox.refused is not None else state[0].tone
    return (Span(f" {sandbox.name} ", "title"), *state, Span(_reason(sandbox), tone))


def _reason(sandbox: SandboxView) -> str:
    """Of the refusal, else of its state."""
    return f"; refused: {sandbox.refused.reason}" if sandbox.refused is not None else f": {_why(sandbox)}"


def _why(sandbox: SandboxView) -> str:
    """The reason of its state; a paused sandbox got its own while the copy went on, which may have ended since."""
    if sandbox.vm_end is not None:
        return words.vm_end(sandbox.vm_end)
    if sandbox.state == "paused" and sandbox.build is not None and rows.in_flight(sandbox) is None:
        return f"its memory is in build {sandbox.build}"
    return sandbox.reason


def _plans(pause: PauseView) -> list[Spans]:
    """The longer, with the reason why it punches or not, first."""
    punch = pause.decision.get(PUNCH)
    decided = f"punch {words.on_off(punch['value'])}, {words.reason(punch)}" if punch else "not decided yet"
    planned = f"; {pause.path}, {'punches' if pause.punch else 'does not punch'}" if pause.path else ""
    label = Span(" decision ", "muted")
    why = [(label, Span(f"{decided}{planned}: {pause.punch_reason}"))] if pause.punch_reason else []
    return [*why, (label, Span(f"{decided}{planned}"))]


def _figures(sandbox: SandboxView) -> list[Spans]:
    """Its pause in figures, all of them first; then without those of the highest rank."""
    pause = sandbox.pause
    if pause is None:
        return [()]
    facts = [(0, f"{pause.published} of {pause.chunks} chunks")] if pause.chunks else []
    facts += [(1, _dirty(pause.dirty_bytes))] if pause.dirty_bytes is not None else []
    facts += [(2, f"punched {words.mib(pause.punched_bytes)} MiB")] if pause.punched_bytes else []
    facts += [(5, f"answered after {words.ms(pause.blocked_ms)}")] if pause.blocked_ms is not None else []
    facts += [(4, f"{_copied(pause)} {words.ms(pause.copy_ms)}")] if pause.copy_ms is not None else []
    has_peak = pause.peak_over is not None and pause.dirty_bytes != 0
    facts += [(3, f"peak +{words.mib(pause.peak_over or 0)} MiB")] if has_peak else []
    facts += [(6, f"condemned at {pause.condemned_at:.1f} s")] if pause.condemned_at is not None else []
    facts += [(1, pause.error)] if pause.error and pause.error not in _reason(sandbox) else []
    forms = [", ".join(fact for rank, fact in facts if rank <= most) for most in range(6, -1, -1)]
    return [(Span(" pause ", "muted"), Span(each or "just begun")) for each in dict.fromkeys(forms)]


def _copied(pause: PauseView) -> str:
    return "copied in" if pause.outcome in {None, "finished"} else "the copy ended after"


def _dirty(size: int) -> str:
    """Of the freeze, not of now."""
    return f"{words.mib(size)} MiB were dirty" if size else "nothing was dirty, so nothing was copied"


def _identity(sandbox: SandboxView) -> list[Spans]:
    """The first that is left out where room is short."""
    tracked = f"{_kind(sandbox)} pid {sandbox.pid}, writes tracked by {sandbox.tracker}"
    guest = tracked if sandbox.pid else _guest(sandbox)
    groups = f"; template {sandbox.template}, team {sandbox.team}, cluster {sandbox.cluster}"
    return [(Span(f" {guest}{groups}", "muted"),), (Span(f" {guest}", "muted"),), ()]


def rule(note: Span | None, cells: int, name: str = "events") -> list[Spans]:
    """The line over the log, with what is under way or went wrong; what is too long for it stands whole above it."""
    begin = f"─ {name} " if name else "─"
    empty: Spans = (Span(begin + "─" * (cells - len(begin)), "muted"),)
    if note is None:
        return [empty]
    room = cells - len(begin) - 3
    if note.width > room:
        return [*wrap((Span(" "), note), cells - 1, indent="   "), empty]
    return [(Span(f"{begin}─ ", "muted"), note, Span(" " + "─" * (room - note.width), "muted"))]
