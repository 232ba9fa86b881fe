"""What a pause makes of what its guest has freed: values, no guest."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import cast

import pytest

from engine import prepare
from engine.dirty import RESIDENT, DirtySet
from engine.incarnation import Incarnation
from engine.mapping import create
from engine.memfd import Memfd
from engine.prepare import PauseRequest
from engine.ranges import Blocks

PAGE, HUGE = 4096, 2 << 20
SIZE = 4 * HUGE


def asked(memory: object, block: int, **more: object) -> PauseRequest:
    parent = SimpleNamespace(mapping=create(Blocks([0, 1]), "b1", SIZE, PAGE))
    return cast("PauseRequest", SimpleNamespace(memory=memory, parent=parent, block_size=block, **more))


@pytest.mark.parametrize("held", [0, 1, 2])
def test_where_huge_pages_were_freed_everything_is_dirty(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    memory = Memfd.adopt(fd, SIZE)
    memory.page_size = HUGE
    monkeypatch.setattr(Memfd, "resident_bytes", lambda _: held * HUGE)
    found = DirtySet(Blocks([3]), Blocks(), "its own", 5.0)
    made, block = prepare._with_what_was_freed(asked(memory, HUGE), found)
    assert (block, 5.0 < made.scan_ms < 60_000) == (HUGE, True)
    if held == 2:
        assert (list(made.dirty), list(made.empty), made.tracker, made.why) == ([3], [], "its own", None)
    else:
        assert (list(made.dirty), list(made.empty), made.tracker) == ([0, 1, 2, 3], [], RESIDENT)
        assert made.why
    memory.close()


def test_memory_without_a_memfd_and_without_holes_is_as_it_was_scanned() -> None:
    found = DirtySet(Blocks([3]), Blocks(), "its own", 5.0)
    assert prepare._with_what_was_freed(asked(object(), PAGE), found) == (found, PAGE)


@pytest.mark.parametrize("error", [PermissionError(1, "no"), None])
@pytest.mark.parametrize("holds", [False, True])
def test_a_record_that_cannot_be_read_stands_and_borrowed_memory_has_none(error: OSError | None, holds: bool) -> None:
    guest = Incarnation("web-0.1", 7, 1, 1)

    def look(incarnation: Incarnation) -> bool:
        assert incarnation is guest
        if error is not None:
            raise error
        return holds

    request = asked(
        None, PAGE, borrowed=False, guest=SimpleNamespace(incarnation=guest), condemned=SimpleNamespace(holds=look)
    )
    assert PauseRequest.record_stands(request) is (holds or error is not None)
    borrowed = asked(None, PAGE, borrowed=True)
    assert PauseRequest.record_stands(borrowed) is False
