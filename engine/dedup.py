"""Pages equal to the parent or zero are not stored: compare page by page, with numpy and without the GIL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.mapping import NIL, Mapping
from engine.pages import PAGE, zero_pages
from engine.ranges import Blocks, from_indexes, indexes
from engine.snapshot import Build

_WORDS = PAGE // 8
_BATCH = 128  # pages that are read and compared at once, in a CPU's own cache
_ALONE = 16  # batches that one worker has compared sooner than another is started
_SAMPLE = 128  # one word in so many is compared first

ReadPages = Callable[[memoryview, NDArray[np.int64]], None]
"""Fills a buffer with pages of memory, packed: their numbers are given, ascending."""


@dataclass(frozen=True, slots=True)
class PageComparison:
    """What a compare found, in pages of 4 KiB."""

    stored: Blocks
    zero: Blocks
    equal: Blocks


def compare(pages: Blocks, memory: ReadPages, parent: ReadPages, workers: int = 2) -> PageComparison:
    """Sort pages of 4 KiB into stored, zero and equal to the parent.

    A zero page is `zero` whatever the parent holds: it costs nothing to say so. Raises what the reads raise.
    """
    numbers = indexes(pages).astype(np.int64)
    batches = np.split(numbers, range(_BATCH, len(numbers), _BATCH)) if len(numbers) else []
    queue = iter(range(len(batches)))
    kinds = np.empty(len(numbers), dtype=np.uint8)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            comparer = _Comparer(min(_BATCH, len(numbers)))
            while not failures:
                with lock:
                    at = next(queue, None)
                if at is None:
                    return
                batch = batches[at]
                kinds[at * _BATCH : at * _BATCH + len(batch)] = comparer.kinds(batch, memory, parent)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            failures.append(error)

    others = workers - 1 if len(batches) > _ALONE and _are_neighbours(numbers) else 0
    threads = [threading.Thread(target=work, name=f"comparer-{n + 2}", daemon=True) for n in range(others)]
    with contextlib.suppress(RuntimeError):  # no thread to be had: those that are there compare it all
        for thread in threads:
            thread.start()
    work()
    _join(threads, failures)
    if failures:
        raise failures[0]
    return _sorted(numbers, kinds)


def _are_neighbours(pages: NDArray[np.int64]) -> bool:
    """Most of them. Single pages take a system call each, and threads would wait for each other's interpreter."""
    return 2 * int(np.count_nonzero(np.diff(pages) == 1)) > len(pages)


def _join(workers: Sequence[threading.Thread], failures: list[BaseException]) -> None:
    """An interrupt is raised once all have ended: nothing is closed while a worker reads."""
    for worker in workers:
        while worker.ident is not None and worker.is_alive():
            try:
                worker.join()
            except BaseException as error:  # noqa: BLE001 - raised by the caller
                failures.append(error)


_STORED, _ZERO, _EQUAL = 0, 1, 2


def _sorted(pages: NDArray[np.int64], kinds: NDArray[np.uint8]) -> PageComparison:
    numbers = pages.astype(np.uint32)
    return PageComparison(*(from_indexes(numbers[kinds == kind]) for kind in (_STORED, _ZERO, _EQUAL)))


class ParentReader:
    """Reads memory as a parent header describes it, out of its opened chain; zeros where nothing is stored."""

    def __init__(self, mapping: Mapping, chain: Dictionary[str, Build]) -> None:
        self._rows = mapping.extents
        self._ends = self._rows.offset + self._rows.length
        self._chain = chain

    def read_pages(self, buffer: memoryview, pages: NDArray[np.int64]) -> None:
        """Fill the buffer with these pages, ascending; each build is asked once for all that it holds of them.

        Raises CorruptBuildError where a build ends early.
        """
        rows, offsets = self._rows, pages * PAGE
        at = np.searchsorted(self._ends, offsets, side="right")
        builds, stored = rows.build[at], (rows.storage[at] + offsets - rows.offset[at]) // PAGE
        if (zero := builds == NIL).any():
            np.frombuffer(buffer, dtype=np.uint8).reshape(-1, PAGE)[zero] = 0
        for build in np.unique(builds[~zero]).tolist():
            held = np.flatnonzero(builds == build)
            self._chain[rows.builds[build]].read_pages(buffer, held, stored[held])


class _Comparer:
    """One worker's buffers: pages of memory, the same pages of the parent, and what differs."""

    def __init__(self, pages: int) -> None:
        self._memory = np.empty(pages * PAGE, dtype=np.uint8)
        self._parent = np.empty(pages * PAGE, dtype=np.uint8)

    def kinds(self, pages: NDArray[np.int64], memory: ReadPages, parent: ReadPages) -> NDArray[np.uint8]:
        """For each of these pages which kind it is."""
        size = len(pages) * PAGE
        memory(self._memory[:size].data, pages)
        parent(self._parent[:size].data, pages)
        ours = self._memory[:size].view(np.uint64).reshape(-1, _WORDS)
        theirs = self._parent[:size].view(np.uint64).reshape(-1, _WORDS)
        kinds = np.where(differing(ours, theirs), _STORED, _EQUAL).astype(np.uint8)
        kinds[zero_pages(ours)] = _ZERO
        return kinds


def differing(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows are not the same; few of those that differ need a full look: most do so in one of a few words."""
    differs: NDArray[np.bool_] = (ours[:, ::_SAMPLE] != theirs[:, ::_SAMPLE]).any(axis=1)
    left = np.flatnonzero(~differs)
    if 2 * len(left) > len(ours):  # a selection is copied: all of them take less
        return _differing(ours, theirs)
    differs[left] = _differing(ours[left], theirs[left])
    return differs


def _differing(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> NDArray[np.bool_]:
    flags = np.not_equal(ours, theirs).reshape(-1).view(np.uint64)  # eight at a time
    differs: NDArray[np.bool_] = np.not_equal(flags.reshape(-1, _WORDS // 8).max(axis=1), 0)
    return differs
