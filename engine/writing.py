"""The build of one pause while it is written: what is to be copied, into which file, and its header."""

from __future__ import annotations

import threading
from functools import partial

from engine import chunk_records
from engine.cache import Cache
from engine.chunk_records import ChunkRecords
from engine.copy import ChunkCopier
from engine.effects import Effects
from engine.errors import EngineError
from engine.events import Emit
from engine.meter import PeakMeter
from engine.plan import PausePlan
from engine.prepare import PauseRequest, check_parents, work_out
from engine.ranges import Chunk
from engine.snapshot import PARENTS, Header, parents_of, pinning, write_attachments
from engine.work import Work, finished_header, unfinished_header, written_with_room


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
        self.records: ChunkRecords | None = None
        """Where each chunk lies, to complete the build after a crash; None where its memory is not kept."""
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
                self._header = unfinished_header(self._request.parent, self._request.build, self.work)
            return self._header

    def prepare(self, emit: Emit, emit_copy: Emit) -> None:
        """Everything that can be checked is checked here, before the guest is condemned; raises OSError, EngineError.

        `emit_copy` takes the events of the copy itself.
        """
        request = self._request
        work = self.work = work_out(request, self._effects, emit)
        spill = request.spill if request.options.salvage else None
        cache = self.cache = Cache(request.builds, request.build, work.plan.chunks, spill)
        self.meter = PeakMeter(request.memory, cache)
        self._effects.create_cache(cache)
        self._effects.reserve(cache)
        # Before the guest is condemned: space may lack, and from here on the parents may not be deleted.
        with pinning(request.builds):
            write_attachments({**request.attachments, PARENTS: parents_of(request.parent)}, cache.folder)
            check_parents(request)
        if request.keeper is not None and request.options.salvage and work.plan.condemns_early:
            self.records = ChunkRecords.create(cache.folder, request.build, request.parent, work)
        acts = self._effects, emit_copy, self.records
        self.copier = ChunkCopier(request.memory, work.plan, cache, self.meter, *acts)

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
        write = partial(self._write_header, unfinished, work, cache)
        header = written_with_room(write, cache, work.plan.chunks, self._record) if spill else write()
        self._named = header
        self._effects.finish(cache)
        return self._whole(header)

    def _record(self, chunk: Chunk) -> None:
        if self.records is not None and self.cache is not None:
            self._effects.record(self.records, self.cache, chunk)

    def _write_header(self, unfinished: Header, work: Work, cache: Cache) -> Header:
        cache.give_zeros_back()
        header = finished_header(unfinished, work, cache)
        self._effects.write_header(header, cache.folder)
        return header

    def finished_after_all(self) -> Header | None:
        """The header of a build that got its final name, though `finish` reported a failure; None where it did not."""
        if self._named is not None and self.cache is not None and self.cache.has_its_name():
            return self._whole(self._named)
        return None

    def close(self) -> None:
        """Nothing more is written."""
        if self.records is not None:
            self.records.close()

    def _whole(self, header: Header) -> Header:
        if self.records is not None and self.cache is not None:
            chunk_records.remove(self.cache.final)
        self._named, self._header, self.finished = None, header, header
        return header
