"""Ledger entries as sentences a person reads; None for what is too fine-grained to tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine import events as engine_events
from engine.events import Event
from sim import events
from sim.ledger import Entry
from sim.tui.spans import Tone

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"


@dataclass(frozen=True, slots=True)
class Sentence:
    """What happened, to whom (sandboxes; empty for the run as a whole), and when: seconds since the run began."""

    t: float
    subjects: tuple[str, ...]
    words: str
    tone: Tone = "plain"

    @property
    def text(self) -> str:
        """`web-3 condemned: point of no return`; many subjects are counted, the ends of the list named."""
        if not self.subjects:
            return self.words
        return f"{_names(self.subjects)} {self.words}"

    def joined(self, later: Sentence) -> Sentence | None:
        """One sentence for two that say the same of different sandboxes; None where they do not."""
        if not self.subjects or not later.subjects or (self.words, self.tone) != (later.words, later.tone):
            return None
        return Sentence(later.t, self.subjects + later.subjects, self.words, self.tone)


def _names(names: tuple[str, ...]) -> str:
    if len(names) < 4:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} … {names[-1]} ({len(names)})"


def sentence(entry: Entry) -> Sentence | None:
    """What the entry says."""
    said = _of_a_run(entry.event) if entry.sandbox is None else _of_a_sandbox(entry.event)
    if said is None:
        return None
    words, tone = said
    return Sentence(entry.t, () if entry.sandbox is None else (entry.sandbox,), words, tone)


Said = tuple[str, Tone] | None


def _of_a_run(event: Event) -> Said:
    match event:
        case events.RunStarted(name=name, seed=seed, budget=budget):
            return f"run {name} began: seed {seed}, memory budget {mib(budget)} MiB", "muted"
        case events.NodeStarted(recovered=recovered):
            return ("node restarted, and recovered what the crash left" if recovered else "node started"), "good"
        case events.NodeCrashed():
            return "node crashed: ended by SIGKILL", "bad"
        case events.Ticked(tick):
            return f"tick {tick}: every running guest rewrote its working set", "muted"
        case events.Judged() as judged:
            return f"judged: {judgement(judged)}", verdict_tone(judged.verdict)
        case events.RunEnded(verdict=verdict):
            return f"run ended: {verdict.upper()}", verdict_tone(verdict)
    return _of_the_setting(event)


def _of_the_setting(event: Event) -> Said:
    match event:
        case events.FlagSet(flag, value, effective=False):
            return f"flag {flag} is now {flag_value(value)}, and the node does not hear of it", "warn"
        case events.FlagSet(flag, value):
            return f"flag {flag} is now {flag_value(value)}", "busy"
        case events.OutageBegan(outage, detail):
            return f"flag source fails: {outage}{f' ({detail})' if detail else ''}", "bad"
        case events.OutageEnded():
            return "flag source is sound again, and the node has every flag", "good"
        case events.FlagSourceChanged(state, error):
            return f"flag client is {state}{f': {error}' if error else ''}", "good" if state == "VALID" else "warn"
        case events.FaultArmed(_, fault, error, at, sandboxes):
            return f"fault armed: {fault_words(fault, error, at, sandboxes)}", "warn"
        case events.FaultsCleared():
            return "faults cleared: nothing is armed", "busy"
    return None


def judgement(judged: events.Judged) -> str:
    """`never_resumed violated: web-0 ran again (and 2 more)`; what held says how much was checked."""
    subject = judged.subject.removeprefix("invariant:")
    if not judged.violations:
        return f"{subject} {judged.verdict}: {judged.checked} checked"
    first, more = judged.violations[0], len(judged.violations) - 1
    who = "" if first.get("sandbox", "*") == "*" else f"{first['sandbox']} "
    return f"{subject} {judged.verdict}: {who}{first.get('reason', '')}{f' (and {more} more)' if more else ''}"


def _of_a_sandbox(event: Event) -> Said:
    match event:
        case events.SandboxCreated(memory=memory):
            return f"created: {mib(memory)} MiB", "muted"
        case events.Decided(flags):
            return decision_words(flags), "calm"
        case events.PauseSettled() as settled:
            return _settled(settled)
        case events.Resumed(build=build, resume_ms=resume_ms):
            return f"resumed as a new guest from build {build} in {ms(resume_ms)}", "good"
        case events.RequestRefused(request, reason):
            return f"{request} refused: {reason}", "bad"
        case events.FaultFired(_, fault, error, chunk):
            at = "" if chunk is None else f" at chunk {chunk}"
            return f"fault fired: {fault} {error}{at}", "warn"
        case events.StateChanged(old, new, reason):
            return _state(old, new, reason)
    return _of_the_engine(event)


def _of_the_engine(event: Event) -> Said:
    match event:
        case engine_events.Condemned():
            return "condemned: point of no return", "warn"
        case engine_events.CondemnFailed(error):
            return f"not condemned, so nothing will be punched: {error}", "warn"
        case engine_events.PunchFailed(chunk, error):
            return f"punch{_of_chunk(chunk)} failed, punching ends, the bytes are safe: {error}", "warn"
        case engine_events.Retried(call, error, attempt):
            return f"{call} is tried again (attempt {attempt}): {error}", "muted"
        case engine_events.CopyFailed(_, "teardown", error):  # of any other call the new state tells
            return f"teardown failed: {error}", "bad"
        case engine_events.CacheDeleted():
            return "partial cache deleted", "muted"
    return None


_STATE_TONES: dict[str, Tone] = {
    "running": "good",
    "paused": "calm",
    "discarded": "bad",
    "killed": "muted",
}


def _state(old: str, new: str, reason: str) -> Said:
    because = f": {reason}" if reason else ""
    match old, new:
        case (_, "discarded" | "killed") | ("pausing", "paused"):
            return f"{new}{because}", _STATE_TONES[new]
        case "pausing", "running":
            return f"runs on{because}", "warn"
        case "resuming", "paused":
            return f"stays paused{because}", "warn"
        case ("resuming", "running") | (_, "pausing"):
            return None  # the resume, and the decision of the pause, say more
    return new, _STATE_TONES.get(new, "muted")


def _settled(settled: events.PauseSettled) -> Said:
    if settled.outcome != "finished":
        return None  # the failed call and the new state say it
    copied = f" {mib(settled.dirty_bytes)} MiB" if settled.dirty_bytes is not None else ""
    took = f" in {ms(settled.copy_ms)}" if settled.copy_ms is not None else ""
    peak = f", peak {ratio(settled.peak_ratio)}" if settled.peak_ratio is not None else ""
    return f"copied{copied}{took}{peak}, punched {mib(settled.punched_bytes)} MiB", "good"


def decision_words(flags: Mapping[str, Mapping[str, Any]]) -> str:
    """`pausing, decided: punch on (fallthrough), background copy off (off)`."""
    names = {PUNCH: "punch", BACKGROUND: "background copy"}
    said = [f"{names[key]} {on_off(flags[key]['value'])} ({reason(flags[key])})" for key in names if key in flags]
    return f"pausing, decided: {', '.join(said)}"


def reason(evaluation: Mapping[str, Any]) -> str:
    """LaunchDarkly's reason in words: `fallthrough`, `rule match`, `error: flag not found`."""
    return str(evaluation.get("reason", "")).lower().replace("_", " ").replace(":", ": ")


