"""The fold: ledger entries in, one frozen view of the fleet out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from engine import events as engine_events
from sim.record import events, source_events
from sim.record.codes import punch_code
from sim.record.ledger import Entry
from sim.record.replacing import replace
from sim.record.rollout_view import next_rollout
from sim.record.stages import OWN_PACE, Pace, Sample, next_track, thinned
from sim.record.view import (
    PUNCH,
    FaultView,
    FlagChange,
    MemoryView,
    PauseView,
    SandboxView,
    SourceView,
    Switch,
    View,
    next_source,
    on_for_some,
)

LOG_LENGTH = 500
PEAKS = 8
MOST_SAMPLES = 1000


class Fold:
    """Applies entries one by one; `view` is a frozen copy of the result so far."""

    def __init__(self) -> None:
        self._view = View()
        self._t = 0.0
        self._sandboxes: dict[str, SandboxView] = {}
        self._pauses: dict[str, PauseView] = {}
        self._faults: dict[int, FaultView] = {}
        self._flags: dict[str, Any] = {}
        self._flag_changes: dict[str, FlagChange] = {}
        self._switches: list[Switch] = []
        self._samples: tuple[Sample, ...] = ()
        self._log: deque[Entry] = deque(maxlen=LOG_LENGTH)

    def apply(self, entries: Iterable[Entry]) -> int:
        """Fold the entries in; returns how many there were."""
        count = 0
        for entry in entries:
            self._log.append(entry)
            self._t = max(self._t, entry.t)
            if entry.pause is not None and entry.sandbox is not None:
                self._apply_to_pause(entry.pause, entry.sandbox, entry)
            if entry.sandbox is not None:
                self._apply_to_sandbox(entry.sandbox, entry)
            self._apply_to_run(entry)
            if isinstance(entry.event, events.MemorySampled):
                memory = self._view.memory
                sample = Sample(entry.t, memory.guests + memory.hugetlb, memory.caches)
                self._samples = thinned((*self._samples, sample), MOST_SAMPLES)
            count += 1
        return count

    def view(self) -> View:
        """A frozen copy of everything known."""
        return replace(
            self._view,
            t=self._t,
            sandboxes=dict(self._sandboxes),
            pauses=tuple(self._pauses.values()),
            faults=tuple(self._faults.values()),
            flags=dict(self._flags),
            flag_changes=dict(self._flag_changes),
            switches=tuple(self._switches),
            samples=self._samples,
            log=tuple(self._log),
        )

    def _apply_to_pause(self, pause_id: str, sandbox: str, entry: Entry) -> None:
        pause = self._pauses.get(pause_id) or PauseView(pause_id, sandbox, entry.t)
        track = next_track(pause.track, entry)
        pause = _next_pause(pause if track is pause.track else replace(pause, track=track), entry)
        self._pauses[pause_id] = pause
        if sandbox in self._sandboxes:
            self._sandboxes[sandbox] = replace(self._sandboxes[sandbox], pause=pause)

    def _apply_to_sandbox(self, name: str, entry: Entry) -> None:
        match entry.event:
            case events.SandboxCreated() as made:
                self._sandboxes[name] = SandboxView(
                    name, made.memory, made.page_size, made.block_size, made.template, made.team, made.cluster
                )
            case events.PaceSet(factor, held) if name in self._sandboxes:
                self._sandboxes[name] = replace(self._sandboxes[name], pace=Pace(factor, held))
            case _ if name in self._sandboxes:
                self._sandboxes[name] = _next_sandbox(self._sandboxes[name], entry)
            case _:
                pass

    def _apply_to_run(self, entry: Entry) -> None:
        match entry.event:
            case events.FlagSet(flag, value) as changed:
                self._flags[flag] = value
                self._flag_changes[flag] = FlagChange(entry.t, changed.by, changed.effective)
                if flag == PUNCH:
                    self._switch(Switch(entry.t - (changed.took_ms or 0.0) / 1e3, on_for_some(value), changed.took_ms))
            case events.StateChanged(new="resuming"):
                self._read(entry, came_at=entry.t)
            case events.Resumed(resume_ms=took):
                self._read(entry, waited_ms=took)
            case source_events.OutageEnded():
                self._flag_changes = {key: replace(each, effective=True) for key, each in self._flag_changes.items()}
                self._view = _next_run(self._view, entry)
            case events.FaultArmed(fault_id, fault, error, at, sandboxes):
                kernel = entry.event.by_kernel
                self._faults[fault_id] = FaultView(fault_id, fault, error, at, sandboxes, by_kernel=kernel)
            case events.FaultFired(fault_id) if fault_id in self._faults:
                self._faults[fault_id] = _fired(self._faults[fault_id], entry.sandbox or "")
            case events.FaultsCleared():
                self._faults.clear()
            case events.NodeCrashed():
                self._at_own_pace()
                self._view = _next_run(self._view, entry)
            case _:
                self._view = _next_run(self._view, entry)

    def _read(self, entry: Entry, *, came_at: float | None = None, waited_ms: float | None = None) -> None:
        """The first resume after a sandbox's newest pause."""
        sandbox = self._sandboxes.get(entry.sandbox or "")
        pause = sandbox.pause if sandbox is not None else None
        if pause is None or (pause.reader_came_at if waited_ms is None else pause.reader_waited_ms) is not None:
            return
        came = pause.reader_came_at if came_at is None else came_at
        self._pauses[pause.id] = replace(pause, reader_came_at=came, reader_waited_ms=waited_ms)
        self._sandboxes[pause.sandbox] = replace(self._sandboxes[pause.sandbox], pause=self._pauses[pause.id])

    def _at_own_pace(self) -> None:
        """A restarted node does not know the paces that were set before."""
        for name, sandbox in self._sandboxes.items():
            if sandbox.pace.set:
                self._sandboxes[name] = replace(sandbox, pace=OWN_PACE)

    def _switch(self, switch: Switch) -> None:
        """Each change once; a flag that is off before the first step was never turned off."""
        known = self._switches[-1].on if self._switches else self._view.step is not None and not switch.on
        if known != switch.on:
            self._switches.append(switch)


