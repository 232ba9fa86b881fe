"""What a crash left is completed only out of memory that is known to be whole, and kept until its build has an end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.cache import PARTIAL
from engine.completion import Left
from engine.errors import FreezeError
from engine.events import Event, GuestKilled, GuestLooked, KeeperAsked
from engine.snapshot import Header, template
from sim.node import completing
from sim.node.completing import ToSalvage, complete_kept, look_at_last
from sim.node.guest_link import Guest
from sim.node.node import Node
from sim.record import events
from sim.record.ledger import Entry
from tests.descriptors import open_before

PAUSE = "web-0.p1"
FROZEN = events.GuestFrozen("web-0.1", 1.0, {"1": [1, 1]})
CLEAN = GuestLooked("kill", {"1": [1, 1]})
RAN = GuestLooked("kill", {"1": [2, 1]}, "ran")
KILLED = GuestKilled()


def entries(*happened: Event) -> list[Entry]:
    return [Entry(1.0, each, "web-0", PAUSE) for each in (FROZEN, KeeperAsked(PAUSE), *happened)]


class Dying:
    """A guest's process: SIGKILL is sent, and `error` says that its death was not seen."""

    def __init__(self, error: Exception | None = None) -> None:
        self.frozen: Any = None
        self.error = error

    def end(self) -> None:
        pass

    def await_death(self) -> None:
        if self.error is not None:
            raise self.error


class Lines:
    """A ledger; that of a full disk takes no line."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full

    def append(self, event: Event, **_place: str) -> None:
        if self.full:
            raise OSError(28, f"No space left on device: {event}")

    def try_append(self, _event: Event, **_place: str) -> bool:
        return not self.full


class Keeping:
    """A zygote's link that gives the memory of these builds, and notes what it lets go of."""

    def __init__(self, *builds: str) -> None:
        self.held = [*builds]
        self.dropped: list[str] = []

    def exchange(self, _fds: Sequence[int], _seconds: float, **command: str) -> tuple[dict[str, Any], list[int]]:
        self.dropped.append(command["build"])
        return {"dropped": command["build"]}, []

    def exchange_all(self, **_command: str) -> list[tuple[dict[str, Any], list[int]]]:
        return [({"kept": build}, [os.open(os.devnull, os.O_RDONLY)]) for build in self.held]


def node(folder: Path, link: Keeping | None = None, *, full: bool = False) -> Node:
    (folder / f"{PAUSE}{PARTIAL}").mkdir(exist_ok=True)
    lines = Lines(full=full)
    made = SimpleNamespace(builds=folder, sandboxes={}, ledger=lines, link=link or Keeping(PAUSE), spill=None)
    return cast("Node", made)


def ends(folder: Path, monkeypatch: pytest.MonkeyPatch, past: list[Entry], process: Dying | None) -> str:
    """What becomes of a pause; `complete` gives the build where it is called."""
    monkeypatch.setattr(completing, "complete", lambda left: replace(template(4096, 4096), build=left.build))
    living = {} if process is None else {"web-0.1": cast("Guest", SimpleNamespace(process=process))}

    async def recovered() -> dict[str, str]:
        made = node(folder)
        return await complete_kept(made, await look_at_last(made, {PAUSE}, living, past))

    return asyncio.run(recovered())[PAUSE]


LIVES = FreezeError("it does not die")


@pytest.mark.parametrize(
    ("happened", "process", "code"),
    [
        ((CLEAN, KILLED), None, "whole"),
        ((CLEAN, KILLED), Dying(), "whole"),
        ((CLEAN, KILLED), Dying(LIVES), "guest-lives"),
        ((CLEAN, KILLED), Dying(OSError(1, "no")), "guest-lives"),
        ((KILLED,), None, "torn"),
        ((KILLED,), Dying(), "torn"),
        ((RAN, KILLED), None, "torn"),
        ((), None, "torn"),
        ((), Dying(), "whole"),
        ((), Dying(LIVES), "guest-lives"),
    ],
    ids=lambda each: "-".join(type(one).__name__ for one in each) if isinstance(each, tuple) else None,
)
def test_memory_is_completed_only_where_its_guest_had_not_run_and_was_seen_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happened: tuple[Event, ...], process: Dying | None, code: str
) -> None:
    assert ends(tmp_path, monkeypatch, entries(*happened), process) == code


TWO = (ToSalvage("web-0.p1", "web-0"), ToSalvage("web-1.p1", "web-1"))


def test_a_full_disk_costs_no_kept_memory_before_its_build_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Keeping("web-0.p1", "web-1.p1", "web-2.p1")
    dropped: list[list[str]] = []

    def completed(left: Left) -> Header:
        dropped.append([*link.dropped])
        return replace(template(4096, 4096), build=left.build)

    monkeypatch.setattr(completing, "complete", completed)
    ends = asyncio.run(complete_kept(node(tmp_path, link, full=True), TWO))
    assert ends == {"web-0.p1": "whole", "web-1.p1": "whole"}
    assert dropped == [[], ["web-0.p1"]]
    assert link.dropped == ["web-0.p1", "web-1.p1", "web-2.p1"]


def test_a_recovery_that_fails_leaves_what_is_kept_to_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, fds = Keeping("web-0.p1", "web-1.p1"), open_before()

    def broken(_left: Left) -> Header:
        raise MemoryError

    monkeypatch.setattr(completing, "complete", broken)
    with pytest.raises(MemoryError):
        asyncio.run(complete_kept(node(tmp_path, link), TWO))
    assert link.dropped == []
    assert len(os.listdir("/proc/self/fd")) == fds
