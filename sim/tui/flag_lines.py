"""The flags screen in lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flags.catalog import CATALOG, FLAGS, PUNCH, Flag, is_on
from flags.context import ORIGINAL, SandboxAttributes, contexts_of
from flags.inline import Rollout, RolloutKind, as_written, flag_from, from_written
from sim.record.view import PauseView, SandboxView, View
from sim.report import words
from sim.tui import headlines
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of, whole, width

KINDS: tuple[RolloutKind, ...] = ("sandbox", "team", "template", "cluster")
KEY_CELLS = max(len(known.key) for known in CATALOG) + 1
VALUE_CELLS = 18
WHO_CELLS = 10
ERROR_CELLS = 48
NOT_OURS = {
    "inline": "these values reach the node at once, there is no stream to break: leave, and snapdrill tui --relay",
    "file": "a flag file has no stream to break: give the values in the scenario, and snapdrill tui --relay",
    "launchdarkly": "LaunchDarkly's own service is not ours to break: give the values, and snapdrill tui --relay",
}
"""Why a source cannot be made to fail from here."""


@dataclass(frozen=True, slots=True)
class FlagDraft:
    """A rollout that is being edited, in percent, and of which kind of context."""

    percent: float
    by: RolloutKind

    @property
    def value(self) -> Rollout:
        """What would be set."""
        return Rollout(self.percent, self.by)

    def changed(self, steps: float) -> FlagDraft:
        """So many percent more, within what there is."""
        return FlagDraft(max(0.0, min(100.0, self.percent + steps)), self.by)

    def by_next(self) -> FlagDraft:
        """Drawn by the next kind of context."""
        return FlagDraft(self.percent, KINDS[(KINDS.index(self.by) + 1) % len(KINDS)])


def draft_of(view: View, key: str) -> FlagDraft:
    """The rollout in force: on is 100 %, off is 0 %."""
    value = view.flags.get(key, FLAGS[key].safe)
    if isinstance(value, Mapping) and "rollout" in value:
        return FlagDraft(float(str(value["rollout"]).rstrip("%")), value.get("by", "sandbox"))
    return FlagDraft(100.0 if is_on(value) else 0.0, "sandbox")


def source_lines(view: View, cells: int) -> list[Spans]:
    """What serves the flags, the node's client and the lease: two lines."""
    pieces = [
        Piece(0, (Span(" "), *headlines.source_words(view))),
        Piece(2, _client(view)),
        Piece(1, lease_words(view)),
        Piece(3, _client_error(view)),
    ]
    return [line_of([piece for piece in pieces if piece.spans], cells), _decided_line(view)]


def _client(view: View) -> Spans:
    source = view.source
    if source.state is None:
        return ()
    said = f"{source.state} since {source.t:.1f} s"
    return (Span("client ", "muted"), Span(said, "plain" if source.state == "VALID" else "warn"))


def _client_error(view: View) -> Spans:
    """The log has all of it."""
    error = view.source.error
    return fit((Span(error, "warn"),), min(len(error), ERROR_CELLS)) if error else ()


def lease_words(view: View) -> Spans:
    """`lease 2 s ✓ open`; when its last heartbeat was where one is overdue; nothing where there is no lease.

    A moment and not an age: the view's clock stands still while no event is recorded, and an age would be wrong.
    """
    lease = view.source.lease
    if lease is None:
        return ()
    label = Span("lease ", "muted")
    since = "yet" if lease.age is None else f"since {max(0.0, view.source.lease_t - lease.age):.1f} s"
    if not lease.open:
        return (label, Span(f"{lease.duration:g} s ‼ expired: no heartbeat {since}", "bad"))
    if lease.age is not None and lease.age > lease.duration / 2:
        return (label, Span(f"{lease.duration:g} s ◐ open, no heartbeat {since}", "warn"))
    return (label, Span(f"{lease.duration:g} s ✓ open", "good"))


def _decided_line(view: View) -> Spans:
    """How the last pause of each sandbox was decided."""
    said = [each.pause.decision[PUNCH] for each in view.sandboxes.values() if each.pause and each.pause.decision]
    if not said:
        return (Span(" no pause has been decided yet", "muted"),)
    on = sum(1 for each in said if each["value"])
    return (
        Span(" last pauses ", "muted"),
        Span(f"{on} decided with punching", "punched" if on else "plain"),
        Span(f", {len(said) - on} without", "plain"),
    )