def _fired(fault: FaultView, sandbox: str) -> FaultView:
    fired_on = fault.fired_on | {sandbox: fault.fired_on.get(sandbox, 0) + 1}
    return replace(fault, fired=fault.fired + 1, fired_on=fired_on)


def _next_run(view: View, entry: Entry) -> View:
    match entry.event:
        case events.RunStarted() as run:
            return replace(view, run=run, memory=replace(view.memory, budget=run.budget))
        case events.NodeStarted(pid):
            return replace(view, node="up", node_pid=pid, source=SourceView(outage=view.source.outage))
        case events.NodeCrashed():
            return replace(view, node="crashed")
        case events.Ticked(tick):
            return replace(view, tick=tick)
        case events.StepStarted() as step:
            return replace(view, step=step)
        case events.MemorySampled() as sample:
            return replace(view, memory=_next_memory(view.memory, sample))
        case (
            source_events.FlagSourceChanged()
            | source_events.OutageBegan()
            | source_events.OutageEnded()
            | source_events.LeaseMeasured()
        ):
            return replace(view, source=next_source(view.source, entry))
        case events.Judged() as judged:
            return replace(view, judged=(*view.judged, judged))
        case events.RunEnded() as ended:
            return replace(view, ended=ended)
    rollout = next_rollout(view.rollout, entry)
    return view if rollout is view.rollout else replace(view, rollout=rollout)


def _next_memory(memory: MemoryView, sample: events.MemorySampled) -> MemoryView:
    now = sample.guests + sample.hugetlb + sample.caches
    return MemoryView(
        guests=sample.guests,
        caches=sample.caches,
        peak=max(memory.peak, now),
        planned=sample.planned,
        budget=memory.budget,
        hugetlb=sample.hugetlb,
        page_cache=sample.page_cache,
        peak_with_page_cache=max(memory.peak_with_page_cache, now + sample.page_cache),
    )


def _next_sandbox(sandbox: SandboxView, entry: Entry) -> SandboxView:
    match entry.event:
        case events.StateChanged(_, new, reason, stop_reason):
            gone = new in {"paused", "discarded", "killed"}
            pid = None if gone else sandbox.pid
            resident = 0 if gone and sandbox.pause and sandbox.pause.settled_at else sandbox.resident
            cached = (
                0 if new == "discarded" else sandbox.cached
            )  # a recovery deletes what a crash left and records no event for it
            found = replace(sandbox, pid=pid, resident=resident, cached=cached)
            return replace(found, state=new, reason=reason, stop_reason=stop_reason, refused=None)
        case events.GuestSpawned() | events.GuestMeasured() | events.VmEnded():
            return _next_guest(sandbox, entry.event)
        case engine_events.ChunkPublished() as published:
            return _copied_on(sandbox, published)
        case engine_events.ChunkPunched(freed=freed) | engine_events.CleanPagesPunched(freed=freed):
            return replace(sandbox, punched=max(sandbox.punched, freed))  # two workers may report it out of order
        case events.GuestEnded(incarnation) if incarnation == sandbox.incarnation:
            return replace(sandbox, resident=0)
        case engine_events.CacheDeleted():
            return replace(sandbox, cached=0)
        case events.PauseSettled() as settled:
            return _pause_ended(sandbox, settled)
        case events.RequestRefused() as refused:
            return replace(sandbox, refused=refused)
    return sandbox


