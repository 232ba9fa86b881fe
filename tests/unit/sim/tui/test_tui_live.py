"""What is asked of a run: in order where the same sandboxes are concerned, and nobody waits for a stopped copy."""

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


def state(new: str, name: str = "web-0") -> Entry:
    return Entry(1.0, events.StateChanged("running", new, "asked"), name, None)


class SlowDrill:
    """Its requests are over when it is told so; `asked` is what it was asked so far."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.fold = Fold()
        self.fold.apply([Entry(0.0, WEB, name, None) for name in ("web-0", "web-1")])

    def violations(self) -> list[dict[str, Any]]:
        return []

    def view(self) -> View:
        return self.fold.view()

    async def pace(self, sandboxes: str, **_asked: object) -> None:
        self.asked.append(f"pace of {sandboxes}")
        self.go_on.set()


def request(name: str, *of: str, **how: Any) -> Request:
    async def ask(drive: Any) -> None:
        drive.asked.append(name)
        await drive.go_on.wait()

    return Request(name, ask, frozenset(of) if of else None, **how)


def begun(drill: SlowDrill) -> Live:
    live = Live()
    drive: Any = drill
    live.watch(drive.view)
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
    assert live.status.text == "a; 1 waits: b …"
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


async def test_a_setting_waits_its_turn_unless_a_copy_is_stopped() -> None:
    drill = SlowDrill()
    live = begun(drill)
    live.ask(request("a"))
    live.ask(request("early", setting=True))
    await settle()
    assert drill.asked == ["a"]
    drill.fold.apply([Entry(1.0, events.PaceSet(1.0, True), "web-0", None)])
    live.next()
    live.ask(request("arm", setting=True))
    drill.go_on.set()
    async with asyncio.timeout(10):
        while live.is_asked:  # noqa: ASYNC110 - they look again after a while
            await asyncio.sleep(0.01)
    assert drill.asked == ["a", "early", "arm"]


async def test_before_the_end_what_is_stopped_goes_on_and_what_waits_is_dropped() -> None:
    drill = SlowDrill()
    live = begun(drill)
    drill.fold.apply([Entry(1.0, events.PaceSet(1.0, True), "web-0", None)])
    live.next()
    live.ask(request("a", "web-0"))
    live.ask(request("b", "web-0"))
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


async def test_sandboxes_wait_for_nothing_that_is_asked_of_others() -> None:
    drill = SlowDrill()
    live = begun(drill)
    live.ask(request("pause 0", "web-0", pauses=True))
    live.ask(request("pause 1", "web-1", pauses=True))
    live.ask(request("kill 0", "web-0"))
    await settle()
    assert drill.asked == ["pause 0", "pause 1"]
    assert live.status is not None
    assert live.status.text == "pause 0, pause 1; 1 waits: kill 0 …"


async def test_a_tick_waits_for_pauses_but_for_none_that_somebody_stopped() -> None:
    drill = SlowDrill()
    live = begun(drill)
    live.ask(request("pause 0", "web-0", pauses=True))
    live.ask(request("tick"))
    await settle()
    assert drill.asked == ["pause 0"]
    drill.fold.apply([Entry(1.0, events.PaceSet(1.0, True), "web-0", None)])
    live.next()
    async with asyncio.timeout(10):
        while drill.asked != ["pause 0", "tick"]:  # noqa: ASYNC110 - it looks again after a while
            await asyncio.sleep(0.01)


async def test_a_resume_before_the_pause_has_answered_is_refused_at_once_and_later_waits_for_no_copy() -> None:
    drill = SlowDrill()
    live = begun(drill)
    drill.fold.apply([state("running")])
    live.next()
    live.ask(request("pause 0", "web-0", pauses=True))
    await settle()
    for new in ("running", "pausing"):  # asked for, and begun
        drill.fold.apply([state(new)])
        live.next()
        live.ask(request("resume 0", "web-0", resumes=True))
        await settle()
        assert drill.asked == ["pause 0"]
        assert live.note is not None
        assert live.note.text.startswith("resume refused: the pause of web-0 has not answered yet")
    drill.fold.apply([state("paused")])  # its copy goes on
    live.next()
    live.ask(request("resume 0", "web-0", resumes=True))
    await settle()
    assert drill.asked == ["pause 0", "resume 0"]


async def test_what_waits_can_be_dropped_the_latest_first() -> None:
    drill = SlowDrill()
    live = begun(drill)
    for name in ("a", "b", "c"):
        live.ask(request(name))
    await settle()
    live.drop_waiting()
    await settle()
    assert live.note is not None
    assert live.note.text == "dropped: c"
    drill.go_on.set()
    async with asyncio.timeout(10):
        while live.is_asked:  # noqa: ASYNC110 - it is over when it is over
            await asyncio.sleep(0.01)
    assert drill.asked == ["a", "b"]
    live.drop_waiting()
    assert live.note.text == "nothing waits that could be dropped"


async def test_nothing_is_asked_back_where_guests_are_about_to_write() -> None:
    drill, questions = SlowDrill(), list[str]()
    live = begun(drill)
    live.confirm = lambda question, _go_on, _otherwise: questions.append(question)
    live.pause(["web-0"])
    assert len(questions) == 1, "it has written nothing"
    live.ask(request("tick", works=True))
    await settle()
    live.pause(["web-0"])
    assert len(questions) == 1
    drill.go_on.set()
    live.drop_waiting()