def value_words(value: Any, safe: Any) -> Spans:
    """`● on`, `◐ 50% by sandbox`."""
    if isinstance(value, Mapping) and "rollout" in value:
        return (Span(f"◐ {value['rollout']} by {value.get('by', 'sandbox')}", "warn"),)
    if isinstance(value, Mapping):
        return (Span("● enabled", "warn"),) if is_on(value) else (Span("○ off", "calm"),)
    return headlines.flag_value(value, safe)


def reason_words(evaluation: Mapping[str, Any]) -> str:
    """LaunchDarkly's reason in words; a flag that the source does not have is `not served`: the safe value is."""
    said = words.reason(evaluation)
    return "not served" if said == "error: flag not found" else said


def set_by(view: View, key: str) -> Spans:
    """Who gave the flag its value."""
    if key in view.flag_changes:
        change = view.flag_changes[key]
        return (Span(change.by, "plain"),) if change.effective else (Span(f"{change.by} ‼", "bad"),)
    source = view.run.flag_source if view.run else "inline"
    return (Span({"file": "file", "launchdarkly": "service"}.get(source, "-"), "muted"),)


def last_decision(view: View, key: str) -> tuple[PauseView, Mapping[str, Any]] | None:
    """The latest pause that evaluated the flag, and the evaluation."""
    return next(((pause, pause.decision[key]) for pause in reversed(view.pauses) if key in pause.decision), None)


def header(cells: int) -> Spans:
    """The titles over the flags."""
    titles = f"  {'flag':<{KEY_CELLS}}{'value':<{VALUE_CELLS}} {'set by':<{WHO_CELLS}} ver last reason"
    return fit((Span(titles, "muted"),), cells)


def rows(view: View, cursor: int, cells: int, height: int) -> list[Spans]:
    """Each flag, as many as there is room for around the cursor."""
    shown = around(cursor, len(CATALOG), height)
    return [row(view, CATALOG[index], cells, cursor=index == cursor) for index in shown]


