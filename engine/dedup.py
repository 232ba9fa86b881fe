"""Pages equal to the parent or zero are not stored: compare page by page, with numpy and without the GIL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.mapping import Mapping
from engine.pages import PAGE, zero_pages
from engine.ranges import Blocks, Chunk, from_indexes
from engine.snapshot import Build

_WORDS = PAGE // 8
_LONG_GAP = 64 << 10  # bytes that are read faster than passed over

ReadSpan = Callable[[memoryview, int, Chunk], None]
"""Fills a buffer that begins at a byte offset of memory, at least where the chunk has dirty blocks."""


@dataclass(frozen=True, slots=True)
class PageComparison:
    """What a compare found among the dirty blocks, in pages of 4 KiB."""

    stored: Blocks
    zero: Blocks
    equal: Blocks


def compare(
    chunks: Sequence[Chunk], block_size: int, memory: ReadSpan, parent: ReadSpan, workers: int = 2
) -> PageComparison:
    """Sort the pages of the dirty blocks into stored, zero and equal to the parent.

    A zero page is `zero` whatever the parent holds: it costs nothing to say so. Raises what the reads raise.
    """
    queue = iter(_batches(chunks, block_size))
    lock = threading.Lock()
    found: list[tuple[NDArray[np.uint32], NDArray[np.uint8]]] = []
    failures: list[Exception] = []

    def work() -> None:
        try:
            comparer = _Comparer(max((c.end - c.start for c in chunks), default=PAGE))
            while not failures:
                with lock:
                    batch = next(queue, None)
                if batch is None:
                    return
                kinds = comparer.kinds(batch, block_size, memory, parent)
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


def _gathered(found: Sequence[tuple[NDArray[np.uint32], NDArray[np.uint8]]]) -> PageComparison:
    pages = np.concatenate([pages for pages, _ in found]) if found else np.empty(0, np.uint32)
    kinds = np.concatenate([kinds for _, kinds in found]) if found else np.empty(0, np.uint8)
    return PageComparison(*(from_indexes(pages[kinds == kind]) for kind in (_STORED, _ZERO, _EQUAL)))


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
        self, batch: Sequence[Chunk], block_size: int, memory: ReadSpan, parent: ReadSpan
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """The pages of the dirty blocks of these pieces, and for each which kind it is."""
        size, moved = 0, []  # how far each piece lies in memory from where it is read to, in pages
        for piece in batch:
            low, length = int(piece.blocks[0]) * block_size, _length(piece, block_size)
            memory(self._memory[size : size + length].data, low, piece)
            parent(self._parent[size : size + length].data, low, piece)
            moved.append((low - size) // PAGE)
            size += length
        blocks = np.concatenate([piece.blocks for piece in batch])
        per_block = block_size // PAGE
        pages = (blocks[:, None] * per_block + np.arange(per_block, dtype=np.uint32)).reshape(-1)
        rows = pages - np.repeat(moved, [len(piece.blocks) * per_block for piece in batch])
        words = self._memory[:size].view(np.uint64)
        np.not_equal(words, self._parent[:size].view(np.uint64), out=self._differs[: size // 8])
        flags = self._differs[: size // 8].view(np.uint64)  # eight at a time
        differs: NDArray[np.bool_] = np.not_equal(flags.reshape(-1, _WORDS // 8).max(axis=1), 0)
        zero = zero_pages(words.reshape(-1, _WORDS))
        kinds = np.where(zero[rows], _ZERO, np.where(differs[rows], _STORED, _EQUAL)).astype(np.uint8)
        return pages.astype(np.uint32), kinds


def _length(piece: Chunk, block_size: int) -> int:
    return (int(piece.blocks[-1]) + 1 - int(piece.blocks[0])) * block_size


def _batches(chunks: Sequence[Chunk], block_size: int) -> Iterator[list[Chunk]]:
    """Pieces that are read and compared at once: as much as the largest chunk spans."""
    most = max((chunk.end - chunk.start for chunk in chunks), default=0)
    batch: list[Chunk] = []
    size = 0
    for chunk in chunks:
        for piece in _pieces(chunk, block_size):
            length = _length(piece, block_size)
            if size + length > most:
                yield batch
                batch, size = [], 0
            batch.append(piece)
            size += length
    if batch:
        yield batch


def _pieces(chunk: Chunk, block_size: int) -> list[Chunk]:
    """The chunk cut where nothing has to be read for a long way."""
    gaps = np.flatnonzero(np.diff(chunk.blocks.astype(np.int64)) > max(1, _LONG_GAP // block_size)) + 1
    if not len(gaps):
        return [chunk]
    return [replace(chunk, blocks=blocks, length=len(blocks) * block_size) for blocks in np.split(chunk.blocks, gaps)]