def _next_guest(
    sandbox: SandboxView, event: events.GuestSpawned | events.GuestMeasured | events.VmEnded
) -> SandboxView:
    match event:
        case events.GuestSpawned() as made:
            return replace(
                sandbox,
                incarnation=made.incarnation,
                pid=made.pid,
                tracker=made.tracker,
                guest=made.guest,
                vm_end=None,
                build=made.build,
                resident=0,
                cached=0,
                punched=0,
            )
        case events.GuestMeasured(resident):
            return replace(sandbox, resident=resident)
        case events.VmEnded() as end:
            return replace(sandbox, vm_end=end)


def _copied_on(sandbox: SandboxView, published: engine_events.ChunkPublished) -> SandboxView:
    """Two workers may report out of order; while a guest is frozen its memory only falls and the cache only grows."""
    if sandbox.pause is not None and sandbox.pause.incarnation not in {"", sandbox.incarnation}:
        return sandbox  # it was resumed since: that memory is its predecessor's
    source = published.source_resident
    resident = sandbox.resident if source is None else min(sandbox.resident, source)
    cached = max(sandbox.cached, published.cache_resident)
    return replace(sandbox, resident=resident, cached=cached)


def _pause_ended(sandbox: SandboxView, settled: events.PauseSettled) -> SandboxView:
    nothing = settled.peak_ratio is None or settled.dirty_bytes == 0  # a copy of nothing has no peak
    peaks = sandbox.peaks if nothing else (*sandbox.peaks, settled.peak_ratio or 0.0)[-PEAKS:]
    if settled.outcome != "finished":
        return replace(sandbox, peaks=peaks)
    return replace(sandbox, peaks=peaks, build=settled.build, reason="its memory is in a finished build")


def _next_pause(pause: PauseView, entry: Entry) -> PauseView:
    match entry.event:
        case events.Decided() | events.GuestFrozen() | events.SuccessorSpawned():
            return _begun(pause, entry.event)
        case engine_events.Planned(path, punch, reason, chunks, dirty, notes, code):
            pause = replace(pause, path=path, punch=punch, punch_reason=reason, punch_code=punch_code(code, reason))
            return replace(pause, chunks=chunks, dirty_bytes=dirty, notes=tuple(notes))
        case engine_events.ChunkPublished(length=length, source_resident=source, cache_resident=cached):
            published, held = pause.published_bytes + length, 0 if source is None else source + cached
            peak = max(pause.peak, held)
            return replace(pause, published=pause.published + 1, published_bytes=published, peak=peak)
        case engine_events.CleanPagesPunched(freed=freed):
            return replace(pause, punched_bytes=max(pause.punched_bytes, freed))
        case engine_events.ChunkPunched(freed=freed):
            punched = max(pause.punched_bytes, freed)
            return replace(pause, punched_chunks=pause.punched_chunks + 1, punched_bytes=punched)
        case engine_events.Condemned():
            return replace(pause, condemned_at=pause.condemned_at or entry.t)
        case engine_events.Stranded() as strand:
            return replace(pause, strand=strand)
        case events.PauseReturned(blocked_ms, condemned):
            return replace(pause, returned_at=entry.t, blocked_ms=blocked_ms, answered=condemned)
        case events.PauseSettled() as settled:
            return _settled(pause, settled, entry.t)
    return pause


def _begun(pause: PauseView, event: events.Decided | events.GuestFrozen | events.SuccessorSpawned) -> PauseView:
    match event:
        case events.Decided(flags):
            return replace(pause, decision=flags)
        case events.GuestFrozen(incarnation):
            return replace(pause, incarnation=incarnation)
        case events.SuccessorSpawned(incarnation):
            return replace(pause, successor=incarnation)


def _settled(pause: PauseView, settled: events.PauseSettled, t: float) -> PauseView:
    return replace(
        pause,
        settled_at=t,
        settled=settled,
        path=settled.path,
        punch=settled.punch,
        punch_reason=settled.punch_reason,
        punch_code=punch_code(settled.punch_code, settled.punch_reason),
        dirty_bytes=settled.dirty_bytes,
        punched_bytes=max(pause.punched_bytes, settled.punched_bytes),  # a recovering node does not know
        condemned_at=t if settled.condemned and pause.condemned_at is None else pause.condemned_at,
        blocked_ms=settled.blocked_ms,
    )
