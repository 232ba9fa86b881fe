"""Events as sentences: what happened, to which sandbox, and how it is meant."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine import events as copying
from engine.events import Event
from sim.files.wrong_engines import wrong_engine
from sim.record import events, rollout_events, source_events
from sim.record.ledger import Entry
from sim.record.stages import cell_words
from sim.report.words import (
    Tone,
    decision_words,
    fault_words,
    flag_value,
    judgement,
    mib,
    ms,
    plural,
    ratio,
    size,
    verdict_tone,
    vm_bytes,
    vm_end,
)

SAMPLES = (events.MemorySampled, events.GuestMeasured)
"""Events that only carry measurements."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What happened, to which sandboxes (none: to the run as a whole), and when: seconds since the run began.

    `fine` sentences and `detail` are only shown when every detail is wanted.
    """

    t: float
    subjects: tuple[str, ...]
    words: str
    tone: Tone = "plain"
    detail: str = ""
    fine: bool = False

    @property
    def text(self) -> str:
        """`web-3 condemned: point of no return`; many subjects are counted, with the first ones and the last named."""
        return f"{_names(self.subjects)} {self.words}" if self.subjects else self.words

    @property
    def full(self) -> str:
        """With its detail: `web-3 condemned: point of no return (build web-3.p1)`."""
        return f"{self.text} ({self.detail})" if self.detail else self.text

    def joined(self, later: Sentence) -> Sentence | None:
        """One sentence for two that differ only in their sandboxes; None if they differ otherwise."""
        if not self.subjects or not later.subjects or (self.words, self.tone) != (later.words, later.tone):
            return None
        return Sentence(later.t, self.subjects + later.subjects, self.words, self.tone)


def _names(names: tuple[str, ...]) -> str:
    if len(names) < 4:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} … {names[-1]} ({len(names)})"


def sentence(entry: Entry) -> str:
    """One entry in full, without its time; the sandbox, where there is one, comes first."""
    return tell(entry).full


def tell(entry: Entry) -> Sentence:
    """The entry as a sentence."""
    of_pause = (_of_copy, _of_its_guest, _of_its_salvage, _of_its_end)
    groups = (_of_run, _of_setting, _of_faults, _of_sandbox, _of_guest, *of_pause)
    found = next(filter(None, (each(entry.event) for each in groups)), None) or _fine(entry.name.replace("_", " "))
    return replace(found, t=entry.t, subjects=() if entry.sandbox is None else (entry.sandbox,))


def _say(words: str, tone: Tone, detail: str = "") -> Sentence:
    return Sentence(0.0, (), words, tone, detail)


def _fine(words: str, detail: str = "", tone: Tone = "muted") -> Sentence:
    return Sentence(0.0, (), words, tone, detail, fine=True)


def _of_run(event: Event) -> Sentence | None:
    match event:
        case events.RunStarted(name=name, seed=seed, budget=budget):
            wrong = wrong_engine(event.mutant, event.profile, event.mended)
            engine = f", with the engine {wrong}" if wrong else ""
            return _say(f"run {name} began: seed {seed}, memory budget {mib(budget)} MiB{engine}", "muted", event.run)
        case events.NodeStarted(pid, recovered=recovered):
            how = "restarted, and recovered what the crash left" if recovered else "started"
            return _say(f"node {how}", "good", f"pid {pid}")
        case events.NodeCrashed(pid):
            return _say("node crashed: ended by SIGKILL", "bad", f"pid {pid}")
        case events.Ticked(tick):
            return _say(f"tick {tick}: every running guest rewrote its working set", "muted")
        case events.StepStarted(index, step, line):
            return _fine(f"step {index}: {step}", f"line {line}")
        case events.StepEnded(index):
            return _fine(f"step {index} is over")
        case events.MemorySampled(guests=guests, caches=caches, planned=planned):
            return _fine(
                f"node holds {size(guests)} of guests and {size(caches)} of caches; {size(planned)} is granted"
            )
        case events.Judged() as judged:
            return _say(f"judged: {judgement(judged)}", verdict_tone(judged.verdict))
        case events.RunEnded(verdict=verdict):
            return _say(f"run ended: {verdict.upper()}", verdict_tone(verdict))
    return None


def _of_setting(event: Event) -> Sentence | None:
    match event:
        case events.FlagSet(flag, value, effective=False):
            return _say(f"flag {flag} is now {flag_value(value)}, but the change does not reach the node", "warn")
        case events.FlagSet(flag, value, took_ms=took):
            return _say(f"flag {flag} is now {flag_value(value)}", "busy", f"after {ms(took)}" if took else "")
        case source_events.OutageBegan(outage, detail):
            return _say(f"flag source fails: {outage}{f' ({detail})' if detail else ''}", "bad")
        case source_events.OutageEnded():
            return _say("flag source works again, and the node has every flag", "good")
        case source_events.FlagFileEdited(found):
            return _say(f"flag file edited from outside; punching there: {found}", "warn")
        case source_events.FlagSourceChanged(state, error):
            tone: Tone = "good" if state == "VALID" else "warn"
            return _say(f"flag client is {state}{f': {error}' if error else ''}", tone)
        case rollout_events.PlanBegan() | rollout_events.PlanStepEnded() | rollout_events.StageMeasured():
            return _of_plan(event)
        case source_events.LeaseMeasured(is_open, age, duration):
            return _lease(is_open, age, duration)
    return None


def _of_faults(event: Event) -> Sentence | None:
    match event:
        case events.FaultArmed(number, fault, error, at, sandboxes):
            kernel = ", by the kernel" if event.by_kernel else ""
            return _say(f"fault armed: {fault_words(fault, error, at, sandboxes)}{kernel}", "warn", f"fault {number}")
        case events.FaultFired(number, fault, error, chunk):
            return _say(f"fault fired: {fault} {error}{_at_chunk(chunk)}", "warn", f"fault {number}")
        case events.FaultsCleared():
            return _say("faults cleared: nothing is armed", "busy")
        case events.PointReached(fault, chunk, nth):
            return _fine(f"reaches {fault}{_at_chunk(chunk)}", f"number {nth}")
    return None


def _lease(is_open: bool, age: float | None, duration: float) -> Sentence:
    since = "no heartbeat yet" if age is None else f"the last heartbeat is {age:.1f} s old"
    if is_open and age is not None and age > duration / 2:
        return _fine(f"lease of {duration:g} s runs out: {since}", tone="warn")
    if is_open:
        return _say(f"lease of {duration:g} s is open: punching is allowed", "good", since)
    return _say(f"lease of {duration:g} s is not open, so nothing is punched: {since}", "warn")


def _of_sandbox(event: Event) -> Sentence | None:
    match event:
        case events.SandboxCreated(memory=memory, page_size=page_size, template=template):
            return _say(f"created: {mib(memory)} MiB", "muted", f"from {template}, in pages of {size(page_size)}")
        case events.StateChanged(old, new, reason):
            return _state(old, new, reason)
        case events.Decided(flags):
            return _say(decision_words(flags), "calm")
        case events.PauseReturned(blocked, condemned):
            return _fine(f"pause answered after {ms(blocked)}{', condemned' if condemned else ''}")
        case events.PauseSettled() as settled:
            return _settled(settled)
        case events.SettlingFailed(error):
            return _say(f"the node could not carry out the pause's outcome: {error}", "bad")
        case events.Resumed(incarnation=incarnation, build=build, written=written, resume_ms=resume_ms):
            words = f"resumed as a new guest from build {build} in {ms(resume_ms)}"
            return _say(words, "good", f"{incarnation}, {size(written)} filled")
        case events.RequestRefused(request, reason):
            return _say(f"{request} refused: {reason}", "bad")
    return None


def _of_plan(event: rollout_events.PlanBegan | rollout_events.PlanStepEnded | rollout_events.StageMeasured) -> Sentence:
    match event:
        case rollout_events.PlanBegan(plan, flag, _, steps):
            return _say(f"plan {plan} began: {flag}, {plural(len(steps), 'step')}", "calm")
        case rollout_events.PlanStepEnded(step, label, weight, outcome, detail, stopped=stopped):
            tone: Tone = "good" if outcome == "successful" else "warn" if outcome == "inconclusive" else "bad"
            why = f"; {detail}" if detail else ""
            ends = {"abort": "; aborted", "wait": "; waits for a person", "approve": "; waits for approval"}
            return _say(f"step {step + 1}, {label}, at {weight:g} %: {outcome}{why}{ends.get(stopped or '', '')}", tone)
        case rollout_events.StageMeasured(weight=weight, punched=punched, lost_by_flag=lost):
            said = f"stage of {weight:g} %: {plural(punched, 'sandbox', 'sandboxes')} punched, {lost} lost by the flag"
            return _say(said, "bad" if lost else "calm")


def _of_guest(event: Event) -> Sentence | None:
    match event:
        case events.GuestSpawned(incarnation, pid, tracker=tracker, build=build, tracker_why=why, guest=kind):
            where = f"{incarnation}, pid {pid}, tracked by {tracker}" + (f" ({why})" if why else "")
            made = "virtual machine" if kind == "vm" else "guest"
            return _fine(f"has a new {made}{f' from build {build}' if build else ''}", where)
        case events.SuccessorSpawned(incarnation, replaces):
            return _fine(f"has an empty guest to go on with after {replaces}", incarnation)
        case events.GuestFrozen(incarnation, took):
            return _fine("is frozen", f"{incarnation}, {took:.1f} ms")
        case events.GuestThawed(incarnation, code=code):
            before = _SEEN.get(code or "", "")
            return _fine(f"runs on{f': it {before}' if before else ''}", incarnation)
        case events.PaceSet(factor, held):
            slowed = f"copies are slowed {factor:g} times" if factor > 1 else "copies go at their own pace"
            return _say(f"{slowed}{', and stop at each chunk' if held else ''}", "busy")
        case events.GuestEnded(incarnation, why):
            return _fine(f"guest {incarnation} is dead: {why}")
        case events.GuestMeasured(resident):
            return _fine(f"holds {size(resident)}")
        case events.VmEnded() as end:
            return _say(f"its virtual machine ended: {vm_end(end)}; {vm_bytes(end)}", "bad", end.incarnation)
        case events.ProcessDied(process, pid):
            return _say(f"{process} died, and nothing in the run had asked for it", "bad", f"pid {pid}")
    return None


def _of_copy(event: Event) -> Sentence | None:
    match event:
        case copying.Scanned(tracker=tracker, dirty_bytes=dirty, resident_bytes=resident, scan_ms=took, why=why):
            of = "" if resident is None else f" of {size(resident)} resident"
            return _fine(f"scanned: {size(dirty)}{of} is dirty{f': {why}' if why else ''}", f"{tracker}, {took:.1f} ms")
        case events.MemoryMapped(runs):
            return _fine(f"memory in cells: {cell_words(runs)}")
        case events.BoundaryReached(before, chunk):
            return _fine(f"waits before {before}{'' if chunk is None else f' {chunk}'}")
        case copying.Compared(stored=stored, zero=zero, equal=equal, compare_ms=took):
            left_out = f"{size(equal)} as in the parent, {size(zero)} zero"
            return _fine(f"compared: of the dirty pages {size(stored)} is stored; {left_out}", f"{took:.1f} ms")
        case copying.Planned(path=path, punch=punch, punch_reason=reason, chunks=chunks, dirty_bytes=dirty):
            will = "will punch" if punch else "will not punch"
            return _fine(f"planned: path {path}, {plural(chunks, 'chunk')}, {size(dirty)}; {will}: {reason}")
        case copying.ChunkPublished(chunk=chunk, length=length, source_resident=source, cache_resident=cache):
            memfd = "" if source is None else f"memfd {size(source)}, "
            return _fine(f"chunk {chunk} is published ({size(length)}); {memfd}cache {size(cache)}")
        case copying.ChunkPunched(chunk=chunk, freed=freed):
            return _fine(f"chunk {chunk} is punched; {size(freed)} of the memfd freed so far")
        case copying.CleanPagesPunched(length=length, freed=freed):
            return _fine(f"punched {size(length)} that no snapshot needs; {size(freed)} freed so far")
        case copying.Retried(call, error, attempt):
            return _say(f"{call} is tried again (attempt {attempt}): {error}", "muted")
    return None


_SEEN = {
    "ran": "has run since it was frozen",
    "not-stopped": "is no longer stopped",
    "dead": "was killed by another process",
    "unseen": "cannot be shown to have been stopped",
}


def _of_its_guest(event: Event) -> Sentence | None:
    match event:
        case copying.GuestLooked(before, _, code):
            if code is None:
                return _fine(f"looked at before {before}: it has not run since it was frozen")
            return _say(f"looked at before {before}: it {_SEEN.get(code, code)}", "bad")
        case copying.GuestKilled():
            return _fine("killed: what is left is its memory")
        case copying.GuestDied(took):
            return _fine("its guest is dead: punching may begin", f"{took:.1f} ms after the kill")
        case copying.KillFailed(error, code):
            how = "could not be killed" if code == "not-sent" else "does not die"
            return _say(f"condemned, and {how}: it stays frozen for good, nothing is punched: {error}", "bad")
        case events.RecordRetired(incarnation, build, outcome):
            return _say(f"the condemned record of {incarnation} is retired: build {build} is {outcome}", "muted")
        case events.LinesLost(count):
            return _say(f"{plural(count, 'line')} could not be written to the ledger", "bad")
        case copying.CleanVerified(compared, differing, took):
            found = f"{size(differing)} differs, and is stored" if differing else "all of it is the same"
            return _fine(f"compared {size(compared)} clean memory with the parent: {found}", f"{took:.1f} ms")
        case copying.DirtyCompared(tracked=tracked, missed=missed, unlogged=unlogged):
            beside = f"{missed} blocks of KVM's log are not dirty, {unlogged} of {tracked} dirty ones are not in it"
            return _say(beside, "bad") if missed or unlogged else _fine("KVM's log names the same dirty blocks")
    return None


def _of_its_end(event: Event) -> Sentence | None:
    match event:
        case copying.Condemned(build):
            return _say("condemned: point of no return", "condemned", f"build {build}")
        case copying.CondemnFailed(error):
            return _say(f"not condemned, so nothing will be punched: {error}", "warn")
        case copying.PunchFailed(chunk, error):
            of = "" if chunk is None else f" of chunk {chunk}"
            return _say(f"punch{of} failed, punching ends, the bytes are safe: {error}", "warn")
        case copying.CopyFailed(_, "teardown", error):
            return _say(f"teardown failed: {error}", "bad")
        case copying.CopyFailed(chunk, call, error, condemned):  # its new state shows it too
            then = "past the point of no return" if condemned else "before condemn: nothing is lost"
            return _fine(f"pause failed in {call}{_at_chunk(chunk)} ({error}), {then}", tone="warn")
        case copying.BuildFinished(build=build, length=length, copy_ms=took):
            return _fine(f"build {build} is finished", f"{size(length)}, {took:.1f} ms")
        case copying.CacheDeleted(build):
            return _say("partial cache deleted", "muted", f"build {build}")
    return None


def _of_its_salvage(event: Event) -> Sentence | None:
    match event:
        case copying.Stranded(length=left):
            return _say(f"stranded: nothing is lost, {size(left)} of its build is left in memory alone", "warn")
        case copying.KeeperAsked(_, error):
            if error is None:
                return _fine("its memory is held by a second process, which outlives a crash of the node")
            return _say(f"its memory is held by the node alone: a copy that fails cannot be salvaged: {error}", "warn")
        case copying.BuildSpilled(_, chunk):
            return _say(f"its cache has no space: from chunk {chunk} on its build goes into the spill", "warn")
        case copying.NotSalvaged(_, code, error):
            return _say(f"cannot be salvaged ({code}): {error}", "bad")
    return None


def _at_chunk(chunk: int | None) -> str:
    return "" if chunk is None else f" at chunk {chunk}"


_STATE_TONES: dict[str, Tone] = {"running": "good", "paused": "calm", "discarded": "bad", "killed": "muted"}


def _state(old: str, new: str, reason: str) -> Sentence:
    because = f": {reason}" if reason else ""
    match old, new:
        case (_, "discarded" | "killed") | ("pausing", "paused"):
            return _say(f"{new}{because}", _STATE_TONES[new])
        case "pausing", "running":
            return _say(f"runs on{because}", "warn")
        case "checkpointing", "paused":
            return _say(f"paused{because}", "warn")
        case "resuming", "paused":
            return _say(f"stays paused{because}", "warn")
        case ("resuming", "running") | (_, "pausing"):
            return _fine(f"{new}{because}")  # the resume, and the decision of the pause, say more
    return _say(new, _STATE_TONES.get(new, "muted"), reason)


def _settled(settled: events.PauseSettled) -> Sentence:
    over = "" if settled.peak_over is None else f"peak +{size(settled.peak_over)}"
    if settled.outcome == "finished" and settled.dirty_bytes == 0:
        return _say(f"nothing was dirty, so nothing was copied; punched {mib(settled.punched_bytes)} MiB", "muted")
    if settled.outcome == "finished":
        copied = f" {mib(settled.dirty_bytes)} MiB" if settled.dirty_bytes is not None else ""
        took = f" in {ms(settled.copy_ms)}" if settled.copy_ms is not None and not settled.paced else ""
        took += " at a slower pace" if settled.paced else ""
        peak = f", peak {ratio(settled.peak_ratio)}" if settled.peak_ratio is not None else ""
        return _say(f"copied{copied}{took}{peak}, punched {mib(settled.punched_bytes)} MiB", "good", over)
    outcome = {"rolled-back": "rolled back"}.get(settled.outcome, settled.outcome)
    freed = f"{size(settled.punched_bytes)} freed" if settled.punched_bytes else ""
    times_over = over + (f" ({ratio(settled.peak_ratio)})" if over and settled.peak_ratio is not None else "")
    parts = [f"pause is {outcome}", times_over, freed, settled.error or ""]
    return _fine(", ".join(filter(None, parts)), tone="warn")  # the failed call and the new state say it shorter