def on_off(value: bool) -> str:
    """What a switch says."""
    return "on" if value else "off"


def flag_value(value: Any) -> str:
    """A flag's value as a person says it: `on`, `off`, `on for 50% by sandbox`."""
    if isinstance(value, Mapping):
        share = value.get("rollout", value.get("percent"))
        share = share if isinstance(share, str) else f"{share:g}%"
        return f"on for {share} by {value.get('by', 'sandbox')}"
    return on_off(value)


def fault_words(fault: str, error: str, at: str, sandboxes: str) -> str:
    """`copy.write ENOSPC at chunk 3 on web-3`."""
    return f"{fault} {error} {place(at)} on {'every sandbox' if sandboxes == '*' else sandboxes}"


def place(at: str) -> str:
    """Where in a pause a fault waits, in words."""
    known = {"first": "at the first chunk", "last": "at the last chunk", "after_condemn": "after condemn"}
    return known.get(at, f"at {at}")


def verdict_tone(verdict: str) -> Tone:
    """Held is good, violated is bad, all else is not known."""
    tones: dict[str, Tone] = {"held": "good", "violated": "bad"}
    return tones.get(verdict, "warn")


def mib(size: int) -> str:
    """Bytes as MiB: a whole number from 10 up or where it is exact, else one decimal."""
    value = size / (1 << 20)
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def ms(milliseconds: float) -> str:
    """`12 ms`; one decimal below 10."""
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def ratio(value: float) -> str:
    """`1.03x`."""
    return f"{value:.2f}x"


def _of_chunk(chunk: int | None) -> str:
    return "" if chunk is None else f" of chunk {chunk}"


def one_line(error: BaseException) -> str:
    """The first line of an error, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
