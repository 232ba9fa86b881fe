"""Pages equal to the parent or zero are not stored: compare page by page, with numpy and without the GIL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.mapping import Mapping
from engine.ranges import Blocks, Chunk, from_indexes
from engine.snapshot import Build

PAGE = 4096
_WORDS = PAGE // 8

ReadSpan = Callable[[memoryview, int, Chunk], None]
"""Fills a buffer that begins at a byte offset of memory, at least where the chunk has dirty blocks."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What a compare found among the dirty blocks, in pages of 4 KiB."""

    stored: Blocks
    zero: Blocks
    equal: Blocks


def compare(chunks: Sequence[Chunk], block_size: int, memory: ReadSpan, parent: ReadSpan, workers: int = 2) -> Compared:
    """Sort the pages of the dirty blocks into stored, zero and equal to the parent.

    A zero page is `zero` whatever the parent holds: it costs nothing to say so. Raises what the reads raise.
    """
    queue = iter(chunks)
    lock = threading.Lock()
    found: list[tuple[NDArray[np.uint32], NDArray[np.uint8]]] = []
    failures: list[Exception] = []

    def work() -> None:
        try:
            comparer = _Comparer(max((c.end - c.start for c in chunks), default=PAGE))
            while not failures:
                with lock:
                    chunk = next(queue, None)
                if chunk is None:
                    return
                kinds = comparer.kinds(chunk, block_size, memory, parent)
                with lock:
                    found.append(kinds)
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
            failures.append(error)

    others = [threading.Thread(target=work, name=f"comparer-{n}", daemon=True) for n in range(2, workers + 1)]
    with contextlib.suppress(RuntimeError):  # no thread to be had: those that are there compare it all
        for thread in others:
            thread.start()
    work()
    for thread in others:
        if thread.ident is not None:
            thread.join()
    if failures:
        raise failures[0]
    return _gathered(found)


_STORED, _ZERO, _EQUAL = 0, 1, 2


def _gathered(found: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint8]]]) -> Compared:
    pages = np.concatenate([pages for pages, _ in found]) if found else np.empty(0, np.uint32)
    kinds = np.concatenate([kinds for _, kinds in found]) if found else np.empty(0, np.uint8)
    return Compared(*(from_indexes(pages[kinds == kind]) for kind in (_STORED, _ZERO, _EQUAL)))


class ParentReader:
    """Reads memory as a parent header describes it, out of its opened chain; zeros where nothing is stored."""

    def __init__(self, mapping: Mapping, chain: Dictionary[str, Build]) -> None:
        self._rows = mapping.extents
        self._ends = self._rows.offset + self._rows.length
        self._chain = chain

    def read_span(self, buffer: memoryview, offset: int, chunk: Chunk) -> None:
        """Fill the whole buffer; raises CorruptBuildError where a build ends early."""
        rows, end = self._rows, offset + len(buffer)
        first = int(np.searchsorted(self._ends, offset, side="right"))
        last = int(np.searchsorted(rows.offset, end, side="left"))
        for at, length, storage, build in zip(
            rows.offset[first:last].tolist(),
            rows.length[first:last].tolist(),
            rows.storage[first:last].tolist(),
            rows.build[first:last].tolist(),
            strict=True,
        ):
            start, stop = max(at, offset), min(at + length, end)
            piece = buffer[start - offset : stop - offset]
            if build < 0:
                piece[:] = bytes(len(piece))
            else:
                self._chain[rows.builds[build]].read_into(piece, storage + start - at)


class _Comparer:
    """One worker's buffers: a span of memory, the same span of the parent, and what differs."""

    def __init__(self, size: int) -> None:
        self._memory = np.empty(size, dtype=np.uint8)
        self._parent = np.empty(size, dtype=np.uint8)
        self._differs = np.empty(size // 8, dtype=bool)

    def kinds(
        self, chunk: Chunk, block_size: int, memory: ReadSpan, parent: ReadSpan
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """The pages of the chunk's dirty blocks, and for each which kind it is."""
        first, last = int(chunk.blocks[0]) * block_size, (int(chunk.blocks[-1]) + 1) * block_size
        size = last - first
        memory(self._memory[:size].data, first, chunk)
        parent(self._parent[:size].data, first, chunk)
        per_block = block_size // PAGE
        pages = (chunk.blocks[:, None] * per_block + np.arange(per_block, dtype=np.uint32)).reshape(-1)
        rows = pages - first // PAGE
        words = self._memory[:size].view(np.uint64)
        np.not_equal(words, self._parent[:size].view(np.uint64), out=self._differs[: size // 8])
        flags = self._differs[: size // 8].view(np.uint64)  # eight at a time
        differs: NDArray[np.bool_] = np.not_equal(flags.reshape(-1, _WORDS // 8).max(axis=1), 0)
        zero = _zero_pages(words.reshape(-1, _WORDS))
        kinds = np.where(zero[rows], _ZERO, np.where(differs[rows], _STORED, _EQUAL)).astype(np.uint8)
        return pages.astype(np.uint32), kinds


def _zero_pages(pages: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows are all zero; few need a full look: most pages begin or end with something."""
    zero: NDArray[np.bool_] = (pages[:, 0] | pages[:, -1]) == 0
    for page in np.flatnonzero(zero):
        zero[page] = not pages[page].any()
    return zero
