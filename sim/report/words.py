"""Sizes, times, decisions, refusals and judgements in a few words; sentences.py makes events into sentences of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from engine.printable import escaped, not_a_command
from sim.record import events
from sim.record.view import BACKGROUND, PUNCH

Tone = Literal["plain", "muted", "good", "calm", "busy", "warn", "bad", "condemned"]
"""What a sentence means; a screen's theme decides how that looks."""

_REFUSALS = {"discarded": "it was discarded and can never run again", "killed": "it was killed"}


def refusal(refused: events.RequestRefused) -> str:
    """Why a request was refused, in short."""
    return _REFUSALS.get(refused.code or "", refused.reason)


def judgement(judged: events.Judged) -> str:
    """`never_resumed violated: web-0 ran again (and 2 more)`; for a held rule, how often it was checked."""
    subject = judged.subject.removeprefix("invariant:")
    if not judged.violations:
        return f"{subject} {judged.verdict}: {judged.checked} checked"
    first, more = judged.violations[0], len(judged.violations) - 1
    sandbox = "" if first.get("sandbox", "*") == "*" else f"{first['sandbox']} "
    return f"{subject} {judged.verdict}: {sandbox}{first.get('reason', '')}{f' (and {more} more)' if more else ''}"


def verdict_tone(verdict: str) -> Tone:
    """Held is good, violated is bad, anything else is a warning."""
    tones: dict[str, Tone] = {"held": "good", "violated": "bad"}
    return tones.get(verdict, "warn")


def fault_words(fault: str, error: str, at: str, sandboxes: str) -> str:
    """`copy.write ENOSPC at chunk 3 on web-3`."""
    return f"{fault} {error} {place(at)} on {'every sandbox' if sandboxes == '*' else sandboxes}"


def vm_end(end: events.VmEnded) -> str:
    """How it ended: `KVM_EXIT_INTERNAL_ERROR, rip 0x1ffffff: the end of its memory`."""
    return f"KVM_EXIT_{end.exit}, rip {end.rip:#x}{': the end of its memory' if end.past_memory else ''}"


def vm_bytes(end: events.VmEnded) -> str:
    """What it was to go on with, and what was there instead."""
    return f"at {end.began:#x} it had {end.had}, and found {end.found}"


def place(at: str) -> str:
    """Where in a pause a fault waits, in words."""
    known = {"first": "at the first chunk", "last": "at the last chunk", "after_condemn": "after condemn"}
    return known.get(at, f"at {at}")


_NOT_SERVED = "ERROR:FLAG_NOT_FOUND"


def decision(flags: Mapping[str, Mapping[str, Any]]) -> str:
    """Every flag that was served, with its value and reason: `memfd-background-copy on (FALLTHROUGH)`."""
    served = {key: each for key, each in flags.items() if each.get("reason") != _NOT_SERVED}
    parts = [f"{key} {flag_value(each.get('value'))} ({each.get('reason')})" for key, each in served.items()]
    if flags and len(served) < len(flags):
        parts.append("the others at their defaults")
    return ", ".join(parts) or "none"


def decision_words(flags: Mapping[str, Mapping[str, Any]]) -> str:
    """`pausing, decided: punch on (fallthrough), background copy off (off)`."""
    names = {PUNCH: "punch", BACKGROUND: "background copy"}
    values = [f"{names[key]} {on_off(flags[key]['value'])} ({reason(flags[key])})" for key in names if key in flags]
    return f"pausing, decided: {', '.join(values) or 'every flag at its default'}"


def reason(evaluation: Mapping[str, Any]) -> str:
    """LaunchDarkly's reason in words: `fallthrough`, `rule match`, `error: flag not found`."""
    return str(evaluation.get("reason", "")).lower().replace("_", " ").replace(":", ": ")


def on_off(value: object) -> str:
    """`on` or `off`."""
    return "on" if value else "off"


def flag_value(value: Any) -> str:
    """A flag's value: `on`, `off`, a rollout: `on for 50% by sandbox`, or an object's parts: `enabled on`."""
    if not isinstance(value, Mapping):
        return on_off(value) if isinstance(value, bool) else str(value)
    share = value.get("rollout", value.get("percent"))
    if share is None:
        return ", ".join(f"{key} {flag_value(part)}" for key, part in value.items())
    return f"on for {share if isinstance(share, str) else f'{share:g}%'} by {value.get('by', 'sandbox')}"


def clock(t: float) -> str:
    """Seconds since the run began, as the column before a sentence: `   1.234 s`."""
    return f"{t:8.3f} s"


def size(count: int) -> str:
    """Bytes to one decimal: `512 B`, `32.0 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(amount) < 1024:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def mib(count: int) -> str:
    """Bytes as MiB: a whole number from 10 up or where it is exact, else one decimal."""
    value = count / (1 << 20)
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def ms(milliseconds: float) -> str:
    """`12 ms`; one decimal below 10."""
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def ratio(value: float) -> str:
    """`1.03x`."""
    return f"{value:.2f}x"


def times(count: int) -> str:
    """`once`, `12 times`."""
    return "once" if count == 1 else f"{count} times"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 pause`, `6 pauses`; `many` where it is not `one` with an s."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


_NAMED = 3


def named(names: Sequence[str], none: str) -> str:
    """`box-0, box-1, box-2 and 617 more`; `none` where there is none."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}" if names else none


def one_line(error: BaseException) -> str:
    """The first line of an error, or its class if it has no text."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


_LONGEST = 64 << 10  # characters


def scrub(text: str) -> str:
    """A text of any lines as a terminal, a page and XML may have it: nothing in it is obeyed, a huge one shortened."""
    return not_a_command(escaped(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"))
