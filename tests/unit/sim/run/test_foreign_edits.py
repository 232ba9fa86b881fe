"""What the run sees of a flag file that is changed from outside: off when it has stood, everything else at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.events import Event
from flags.inline import flag_from
from sim.record.source_events import FlagFileEdited
from sim.run.foreign_edits import ForeignEdits, _said

PUNCH = "memfd-punch-on-snapshot"
ON = flag_from(PUNCH, True)
OFF = {**ON, "on": False}


def text(flag: Any) -> str:
    return json.dumps({"flags": {PUNCH: flag}})


def write(path: Path, flag: Any) -> None:
    path.write_text(text(flag))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "flags.json").write_text(text(ON))
    return tmp_path / "flags.json"


@contextlib.asynccontextmanager
async def watching(path: Path) -> AsyncIterator[tuple[ForeignEdits, asyncio.Queue[Event]]]:
    noted: asyncio.Queue[Event] = asyncio.Queue()
    edits = ForeignEdits(path, noted.put_nowait)
    try:
        yield edits, noted
    finally:
        edits.close()


async def next_of(noted: asyncio.Queue[Event]) -> FlagFileEdited:
    async with asyncio.timeout(10):
        found = await noted.get()
    assert isinstance(found, FlagFileEdited)
    return found


async def test_each_edit_is_noted_once_and_says_how_old_the_content_before_may_be(path: Path) -> None:
    async with watching(path) as (_, noted):
        edits: list[tuple[Callable[[], object], str]] = [
            (lambda: write(path, OFF), "off"),
            (lambda: write(path, ON), "not off"),
            (path.unlink, "torn"),
            (lambda: write(path, ON), "not off"),
        ]
        for change, expected in edits:
            change()
            found = await next_of(noted)
            assert found.found == expected
            assert found.ago > 0
        assert noted.empty()


async def test_the_runs_own_changes_are_not_noted(path: Path) -> None:
    async with watching(path) as (edits, noted):
        with edits.own_change():
            write(path, OFF)
        write(path, ON)
        assert (await next_of(noted)).found == "not off"
        assert noted.empty()


@pytest.mark.parametrize(
    ("flag", "off"),
    [
        (OFF, True), (ON, False), ({**OFF, "offVariation": 1}, False), ({**OFF, "offVariation": None}, True),
        ({**OFF, "offVariation": 9}, True), ({**OFF, "variations": 3}, False), ({**ON, "deleted": True}, True),
        ({**ON, "on": 0}, False),
    ],
)  # fmt: skip
def test_off_is_claimed_only_where_it_is_safe_for_every_sandbox(flag: dict[str, Any], off: bool, path: Path) -> None:
    assert _said(path, text(flag).encode()) == ("off" if off else "not off")


@pytest.mark.parametrize("found", [b"", b"{", b"\xff", "No such file or directory"])
def test_what_is_no_whole_document_says_nothing(found: bytes | str, path: Path) -> None:
    assert _said(path, found) == "torn"
    assert _said(path, b"{}") == "off"
