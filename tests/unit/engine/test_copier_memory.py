"""The memory of a copier is there before the first page is written, whatever the kernel offers."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Iterable

import pytest

from engine import copy
from engine.plan import MemoryFacts, PauseOptions, plan
from engine.ranges import Blocks

SIZE = 2 << 20


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.parametrize("populate", [copy._MADV_POPULATE_WRITE, 1 << 20], ids=["populated", "before Linux 5.14"])
def test_writing_every_page_of_it_takes_no_fault_a_page(populate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.copy._MADV_POPULATE_WRITE", populate)  # one that no kernel knows is EINVAL
    memory = copy._memory_at_once(SIZE)
    before = faults()
    for page in range(0, SIZE, mmap.PAGESIZE):
        memory[page] = 1
    assert faults() - before < SIZE // mmap.PAGESIZE // 4
    memory.close()


@pytest.mark.parametrize(
    ("blocks", "span", "packed"),
    [([], mmap.PAGESIZE, 0), (range(512, 1024), SIZE, 0), ([513, 700], SIZE, SIZE), ([700], SIZE, 0)],
)
def test_a_copier_has_the_longest_span_once_and_again_where_its_blocks_are_packed(
    blocks: Iterable[int], span: int, packed: int
) -> None:
    facts = MemoryFacts(8 << 20, 4096, 4096, 0, consumed=True, parent_finished=True)
    buffers = copy._Buffers(plan(PauseOptions(), facts, Blocks(blocks)))
    assert (len(buffers.span), buffers.size) == (span, span + packed)


def test_memory_is_had_on_a_kernel_without_huge_pages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 1 << 20)  # one that no kernel knows is EINVAL
    memory = copy._memory_at_once(SIZE)
    before = faults()
    for page in range(0, SIZE, mmap.PAGESIZE):
        memory[page] = 1
    assert faults() - before < SIZE // mmap.PAGESIZE // 4
    memory.close()
