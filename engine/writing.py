"""The build of one pause while it is written: what is to be copied, into which file, and its header."""

from __future__ import annotations

import threading

from engine.cache import Cache
from engine.copy import ChunkCopier
from engine.effects import Effects
from engine.errors import EngineError
from engine.events import Emit
from engine.meter import PeakMeter
from engine.plan import PausePlan
from engine.prepare import PauseRequest, Work, check_parents, finished_header, unfinished_header, work_out
from engine.snapshot import PARENTS, Header, parents_of, pinning, write_attachments
from engine.spill import NO_SPACE


class Writing:
    """Nothing is worked out before `prepare`; `header` may be asked for by any thread."""

    def __init__(self, request: PauseRequest, effects: Effects) -> None:
        self._request = request
        self._effects = effects
        self._lock = threading.RLock()
        self._header: Header | None = None
        self._named: Header | None = None  # of the build that is about to get its final name
        self.work: Work | None = None
        self.cache: Cache | None = None
        self.meter: PeakMeter | None = None
        self.copier: ChunkCopier | None = None
        self.finished: Header | None = None
        """Of the whole build, once it has its final name."""

    @property
    def plan(self) -> PausePlan | None:
        """What is to be copied; None before that is known."""
        return self.work.plan if self.work is not None else None

    @property
    def header(self) -> Header | None:
        """As far as it is known: mapping once it is planned, digests when finished.

        The mapping of a scattered guest takes milliseconds to merge, so it is made for the first caller.
        """
        with self._lock:
            if self._header is None and self.work is not None:
                self._header = unfinished_header(self._request, self.work)
            return self._header

    def prepare(self, emit: Emit, emit_copy: Emit) -> None:
        """Everything that can be checked is checked here, before the guest is condemned; raises OSError, EngineError.

        `emit_copy` takes the events of the copy itself.
        """
        request = self._request
        work = self.work = work_out(request, self._effects, emit)
        cache = self.cache = Cache(request.builds, request.build, work.plan.chunks, request.spill)
        self.meter = PeakMeter(request.memory, cache)
        self._effects.create_cache(cache)
        self._effects.reserve(cache)
        # Before the guest is condemned: space may lack, and from here on the parents may not be deleted.
        with pinning(request.builds):
            write_attachments({**request.attachments, PARENTS: parents_of(request.parent)}, cache.folder)
            check_parents(request)
        self.copier = ChunkCopier(request.memory, work.plan, cache, self.meter, self._effects, emit_copy)

    def parts(self) -> tuple[ChunkCopier, PausePlan]:
        """Copier and plan; raises EngineError before they are made."""
        if self.copier is None or self.plan is None:
            raise EngineError("a pause was used before it was prepared")
        return self.copier, self.plan

    def finish(self, *, spill: bool = False) -> Header:
        """Write the header and give the build its final name; raises OSError, EngineError.

        With `spill`: where there is no space for the header, a chunk makes room for it.
        """
        unfinished, cache, work = self.header, self.cache, self.work
        if unfinished is None or cache is None or work is None:
            raise EngineError("a pause was finished before it was prepared")
        try:
            header = self._write_header(unfinished, work, cache)
        except OSError as error:
            own = [chunk for chunk in work.plan.chunks if chunk.index not in cache.spilled]
            if not (spill and cache.can_spill and own and error.errno in NO_SPACE):
                raise
            cache.move_to_spill(own[-1])
            header = self._write_header(unfinished, work, cache)
        self._named = header
        self._effects.finish(cache)
        return self._whole(header)

    def _write_header(self, unfinished: Header, work: Work, cache: Cache) -> Header:
        header = finished_header(unfinished, work, cache)
        self._effects.write_header(header, cache.folder)
        return header

    def finished_after_all(self) -> Header | None:
        """The header of a build that got its final name, though `finish` reported a failure; None where it did not."""
        if self._named is not None and self.cache is not None and self.cache.has_its_name():
            return self._whole(self._named)
        return None

    def _whole(self, header: Header) -> Header:
        self._named, self._header, self.finished = None, header, header
        return header
