"""What is asked of a run: one thing at a time, but for the pace, and for settings while a copy is held."""

from __future__ import annotations

import asyncio
from typing import Any

from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.tui.frames import CRASHED, NOBODY, Live
from sim.tui.requests import Request

WEB = events.SandboxCreated(1 << 20, 4096, 4096, "python", "acme", "local")


class SlowDrill:
    """Its requests are over when it is told so; `asked` is what it was asked so far."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.fold = Fold()
        self.fold.apply([Entry(0.0, WEB, "web-0", None)])

    def violations(self) -> list[dict[str, Any]]:
        return []

    def view(self) -> View:
        return self.fold.view()

    async def pace(self, sandboxes: str, **_asked: object) -> None:
        self.asked.append(f"pace of {sandboxes}")
        self.go_on.set()


def request(name: str, *, at_once: bool = False, setting: bool = False) -> Request:
    async def ask(drive: Any) -> None:
        drive.asked.append(name)
        await drive.go_on.wait()

    return Request(name, ask, at_once=at_once, setting=setting)


def begun(drill: SlowDrill) -> Live:
    live = Live()
    drive: Any = drill
    live.begin(drive)
    live.next()
    return live


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_thing_is_asked_at_a_time() -> None:
    drill = SlowDrill()
    live = begun(drill)
    live.ask(request("a"))
    live.ask(request("b"))
    await settle()
    assert drill.asked == ["a"]
    assert live.status is not None
    assert live.status.text == "a, then b …"
    drill.go_on.set()
    await settle()
    assert drill.asked == ["a", "b"]
    assert not live.is_asked


async def test_what_sets_the_pace_waits_for_nothing() -> None:
    drill = SlowDrill()
    live = begun(drill)
    live.ask(request("a"))
    live.ask(request("hold", at_once=True))
    await settle()
    assert drill.asked == ["a", "hold"]


async def test_a_setting_waits_its_turn_unless_a_copy_is_held() -> None:
    drill = SlowDrill()
    live = begun(drill)
    live.ask(request("a"))
    live.ask(request("early", setting=True))
    await settle()
    assert drill.asked == ["a"]
    drill.fold.apply([Entry(1.0, events.PaceSet(1.0, True), "web-0", None)])
    live.next()
    live.ask(request("arm", setting=True))
    await settle()
    assert drill.asked == ["a", "arm"]


async def test_before_the_end_what_is_held_is_let_go_and_what_waits_is_dropped() -> None:
    drill = SlowDrill()
    live = begun(drill)
    drill.fold.apply([Entry(1.0, events.PaceSet(1.0, True), "web-0", None)])
    live.next()
    live.ask(request("a"))
    live.ask(request("b"))
    await settle()
    async with asyncio.timeout(10):
        await live.no_more_requests()
    await settle()
    assert drill.asked == ["a", "pace of *"]


async def test_who_asks_for_nobody_or_of_no_run_is_told() -> None:
    live = Live()
    live.ask(request("a"))
    assert live.status is not None
    assert "no run to ask" in live.status.text
    live = begun(SlowDrill())
    live.ask(None)
    assert live.status is not None
    assert live.status.text == NOBODY


async def test_a_run_that_nobody_drives_refuses_with_its_own_word() -> None:
    live = Live()
    live.show(View, "a recording")
    live.ask(request("a"))
    assert live.status is not None
    assert live.status.text == "a recording"


async def test_what_fails_with_the_node_says_how_to_go_on() -> None:
    drill = SlowDrill()
    live = begun(drill)

    async def crash(_drive: Any) -> None:
        drill.fold.apply([Entry(1.0, events.NodeCrashed(100), None, None)])
        raise ConnectionError("the node died")

    live.ask(Request("pausing web-0", crash))
    await settle()
    assert live.status is not None
    assert live.status.text == f"pausing web-0 failed: {CRASHED}"
