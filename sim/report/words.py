"""Ledger entries as English sentences, and sizes, times, flag values and decisions as people read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine import events as copying
from engine.events import Event
from sim import events
from sim.ledger import Entry

SAMPLES = (events.MemorySampled, events.GuestMeasured)
"""Events that measure and tell no story."""


def sentence(entry: Entry) -> str:
    """One entry as a sentence without its time; the sandbox, where there is one, comes first."""
    who = entry.sandbox or "the node"
    for group in (_of_copy, _of_its_end, _of_guest, _of_pause, _of_fault):
        if text := group(who, entry.event):
            return text
    if text := _of_node(entry.event) or _of_run(entry.event):
        return text
    return f"{who}: {entry.name.replace('_', ' ')}"


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


def times(count: int) -> str:
    """`once`, `12 times`."""
    return "once" if count == 1 else f"{count} times"


def plural(count: int, one: str, many: str = "") -> str:
    """`1 pause`, `6 pauses`; `many` where it is not `one` with an s."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def flag_value(value: Any) -> str:
    """A flag's value: `on`, `off`, or a rollout's parts: `rollout 50%, by sandbox`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)


_NOT_SERVED = "ERROR:FLAG_NOT_FOUND"


def decision(flags: Mapping[str, Mapping[str, Any]]) -> str:
    """Every flag that was served, with its value and reason: `memfd-background-copy on (FALLTHROUGH)`."""
    served = {key: each for key, each in flags.items() if each.get("reason") != _NOT_SERVED}
    parts = [f"{key} {flag_value(each.get('value'))} ({each.get('reason')})" for key, each in served.items()]
    if flags and len(served) < len(flags):
        parts.append("the rest as by default")
    return ", ".join(parts) or "none"


def _of_copy(who: str, event: Event) -> str | None:
    match event:
        case copying.Scanned(tracker=tracker, dirty_bytes=dirty, resident_bytes=resident, scan_ms=ms):
            of = "" if resident is None else f" of {size(resident)} resident"
            return f"{who}: {size(dirty)}{of} is dirty ({tracker}, {ms:.1f} ms)"
        case copying.Compared(stored=stored, zero=zero, equal=equal, compare_ms=ms):
            left_out = f"{size(equal)} as in the parent, {size(zero)} zero"
            return f"{who}: of the dirty pages {size(stored)} is stored; {left_out} ({ms:.1f} ms)"
        case copying.Planned(path=path, punch=punch, punch_reason=reason, chunks=chunks, dirty_bytes=dirty):
            will = "will punch" if punch else "will not punch"
            return f"{who}: path {path}, {plural(chunks, 'chunk')}, {size(dirty)}; {will}: {reason}"
        case copying.ChunkPublished(chunk=chunk, length=length, source_resident=source, cache_resident=cache):
            memfd = "" if source is None else f"memfd {size(source)}, "
            return f"{who}: chunk {chunk} is published ({size(length)}); {memfd}cache {size(cache)}"
        case copying.ChunkPunched(chunk=chunk, freed=freed):
            return f"{who}: chunk {chunk} is punched; {size(freed)} of the memfd freed so far"
        case copying.CleanPagesPunched(length=length, freed=freed):
            return f"{who}: {size(length)} that no snapshot is owed is punched; {size(freed)} freed so far"
        case copying.Retried(call, error, attempt):
            return f"{who}: {call} is tried again after {error} (attempt {attempt})"
    return None


def _of_its_end(who: str, event: Event) -> str | None:
    match event:
        case copying.Condemned(build):
            return f"{who} is condemned: this incarnation may never run again (build {build})"
        case copying.CondemnFailed(error):
            return f"{who}: the condemned record could not be written ({error}), so nothing is punched"
        case copying.PunchFailed(chunk, error):
            what = "clean pages" if chunk is None else f"chunk {chunk}"
            return f"{who}: punching {what} failed ({error}); the bytes are safe and punching ends"
        case copying.CopyFailed(chunk=chunk, call=call, error=error, condemned=condemned):
            at = "" if chunk is None else f" at chunk {chunk}"
            then = "after condemn: it is discarded" if condemned else "before condemn: nothing is lost"
            return f"{who}: the pause failed in {call}{at} ({error}), {then}"
        case copying.BuildFinished(build=build, length=length, copy_ms=ms):
            return f"{who}: build {build} is finished ({size(length)}, {ms:.1f} ms)"
        case copying.CacheDeleted(build):
            return f"{who}: the partial cache of build {build} is deleted"
    return None


def _of_guest(who: str, event: Event) -> str | None:
    match event:
        case events.SandboxCreated(memory=memory, page_size=page_size, template=template):
            return f"{who} is created from {template}: {size(memory)} in pages of {size(page_size)}"
        case events.GuestSpawned(incarnation, pid, tracker=tracker, build=build):
            source = f" from build {build}" if build else ""
            return f"{who} has a new guest{source}: {incarnation}, pid {pid}, tracked by {tracker}"
        case events.GuestFrozen(incarnation, ms):
            return f"{who} is frozen ({incarnation}, {ms:.1f} ms)"
        case events.GuestThawed(incarnation):
            return f"{who} runs on ({incarnation})"
        case events.GuestEnded(incarnation, why):
            return f"{who}: the guest is dead ({incarnation}): {why}"
        case events.GuestMeasured(resident):
            return f"{who} holds {size(resident)}"
    return None


def _of_pause(who: str, event: Event) -> str | None:
    match event:
        case events.StateChanged(old, new, reason):
            return f"{who}: {old} -> {new}" + (f" ({reason})" if reason else "")
        case events.Decided(flags):
            return f"{who}: decided {decision(flags)}"
        case events.PauseReturned(ms, condemned):
            return f"{who}: the pause answered after {ms:.1f} ms" + (", condemned" if condemned else "")
        case events.PauseSettled():
            return _settled(who, event)
        case events.Resumed(incarnation=incarnation, build=build, written=written, resume_ms=ms):
            return f"{who} is resumed from build {build} ({incarnation}, {size(written)} filled, {ms:.1f} ms)"
        case events.RequestRefused(request, reason):
            return f"{who}: {request} is refused: {reason}"
    return None


def _settled(who: str, event: events.PauseSettled) -> str:
    outcome = {"rolled-back": "rolled back"}.get(event.outcome, event.outcome)
    parts = [f"{who}: the pause is {outcome}"]
    if event.peak_over is not None:
        ratio = "" if event.peak_ratio is None else f" ({event.peak_ratio:.2f}x)"
        parts.append(f"peak +{size(event.peak_over)}{ratio}")
    if event.punched_bytes:
        parts.append(f"{size(event.punched_bytes)} freed")
    if event.error:
        parts.append(event.error)
    return ", ".join(parts)


def _of_fault(who: str, event: Event) -> str | None:
    match event:
        case events.FlagSet(flag, value, effective):
            return f"flag {flag} is set: {flag_value(value)}" + ("" if effective else "; the node does not hear of it")
        case events.OutageBegan(outage, detail):
            return f"the flag source fails: {outage}" + (f" ({detail})" if detail else "")
        case events.OutageEnded():
            return "the flag source is sound again, and the node has every flag"
        case events.FlagSourceChanged(state, error):
            return f"the node's flag client is {state}" + (f": {error}" if error else "")
        case events.FaultArmed(number, fault, error, at, sandboxes):
            return f"fault {number} is armed: {fault} gives {error} at {at} in {sandboxes}"
        case events.FaultFired(number, fault, error, chunk):
            at = "" if chunk is None else f" at chunk {chunk}"
            return f"{who}: fault {number} fires: {fault} gives {error}{at}"
        case events.FaultsCleared():
            return "no fault is armed any more"
    return None


def _of_node(event: Event) -> str | None:
    match event:
        case events.NodeStarted(pid, recovered=recovered):
            return f"the node is up{' again' if recovered else ''}, pid {pid}"
        case events.NodeCrashed(pid):
            return f"the node is killed, pid {pid}"
        case events.Ticked(tick):
            return f"tick {tick}"
        case events.MemorySampled(guests=guests, caches=caches, planned=planned):
            return f"the node holds {size(guests)} of guests and {size(caches)} of caches; {size(planned)} is granted"
    return None


def _of_run(event: Event) -> str | None:
    match event:
        case events.RunStarted():
            wrong = f", with the wrong engine {event.mutant}" if event.mutant else ""
            return f"run {event.run} of {event.name} begins, seed {event.seed}{wrong}"
        case events.StepStarted(index, step, line):
            return f"step {index}: {step} (line {line})"
        case events.StepEnded(index):
            return f"step {index} is over"
        case events.Judged(subject, verdict, checked):
            return f"{subject}: {verdict}, checked {times(checked)}"
        case events.RunEnded(verdict):
            return f"the run ends: {verdict}"
    return None
