"""One pause of one incarnation, start to finish.

A failure before the point of no return rolls back, one after it discards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from engine.cache import Cache
from engine.copy import ChunkError, copied
from engine.effects import Effects, Memory
from engine.ending import Ending
from engine.errors import CancelledPauseError, CorruptBuildError, EngineError, errno_name
from engine.events import (
    BuildFinished,
    CacheDeleted,
    Condemned,
    CondemnFailed,
    CopyFailed,
    Emit,
    Event,
    KeeperAsked,
    NotSalvaged,
    ignore,
)
from engine.incarnation import PunchPermit
from engine.meter import CpuClock
from engine.once import Once
from engine.outcome import Outcome, PauseResult
from engine.plan import WHOLE, PausePlan, SalvageCode
from engine.prepare import PauseRequest
from engine.snapshot import Header
from engine.strand import RETRY_SECONDS, Strand, UnsalvageableError
from engine.writing import Writing

__all__ = ["Outcome", "Pause", "PauseResult"]

_AGAIN_SECONDS = 0.01
"""Until an end that failed itself is tried again."""


class Pause:
    """`begin` runs to the pause's answer, `settle` waits for the copy's end. Thread-safe."""

    def __init__(self, request: PauseRequest, effects: Effects | None = None, emit: Emit = ignore) -> None:
        self._request = request
        self._effects = effects or Effects()
        self._emit = emit
        self._lock = threading.RLock()  # never held over an act: the caller that cancels may be an event loop
        self._cancelled = False
        self._committed = False
        self._condemned = False
        self._condemning = False
        self._condemn_error: str | None = None
        self._kept = False
        self._keep_error: str | None = None
        self._ending = Ending(request.guest, self._effects, self._say)
        self._settled = Once()
        self._rests = Once()  # settled, or stranded with nothing more to come by itself
        self._settled.then(self._rests.set)
        self._salvaging = threading.Lock()
        self._strand: Strand | None = None  # kept, though the copy failed past the point of no return
        self._salvaged: str | None = None
        self._failure: BaseException | None = None  # what is reported already
        self._result: PauseResult | None = None
        self._begun = time.perf_counter()
        self._cpu = CpuClock()
        self._writing = Writing(request, self._effects)
        self._owner: int | None = None  # the thread that takes the copy to its end
        self.untold = 0
        """Events that could not be recorded past the point of no return: a full ledger must not lose the memory."""

    def begin(self) -> bool:
        """Return once the pause has its answer: the copy done, or (background) condemned with the header known.

        True where the answer came before the copy's end: it may have ended meanwhile. An interrupt is raised again once
        the guest has its fate.
        """
        rest = threading.Thread(target=self._end_of_copy, name="copier-1", daemon=True)
        self._cpu.begin()
        try:
            self._writing.prepare(self._emit, self._tell)
            copier, plan = self._writing.parts()
            copier.copy_first(self._stop_if_cancelled)
            self._effects.boundary("condemn")
            self._ending.look("condemn")
            if plan.condemns_early:
                self._condemn()
            if plan.background and self._condemned:
                with contextlib.suppress(RuntimeError):  # no thread to be had: the answer waits for the copy
                    self._cpu.end()
                    rest.start()
                    return True
            self._rest()
        except BaseException as error:
            if self._owns_the_copy():
                self._end_in_a_fate(error)
            if not isinstance(error, Exception):
                raise
        return False

    def _owns_the_copy(self) -> bool:
        """True for the one thread that takes the copy to its end: an interrupt may come while the other one starts."""
        with self._lock:
            self._owner = self._owner or threading.get_ident()
            return self._owner == threading.get_ident()

    def _end_of_copy(self) -> None:
        if not self._owns_the_copy():
            return
        self._cpu.begin()
        try:
            self._rest()
        except BaseException as error:  # noqa: BLE001 - a thread that dies silently would leave its waiters hanging
            self._end_in_a_fate(error)

    def settle(self, deadline: float | None = None) -> PauseResult:
        """The result once the copy has ended; raises TimeoutError after `deadline` seconds."""
        if not self._settled.wait(deadline) or self._result is None:
            raise TimeoutError(f"the copy of build {self._request.build} did not end within {deadline} s")
        return self._result

    def when_settled(self, tell: Callable[[], None]) -> None:
        """Call the given function once nothing more will happen: in the thread that ended the pause, or at once."""
        self._settled.then(tell)

    def when_at_rest(self, tell: Callable[[], None]) -> None:
        """The same, but also where the build is left stranded: `stranded` says so."""
        self._rests.then(tell)

    def salvage(self, *, spill: bool = True) -> bool:
        """Copy once more what is left of a stranded build; True once the pause has settled, finished or discarded.

        With `spill`, what the cache has no space for goes into the spill, where there is one.
        """
        copier, _ = self._writing.parts()
        with self._salvaging:
            if self._strand is None or self._settled.is_set():
                return self._settled.is_set()
            self._cpu.begin()
            try:
                copier.copy_left(spill=spill)
                self._strand.complete(punched=copier.permit is not None)
                self._end_finished(self._finish(spill=spill))
            except BaseException as error:
                self._take_fate(error)
                if not isinstance(error, Exception):
                    raise
            return self._settled.is_set()

    def give_up(self, why: str) -> None:
        """Discard a stranded build: it is not wanted any more. Harmless where there is none."""
        with self._salvaging:
            if self._strand is not None and not self._settled.is_set():
                self._cpu.begin()
                self._take_fate(UnsalvageableError(SalvageCode.GIVEN_UP, why))

    @property
    def stranded(self) -> bool:
        """True while its copy has failed past the point of no return, and its build can still be completed."""
        return self._strand is not None and not self._settled.is_set()

    def cancel(self) -> bool:
        """Ask for a roll-back; False where the guest is condemned, or all is copied: then the pause goes on."""
        with self._lock:
            if self._condemned or self._condemning or self._committed or self._settled.is_set():
                return False
            self._cancelled = True
            return True

    def retire(self) -> bool:
        """Forget the condemned record, once the outcome is where a crash does not take it: in the ledger.

        False where it has to stay: the guest is not dead, or the build is neither finished nor deleted.
        """
        cache, guest = self.cache, self._request.guest
        if not self._settled.is_set() or not self._condemned:
            return False
        if self._writing.finished is None and cache is not None and not cache.is_gone():
            return False
        try:
            self._effects.retire(self._request.condemned, guest)
        except (EngineError, OSError):  # it lives, or its record cannot be removed: the next recovery sees to both
            return False
        return True

    @property
    def plan(self) -> PausePlan | None:
        """What is copied, and why memory is punched or not; None before that is known."""
        return self._writing.plan

    @property
    def header(self) -> Header | None:
        """The header as far as it is known: mapping at the answer, digests when finished."""
        return self._writing.header

    @property
    def failed(self) -> bool:
        """True once its copy has ended, and its build will never be: nothing may stand on it any more."""
        return self._settled.is_set() and self._writing.finished is None

    @property
    def cache(self) -> Cache | None:
        """The cache being written, for readers."""
        return self._writing.cache

    def _stop_if_cancelled(self) -> None:
        with self._lock:
            if self._cancelled and not self._condemned:
                raise CancelledPauseError("the caller cancelled the pause")

    # -- the point of no return: record, last look, SIGKILL; nothing is punched before the guest is dead

    def _condemn(self) -> None:
        """Where the record cannot be written nothing is ever punched, and the guest lives on, frozen."""
        if self._request.borrowed:
            raise EngineError("its memory is borrowed and the guest goes on: it may not be condemned")
        self._keep()
        with self._lock:  # a cancel comes before the record is begun, or is refused
            self._stop_if_cancelled()
            self._condemning = True
        permit = self._ending.permit = self._write_record()
        if permit is None:
            return
        self._say(Condemned(self._request.build))
        if (ran := self._ending.kill()) is not None:
            raise ran

    def _keep(self) -> None:
        """Where no other process holds the memory too, a copy of it that fails is discarded, with a code."""
        keeper, build = self._request.keeper, self._request.build
        if keeper is None or self._writing.records is None:
            return
        try:
            self._effects.keep(keeper, build, self._request.memory)
        except Exception as error:  # noqa: BLE001 - reported, and the pause goes on
            self._keep_error = str(error) or type(error).__name__
        self._kept = True  # also where its answer is lacking: it is dropped all the same
        self._say(KeeperAsked(build, self._keep_error))

    def _write_record(self) -> PunchPermit | None:
        request = self._request
        try:
            permit = self._effects.condemn(request.condemned, request.guest, request.build)
        except Exception as error:  # noqa: BLE001 - the teardown asks too, and its waiters must hear of it all the same
            self._condemning = False
            self._condemn_error = str(error)
            self._say(CondemnFailed(str(error)))
            return None
        self._condemned = True  # first: a cancel is refused throughout
        self._condemning = False
        return permit

    # -- the rest of the copy, in the background or not

    def _rest(self) -> None:
        copier, plan = self._writing.parts()
        if self._ending.killed:
            _ = self.header  # made while the guest dies: milliseconds, and no copying
        if plan.punch and self._condemned:
            if self._ending.await_death():
                copier.permit = self._ending.permit
            else:
                copier.punch_nothing(f"the guest was not ended: {self._ending.error}")
        else:
            self._ending.await_death()
        copier.punch_unowed()
        copier.copy_rest(self._stop_if_cancelled)
        self._effects.boundary("finish")
        self._ending.look("finish")
        self._commit()
        header = self._finish()
        if self._request.borrowed:
            self._begin_new_dirty_set()
        self._end_finished(header)

    def _end_finished(self, header: Header) -> None:
        if self._request.borrowed:
            self._end(Outcome.FINISHED, None, header)
        else:
            self._tear_down(Outcome.FINISHED, None, header)

    def _begin_new_dirty_set(self) -> None:
        """Only now, with the header finished: until here a failure or a crash forgets nothing.

        Where it fails the next dirty set holds too much, which is never wrong.
        """
        with contextlib.suppress(Exception):
            self._effects.rearm(self._request.tracker)

    def _commit(self) -> None:
        """From here on a cancel is refused: the build is about to get its name."""
        with self._lock:
            self._stop_if_cancelled()
            self._committed = True

    def _finish(self, *, spill: bool = False) -> Header:
        header = self._writing.finish(spill=spill)
        self._say_finished(header)
        return header

    def _say_finished(self, header: Header) -> None:
        milliseconds = (time.perf_counter() - self._begun) * 1e3
        self._say(BuildFinished(header.build, header.length, header.content_hash, milliseconds))

    # -- the fates

    def _end_in_a_fate(self, error: BaseException) -> None:
        """A build that is stranded is tried again by a schedule, before it is left until `salvage` is called."""
        self._take_fate(error)
        try:
            for seconds in RETRY_SECONDS if self.stranded else ():
                time.sleep(seconds)
                if self.salvage(spill=False):
                    break
            if self.stranded and self._request.spill is not None:
                self.salvage()
        finally:
            self._rests.set()

    def _take_fate(self, error: BaseException) -> None:
        """Whatever the error, and however often this is interrupted: the guest must not stay between two fates."""
        while not self._settled.is_set():  # each act is done once, or harmless a second time
            with contextlib.suppress(BaseException):
                self._fail(error)
                break
            with contextlib.suppress(BaseException):
                time.sleep(_AGAIN_SECONDS)

    def _fail(self, error: BaseException) -> None:
        """Uncondemned: the guest may run on, nothing was lost. Condemned: discard, unless it is to be salvaged."""
        if (header := self._writing.finished_after_all()) is not None:
            self._say_finished(header)
        if (whole := self._writing.finished) is not None:  # a failure in the last acts: the build is whole
            self._end_finished(whole)
            return
        self._condemned = self._condemned or self._request.record_stands()
        cause = error.cause if isinstance(error, ChunkError) else error
        call = error.call if isinstance(error, ChunkError) else type(cause).__name__
        chunk = error.chunk if isinstance(error, ChunkError) else None
        if error is not self._failure:
            self._say(CopyFailed(chunk, call, str(cause), self._condemned, errno_name(cause)))
        self._failure = error
        if self._condemned and self._request.options.salvage and self._is_kept(error):
            return
        if (cache := self.cache) is not None:
            self._delete(cache, error)
        if self._condemned:
            self._tear_down(Outcome.DISCARDED, error, None)
        else:
            self._end(Outcome.ROLLED_BACK, error, None)

    def _is_kept(self, error: BaseException) -> bool:
        """Whether the build is stranded now; False where it cannot be salvaged, which is reported."""
        permit = self._writing.copier.permit if self._writing.copier is not None else None
        try:
            self._refuse_unkept()
            strand = self._strand or Strand.of(error, self._request.memory, self.plan, self.cache, self._ending)
            strand.check(error, punched=permit is not None)
        except UnsalvageableError as why:
            self._salvaged = why.code.value
            self._say(NotSalvaged(self._request.build, why.code.value, str(why)))
            return False
        self._strand = strand
        self._cpu.end()
        self._say(strand.event(self._writing.meter.peak_over if self._writing.meter else None))
        return True

    def _refuse_unkept(self) -> None:
        if self._keep_error is not None:
            raise UnsalvageableError(SalvageCode.NOT_KEPT, f"no other process held its memory: {self._keep_error}")

    def _delete(self, cache: Cache, error: BaseException) -> None:
        try:
            self._effects.discard(cache, error)
        except Exception as failure:  # noqa: BLE001 - readers must wake and the guest must end all the same
            self._say(CopyFailed(None, "discard", str(failure), self._condemned))
            cache.fail(error)
        if cache.is_gone():
            self._say(CacheDeleted(self._request.build))

    def _tell(self, event: Event) -> None:
        """Emit a copier's event: before the point of no return a listener that fails ends the pause."""
        if self._condemned:
            self._say(event)
        else:
            self._emit(event)

    def _say(self, event: Event) -> None:
        """Emit when the fate is settled already: a listener that fails may not keep the guest from it."""
        try:
            self._emit(event)
        except Exception:  # noqa: BLE001 - counted: the judges must know that an event is missing
            self.untold += 1

    def _tear_down(self, outcome: Outcome, error: BaseException | None, header: Header | None) -> None:
        """End the guest, then give its memory back. `retire` removes its record, once the outcome is recorded."""
        if not self._condemned and self._write_record():
            # Success is about to be answered: even a guest that will not die may never be thawed.
            self._say(Condemned(self._request.build))
        self._ending.kill()  # what it did since the finish, if anything, is in no copy
        if not self._ending.await_death():
            self._say(CopyFailed(None, "teardown", str(self._ending.error), self._condemned))
        self._remember(outcome, error, header)
        self._close(self._request.memory)

    def _end(self, outcome: Outcome, error: BaseException | None, header: Header | None) -> None:
        self._remember(outcome, error, header)
        self._close(None)

    def _close(self, memory: Memory | None) -> None:
        """The last act of all; nothing that fails here may keep the pause from settling."""
        self._writing.close()
        if self._kept and self._request.keeper is not None:
            with contextlib.suppress(Exception):  # a keeper that is gone holds nothing
                self._request.keeper.drop(self._request.build)
        try:
            self._effects.close(memory, self.cache)
        except Exception as failure:  # noqa: BLE001 - what it left open is closed here, and waiters must get an answer
            self._say(CopyFailed(None, "teardown", f"close: {failure}", self._condemned))
            for each in (self.cache, memory):
                with contextlib.suppress(OSError):
                    if each is not None:
                        each.close()
        self._settled.set()

    def _remember(self, outcome: Outcome, error: BaseException | None, header: Header | None) -> None:
        copier, strand = self._writing.copier, self._strand
        milliseconds = (time.perf_counter() - self._begun) * 1e3
        self._result = PauseResult(
            outcome=outcome,
            error=(str(error) or type(error).__name__) if error else None,
            failed_chunk=error.chunk if isinstance(error, ChunkError) else None,
            condemned=self._condemned,
            condemn_error=self._condemn_error,
            copy_ms=milliseconds if copier and not strand else None,  # it would say how long nobody salvaged it
            header=header,
            parent_damaged=isinstance(error, CorruptBuildError),
            kill_error=self._ending.error,
            cpu_seconds=self._cpu.so_far() + (copier.cpu_seconds if copier else 0.0),
            salvage=WHOLE if strand and outcome is Outcome.FINISHED else self._salvaged,
            **copied(copier, self._writing.meter),
        )
