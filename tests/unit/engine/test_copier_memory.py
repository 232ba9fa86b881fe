"""The memory of a copier is there before the first page is written, whatever the kernel offers."""

from __future__ import annotations

import mmap
import resource

import pytest

from engine import copy

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