def around(cursor: int, count: int, height: int) -> range:
    """Which rows are seen, so that the cursor's is one of them."""
    first = max(0, min(cursor - height // 2, count - height))
    return range(first, min(count, first + height))


def row(view: View, known: Flag, cells: int, *, cursor: bool) -> Spans:
    """One flag: its value, who set it, and version and reason of its last decision."""
    value = view.flags.get(known.key, known.safe)
    decided = last_decision(view, known.key)
    evaluation = decided[1] if decided else {}
    version = "-" if evaluation.get("version") is None else f"v{evaluation['version']}"
    return fit(
        (
            Span("▶ " if cursor else "  ", "title"),
            Span(f"{known.key:<{KEY_CELLS}}", "title" if cursor else "plain"),
            *fit(value_words(value, known.safe), VALUE_CELLS),
            Span(" "),
            *fit(set_by(view, known.key), WHO_CELLS),
            Span(f" {version:>3} ", "plain" if decided else "muted"),
            Span(reason_words(evaluation) if decided else "-", "muted"),
        ),
        cells,
    )


def detail(view: View, key: str, draft: FlagDraft, cells: int, lines: int) -> list[Spans]:
    """The flag under the cursor in full; at most so many lines."""
    summary = _summary(FLAGS[key])
    said: list[list[Spans]] = [[summary, summary[:1]], [_rollout(view, key, draft, cells)]]
    said += [[each, each[:2]] for each in _cohort(view, key, draft)]
    said += [[_story(view, key), ()]] if draft == draft_of(view, key) else []
    return whole(said, cells, lines)


def _summary(known: Flag) -> Spans:
    read = f" Read at {known.read}." if known.read != "at resume" else " Read at a resume: a guest keeps what it got."
    inert = "" if known.effect else " This engine does nothing about it."
    return (Span(f" {known.summary}"), Span(read + inert, "muted"))


def _rollout(view: View, key: str, draft: FlagDraft, cells: int) -> Spans:
    is_set = draft == draft_of(view, key)
    label = Span(" rollout ", "muted")
    percent = Span(f"◂ {draft.percent:g}% by {draft.by} ▸ ", "title" if is_set else "warn")
    hint = Span("" if is_set else " ⏎ sets it", "warn")
    room = max(5, min(50, cells - width((label, percent, hint)) - 2))
    done = round(room * draft.percent / 100)
    return (label, percent, Span("━" * done, "busy" if is_set else "warn"), Span("─" * (room - done), "muted"), hint)


def _cohort(view: View, key: str, draft: FlagDraft) -> list[Spans]:
    now = cohort_now(view, key)
    count = len(view.sandboxes)
    if now is None:
        return [(Span(" cohort  ", "muted"), Span("the source's own rules decide; the last pauses show what they say"))]
    said: list[Spans] = [(Span(" cohort  ", "muted"), Span(f"{len(now)} of {count}", "title"), _names(now))]
    if draft != draft_of(view, key):
        then = cohort_of(key, as_written(draft.value), fleet_of(view.sandboxes.values()), contexts_now(view))
        said.append(
            (Span(f" at {draft.percent:g}%  ", "muted"), Span(f"{len(then)} of {count}", "warn"), *_step(now, then))
        )
    return said


def _step(now: Sequence[str], then: Sequence[str]) -> Spans:
    had, have = set(now), set(then)
    joins = [name for name in then if name not in had]
    leaves = [name for name in now if name not in have]
    said = [_moves(joins, "joins", "join"), _names(joins)] if joins else []
    said += [_moves(leaves, "leaves", "leave"), _names(leaves)] if leaves else []
    return tuple(said) or (Span(": the same", "muted"),)


def _moves(names: Sequence[str], one: str, many: str) -> Span:
    return Span(f"; {len(names)} {one if len(names) == 1 else many}", "plain")


def _names(names: Sequence[str]) -> Span:
    if not names:
        return Span("")
    shown = ", ".join(names[:8]) + (f" … {names[-1]}" if len(names) > 8 else "")
    return Span(f": {shown}", "plain")


def _story(view: View, key: str) -> Spans:
    change, decided = view.flag_changes.get(key), last_decision(view, key)
    parts: list[Span] = []
    if change is not None:
        tone: Tone = "plain" if change.effective else "bad"
        unheard = "" if change.effective else ", and the node does not receive it"
        parts.append(Span(f" set by the {change.by} at {change.t:.1f} s{unheard}.", tone))
    if decided is not None:
        pause, evaluation = decided
        value = words.flag_value(evaluation.get("value"))
        why = f"{reason_words(evaluation)}, source {evaluation.get('source_state', '?')}"
        parts.append(Span(f" last decided {value} for {pause.sandbox} at {pause.began:.1f} s: {why}.", "muted"))
    return tuple(parts) or (Span(" never set here, and decided by no pause yet.", "muted"),)


Fleet = tuple[SandboxAttributes, ...]


def fleet_of(sandboxes: Iterable[SandboxView]) -> Fleet:
    """What flags are evaluated for."""
    return tuple(SandboxAttributes(each.name, each.template, each.team, each.cluster) for each in sandboxes)


def cohort_now(view: View, key: str) -> tuple[str, ...] | None:
    """The sandboxes that the flag is on for; None where the source's own rules decide, which are not known here."""
    if key in view.flags:
        return cohort_of(key, view.flags[key], fleet_of(view.sandboxes.values()), contexts_now(view))
    if view.run is not None and view.run.flag_source in {"file", "launchdarkly"}:
        return None
    return cohort_of(key, FLAGS[key].safe, fleet_of(view.sandboxes.values()), contexts_now(view))


def contexts_now(view: View) -> Any:
    """Which kinds a flag is evaluated for in this run, as a scenario writes it."""
    return view.run.contexts if view.run is not None else ORIGINAL.written


def cohort_of(key: str, written: Any, fleet: Fleet, contexts: Any = ORIGINAL.written) -> tuple[str, ...]:
    """Sandboxes that a value, as a scenario writes it, is on for, in the fleet's order."""
    return _evaluated(key, json.dumps(written), fleet, json.dumps(contexts))


@lru_cache(maxsize=256)
def _evaluated(key: str, written: str, fleet: Fleet, contexts: str) -> tuple[str, ...]:
    from flags.cohort import (
        Member,
        cohort,  # it imports the LaunchDarkly SDK, which takes a while
    )

    flags = {key: flag_from(key, from_written(json.loads(written)))}
    found = cohort((flags, {}), key, map(Member, fleet), contexts_of(json.loads(contexts)))
    return tuple(each.attributes.sandbox for each in found)
