"""Wrong engines: whole pauses, and the pull request."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from engine.cache import PARTIAL, Cache
from engine.dirty import DirtySet, Tracker
from engine.effects import Memory
from engine.errors import EngineError, PunchRefusedError
from engine.events import BuildFinished, Condemned, Event, GuestDied
from engine.incarnation import CondemnedRecords, GuestProcess, PunchPermit
from engine.memfd import Memfd
from engine.pause import Pause, PauseResult
from engine.plan import PauseOptions
from engine.prepare import PauseRequest
from engine.ranges import Chunk, runs, whole_pages
from flags.catalog import PUNCH
from flags.decision import Decision, otel_fields
from sim.files.lifecycle import State
from sim.files.units import HUGE_PAGE
from sim.files.wrong_engines import SWITCHES
from sim.node import wrong_acts
from sim.node.admitted import Admitted
from sim.node.armed_faults import FaultyEffects
from sim.node.pausing import Pausing
from sim.node.sandbox import Machine, Sandbox
from sim.node.wrong_acts import PunchesBehind, ResumeAfterPunch
from sim.node.wrong_nodes import NODES
from sim.record import events


class Untold(Pausing):
    """Drops the `condemned` event: the ledger would condemn the guest as well as its record does."""

    def _emit(self, sandbox: Sandbox, admitted: Admitted, effects: FaultyEffects) -> Callable[[Event], None]:
        emit = super()._emit(sandbox, admitted, effects)
        return lambda event: None if isinstance(event, Condemned) else emit(event)


class DeathAwaitedLate(Pausing):
    """Punches before the guest is dead, and its events say so."""

    def __init__(self, node: Machine) -> None:
        super().__init__(node, wrong_acts.KillsLate)

    def _emit(self, sandbox: Sandbox, admitted: Admitted, effects: FaultyEffects) -> Callable[[Event], None]:
        emit, held = super()._emit(sandbox, admitted, effects), list[Event]()

        def late(event: Event) -> None:
            if isinstance(event, GuestDied):
                held.append(event)
                return
            emit(event)
            if isinstance(event, BuildFinished):
                while held:
                    emit(held.pop())

        return late


class DeathNotAwaited(Pausing):
    """Punches a guest that was sent SIGKILL, and never records that it died."""

    def __init__(self, node: Machine) -> None:
        super().__init__(node, wrong_acts.PunchesTheDying)

    def _emit(self, sandbox: Sandbox, admitted: Admitted, effects: FaultyEffects) -> Callable[[Event], None]:
        emit = super()._emit(sandbox, admitted, effects)
        return lambda event: None if isinstance(event, GuestDied) else emit(event)


class BackgroundFailureSwallowed(Pausing):
    """The guest is dead and its cache deleted; the sandbox is left in its recorded state, paused."""

    async def _discarded(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        sandbox.pause = None
        self._end_guest(sandbox, admitted, "paused")


class BackgroundRolledBack(Pausing):
    """The old guest is woken and its sandbox recorded as running, by an edge that the lifecycle does not have."""

    def __init__(self, node: Machine) -> None:
        super().__init__(node, wrong_acts.ResumeAfterPunch)

    async def _discarded(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        name, old = sandbox.config.name, sandbox.state.value
        sandbox.pause, sandbox.guest, sandbox.state = None, admitted.guest, State.RUNNING
        self._node.ledger.append(events.GuestThawed(admitted.guest.name), sandbox=name)
        changed = events.StateChanged(old, State.RUNNING.value, f"it was rolled back: {result.error}")
        self._node.ledger.append(changed, sandbox=name)


class StrandedNamedFinished(Pausing):
    """Readers find the build under its final name, as if all of it had been copied."""

    def _stranded(self, sandbox: Sandbox, admitted: Admitted) -> None:
        builds = self._node.builds
        (builds / f"{admitted.id}{PARTIAL}").rename(builds / admitted.id)
        super()._stranded(sandbox, admitted)


class CheckpointConsumed(Pausing):
    """Never in place, and recorded as if it were."""

    def _is_in_place(self, sandbox: Sandbox, decision: Decision) -> bool:
        return False

    def _tell_outcome(self, sandbox: Sandbox, pause: Pause, told: events.PauseSettled) -> None:
        in_place = replace(told, consumed=False, path="in-place") if told.checkpoint else told
        super()._tell_outcome(sandbox, pause, in_place)


class _ReadsAgain(wrong_acts.PunchesBehind):
    """Punches where the flag is on by now, though the pause was decided without."""

    def __init__(self, is_on_now: Callable[[], bool], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may_punch = is_on_now  # type: ignore[method-assign]


class FlagReadTwice(Pausing):
    """The copy is given the flag to read, not only what was decided."""

    def _effects(self, sandbox: Sandbox, admitted: Admitted) -> FaultyEffects:
        def is_on_now() -> bool:
            return self._node.flags.decide(sandbox.config.attributes()).is_on(PUNCH)

        self._make_effects = lambda *arguments: _ReadsAgain(is_on_now, *arguments)
        return super()._effects(sandbox, admitted)


class FlagsEvaluatedTwice(Pausing):
    """What was decided at the request is decided anew once the guest is frozen."""

    def _pause_request(self, sandbox: Sandbox, admitted: Admitted) -> PauseRequest:
        again = self._node.flags.decide(sandbox.config.attributes())
        decided = events.Decided(again.as_fields(), otel_fields(again, sandbox.config.name))
        self._node.ledger.append(decided, sandbox=sandbox.config.name, pause=admitted.id)
        return super()._pause_request(sandbox, replace(admitted, decision=again))


class HashUntrue(Pausing):
    """The build is right; what is recorded of it is not."""

    def _tell_outcome(self, sandbox: Sandbox, pause: Pause, told: events.PauseSettled) -> None:
        untrue = None if told.content_hash is None else told.content_hash[::-1]
        super()._tell_outcome(sandbox, pause, replace(told, content_hash=untrue))


ACTS: dict[str, type[FaultyEffects]] = {
    "resume-after-punch": wrong_acts.ResumeAfterPunch,
    "discard-skipped": wrong_acts.DiscardSkipped,
    "woken-in-mid-copy": wrong_acts.WokenInMidCopy,
    "record-after-punch": wrong_acts.RecordAfterPunch,
    "record-retired-early": wrong_acts.RecordRetiredEarly,
    "punched-unrecorded": wrong_acts.PunchedUnrecorded,
    "punch-before-publish": wrong_acts.PunchBeforePublish,
    "unfinished-visible": wrong_acts.UnfinishedVisible,
    "clean-before-first-chunk": wrong_acts.CleanBeforeFirstChunk,
    "scan-rearms": wrong_acts.ScanRearms,
    "scan-misses": wrong_acts.ScanMisses,
    "sub-page-punch": wrong_acts.SubPagePunch,
    "punch-borrowed": wrong_acts.PunchBorrowed,
    "clean-page-lost": wrong_acts.CleanPageLost,
    "old-guest-runs-on": wrong_acts.OldGuestRunsOn,
    "killed-untold": wrong_acts.KilledUntold,
    "kill-after-punch": wrong_acts.KillsLate,
    "one-thread-stopped": wrong_acts.OneThreadStopped,
    "torn-copy-kept": wrong_acts.TornCopyKept,
    "looks-away": wrong_acts.LooksAway,
    "memory-kept": wrong_acts.MemoryKept,
    "meter-under-reports": wrong_acts.SubPagePunch,
}
UNTOLD = frozenset({"record-after-punch", "record-retired-early"})
PAUSES: dict[str, type[Pausing]] = {
    "background-failure-swallowed": BackgroundFailureSwallowed,
    "background-rolled-back": BackgroundRolledBack,
    "punched-machine-runs": BackgroundRolledBack,
    "checkpoint-consumed": CheckpointConsumed,
    "flag-read-twice": FlagReadTwice,
    "death-awaited-late": DeathAwaitedLate,
    "death-not-awaited": DeathNotAwaited,
    "flags-evaluated-twice": FlagsEvaluatedTwice,
    "hash-untrue": HashUntrue,
    "stranded-named-finished": StrandedNamedFinished,
}


def wrong_pausing(node: Machine) -> Pausing:
    """The pauses of a node whose scenario asks for a wrong engine: a mutant, or else a profile."""
    config = node.config
    if config.mutant is None:
        return PullRequestPausing(node, frozenset(SWITCHES) - set(config.mended))
    if config.mutant in PAUSES:
        return PAUSES[config.mutant](node)
    if config.mutant in NODES:
        NODES[config.mutant](node)
    return (Untold if config.mutant in UNTOLD else Pausing)(node, ACTS.get(config.mutant, FaultyEffects))


class PunchFatalError(Exception):
    """No error that the engine expects of a punch: it ends the pause."""


@dataclass(slots=True)
class _Run:
    """Neighbouring dirty blocks, [start, end) in bytes, and how many of them are not copied yet."""

    start: int
    end: int
    left: int


class PullRequest(PunchesBehind, ResumeAfterPunch):
    """The acts of one pause; `asked` is what the flag says, wherever that is legal."""

    def __init__(self, switches: frozenset[str], asked: bool, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._on = switches
        self._asked = asked
        self._permitted = False
        self._runs: list[_Run] = []
        self._found_late: OSError | None = None

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: Memory, block_size: int) -> DirtySet:
        found = super().scan(tracker, guest, memory, block_size)
        spans = ((first * block_size, count * block_size) for first, count in runs(found.dirty))
        self._runs = [_Run(start, start + length, length) for start, length in spans]
        return found

    def may_punch(self) -> bool:
        """In place there is no permit, and nothing but the flag that is asked."""
        return "not-gated" in self._on and self._asked and not self._permitted

    def condemn(self, records: CondemnedRecords, guest: GuestProcess, build: str) -> PunchPermit:
        self._permitted = True
        return super().condemn(records, guest, build)

    def reserve(self, cache: Cache) -> None:
        """What lacks of space is only noticed where it is used up."""
        try:
            super().reserve(cache)
        except OSError as error:
            if "no-preflight" not in self._on:
                raise
            self._found_late = error

    def copy_write(self, cache: Cache, data: memoryview, chunk: Chunk) -> None:
        if self._found_late is not None and chunk.index == self._chunks - 1:
            raise self._found_late
        super().copy_write(cache, data, chunk)

    def punch(self, memfd: Memfd, offset: int, length: int, permit: PunchPermit, chunk: Chunk | None) -> None:
        try:
            for start, end in self._to_punch(offset, offset + length, memfd, chunk):
                super().punch(memfd, start, end - start, permit, chunk)
        except (OSError, EngineError) as error:
            if "failed-punch-fatal" not in self._on:
                raise
            raise PunchFatalError(f"the punch failed: {error}") from error

    def _to_punch(self, start: int, end: int, memfd: Memfd, chunk: Chunk | None) -> Iterator[tuple[int, int]]:
        """Of a published chunk's span, or of clean pages, what the pull request frees now: [start, end) each."""
        if chunk is None:
            if "dirty-pages-only" not in self._on:
                yield start, end
            return
        touched = self._runs[bisect_right(self._runs, start, key=lambda run: run.end) :]
        touched = touched[: bisect_right(touched, end - 1, key=lambda run: run.start)]
        if "two-mib-alignment" in self._on and any(run.start % HUGE_PAGE or run.end % HUGE_PAGE for run in touched):
            raise PunchRefusedError("a dirty run is not aligned to 2 MiB")
        if not self._on & {"range-granular", "dirty-pages-only"}:
            yield start, end
            return
        for low, high in [*self._dirty(touched, start, end), *self._clean(touched, start, end)]:
            if pages := whole_pages(low, high, memfd.page_size, memfd.size):
                yield pages

    def _dirty(self, touched: list[_Run], start: int, end: int) -> list[tuple[int, int]]:
        """A run as far as the span goes; `range-granular`: all of it, once its last chunk is copied."""
        if "range-granular" not in self._on:
            return [(max(run.start, start), min(run.end, end)) for run in touched]
        with self._lock:
            for run in touched:
                run.left -= min(run.end, end) - max(run.start, start)
            return [(run.start, run.end) for run in touched if run.left == 0]

    def _clean(self, touched: list[_Run], start: int, end: int) -> list[tuple[int, int]]:
        if "dirty-pages-only" in self._on:
            return []
        edges = [start, *(edge for run in touched for edge in (max(run.start, start), min(run.end, end))), end]
        return [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if low < high]

    def discard(self, cache: Cache, error: BaseException) -> None:
        super().discard(cache, error)
        self.failed = "resumed-by-convention" in self._on


class PullRequestPausing(Pausing):
    """The pauses of a node that runs the pull request."""

    def __init__(self, node: Machine, switches: frozenset[str]) -> None:
        super().__init__(node)
        self._on = switches

    def _options(self, sandbox: Sandbox, admitted: Admitted) -> PauseOptions:
        """`dedup-ignores-flag`: the dedup path does not read the flag."""
        asked = super()._options(sandbox, admitted)
        ignored = "dedup-ignores-flag" in self._on and asked.dedup.enabled
        return replace(asked, punch=False) if ignored else asked

    def _effects(self, sandbox: Sandbox, admitted: Admitted) -> FaultyEffects:
        asked = self._options(sandbox, admitted).punch
        self._make_effects = lambda *arguments: PullRequest(self._on, asked, *arguments)
        return super()._effects(sandbox, admitted)

    async def _discarded(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        """`async-failure`: the error is in a promise that is never awaited."""
        if "async-failure" not in self._on or sandbox.state.value != "paused":
            await super()._discarded(sandbox, admitted, result)
            return
        sandbox.pause = None
        self._end_guest(sandbox, admitted, "paused")
