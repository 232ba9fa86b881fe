"""Every errno that a full or broken disk gives, at every call, at every chunk, on every path."""

from __future__ import annotations

import errno
import itertools
import os
from typing import Any

import pytest

from engine.events import BuildFinished, CopyFailed, Planned
from engine.ranges import Blocks
from tests.integration.engine.rig import CHUNKS, Faults, Guest, Pauser

ERRNOS = [errno.EIO, errno.ENOSPC, errno.EFBIG, errno.EDQUOT]
CALLS = {"copy_read": "copy.read", "copy_write": "copy.write", "publish": "publish"}
PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "process": ("process", {"by_process": True, "punch": True}),
    "memfd": ("memfd", {"punch": False}),
    "memfd-punched": ("memfd", {"punch": True}),
    "background": ("memfd-background", {"background": True, "punch": False}),
    "background-punched": ("memfd-background", {"background": True, "punch": True}),
    "dedup": ("dedup", {"dedup": True, "punch": False}),
    "dedup-punched": ("dedup", {"dedup": True, "punch": True}),
    "in-place": ("in-place", {"checkpoint": True, "punch": True}),
}
NEVER_CONDEMNED_EARLY = {"process", "memfd", "in-place"}
PLACES = list(itertools.product(PATHS, range(CHUNKS)))
MATRIX = [
    *((way, "copy_write", chunk, number) for (way, chunk), number in itertools.product(PLACES, ERRNOS)),
    # which errno a read or a publication meets where is a matter of luck: each comes up, no product of all is needed
    *((way, "copy_read", chunk, number) for (way, chunk), number in zip(PLACES, itertools.cycle(ERRNOS))),
    *((way, "publish", chunk, number) for (way, chunk), number in zip(PLACES, itertools.cycle(ERRNOS[::-1]))),
]
IDS = [f"{way}-{call}-{chunk}-{errno.errorcode[number]}" for way, call, chunk, number in MATRIX]


@pytest.mark.parametrize(("way", "call", "chunk", "number"), MATRIX, ids=IDS)
def test_an_error_rolls_back_or_discards_and_loses_no_byte_that_was_not_safe(
    sparse_guest: Guest, pauser: Pauser, faults: Faults, way: str, call: str, chunk: int, number: int
) -> None:
    path, how = PATHS[way]
    guest, before, resident = sparse_guest, sparse_guest.memory(), sparse_guest.resident()
    dirty = Blocks(range(0, 2048, 16))
    result = pauser.pause(guest, effects=faults.failing(call, number, chunk=chunk), **how)
    assert [event.path for event in pauser.of(Planned)] == [path]
    assert [(event.chunk, event.call) for event in pauser.of(CopyFailed)] == [(chunk, CALLS[call])]
    assert not pauser.of(BuildFinished)
    assert os.strerror(number) in str(result.error)
    if chunk > 0 and way not in NEVER_CONDEMNED_EARLY:
        pauser.assert_discarded(guest, result)
        return
    pauser.assert_rolled_back(guest, result, before)
    assert guest.resident() == resident
    assert guest.tracker is not None
    assert guest.tracker.written(rearm=False) == dirty
    if number == errno.EIO:
        pauser.assert_nothing_was_forgotten(guest, **how)
