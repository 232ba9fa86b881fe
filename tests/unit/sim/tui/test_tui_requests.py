from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.events import Stranded
from flags.catalog import BACKGROUND, PUNCH
from sim.files.faults import AtChunk, failing
from sim.record.view import MemoryView, PauseView, SandboxView, View
from sim.tui import requests
from sim.tui.requests import Request

MIB = 1 << 20
WEB = SandboxView("web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="running")


class Asked:
    def __init__(self, *views: View) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._views = list(views)

    def view(self) -> View:
        return self._views.pop(0) if self._views else View()

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **_options: Any) -> None:
            self.calls.append((name, *args))

        return call


async def asked(request: Request | None, *views: View) -> list[tuple[Any, ...]]:
    assert request is not None
    drive: Any = Asked(*views)
    await request.ask(drive)
    calls: list[tuple[Any, ...]] = drive.calls
    return calls


async def test_a_request_names_who_it_is_for() -> None:
    request = requests.pause(View(), ["web-0", "web-1"])
    assert request is not None
    assert request.doing == "pausing web-0, web-1"
    assert await asked(request) == [("pause", ["web-0", "web-1"])]
    many = requests.resume([f"web-{number}" for number in range(9)])
    assert many is not None
    assert many.doing == "resuming 9 sandboxes"


def test_there_is_no_request_for_nobody() -> None:
    assert requests.pause(View(), []) is None
    assert requests.resume([]) is None
    assert requests.arm([]) is None
    assert requests.arm_all(View()) is None


async def test_a_flag_is_flipped_and_a_rollout_becomes_on() -> None:
    def flags(value: Any) -> View:
        return View(flags={PUNCH: value})

    assert await asked(requests.toggle_punch(flags(False))) == [("set_flag", PUNCH, True)]
    assert await asked(requests.toggle_punch(flags(True))) == [("set_flag", PUNCH, False)]
    assert await asked(requests.toggle_punch(flags({"rollout": "50%", "by": "sandbox"}))) == [("set_flag", PUNCH, True)]


async def test_a_flag_that_was_never_set_is_flipped_from_its_safe_value() -> None:
    assert await asked(requests.toggle_punch(View())) == [("set_flag", PUNCH, True)]
    assert await asked(requests.toggle_background(View())) == [("set_flag", BACKGROUND, False)]


async def test_a_failure_is_armed_where_the_plan_has_a_chunk_for_it() -> None:
    small = replace(WEB, name="tiny-0", memory=4 * MIB)
    assert await asked(requests.arm([WEB, small])) == [
        ("inject", "copy.write", failing("ENOSPC"), AtChunk(3), "web-0"),
        ("inject", "copy.write", failing("ENOSPC"), "after_condemn", "tiny-0"),
    ]
    fleet = View(sandboxes={"web-0": WEB, "tiny-0": small})
    assert await asked(requests.arm_all(fleet)) == [("inject", "copy.write", failing("ENOSPC"), "after_condemn", "*")]


def test_only_running_sandboxes_are_paused_all_at_once() -> None:
    view = View(sandboxes={"web-0": WEB, "web-1": replace(WEB, name="web-1", state="paused")})
    assert requests.in_state(view, "running") == ["web-0"]


def running(*names: str, **changed: Any) -> View:
    sandboxes = {name: replace(WEB, name=name, incarnation=f"{name}.1") for name in names}
    return View(sandboxes=sandboxes, **changed)


async def test_who_has_nothing_to_copy_is_asked_about_and_works_first_after_a_yes() -> None:
    request = requests.pause(running("web-0", "web-1"), ["web-0"], {"web-0", "web-1"})
    assert request is not None
    assert request.question is not None
    assert "there is nothing to copy" in request.question
    assert await asked(request) == [("tick",), ("pause", ["web-0"])]
    assert request.otherwise is not None
    assert await asked(request.otherwise) == [("pause", ["web-0"])]


def test_where_somebody_has_something_to_copy_nothing_is_asked_back() -> None:
    request = requests.pause(running("web-0", "web-1"), ["web-0", "web-1"], {"web-0"})
    assert request is not None
    assert request.question is None


async def test_after_a_resume_the_guests_work_at_a_tick() -> None:
    before, after = running("web-0"), running("web-0")
    after.sandboxes["web-0"] = replace(WEB, incarnation="web-0.2")
    assert await asked(requests.resume(["web-0"]), before, after) == [("resume", ["web-0"]), ("tick",)]


async def test_after_a_refused_resume_nobody_works() -> None:
    assert await asked(requests.resume(["web-0"]), running("web-0"), running("web-0")) == [("resume", ["web-0"])]


def test_as_many_pause_at_once_as_the_budget_holds_copies_of() -> None:
    names = [f"web-{number}" for number in range(6)]
    roomy = running(*names, memory=MemoryView(guests=6 * 32 * MIB, budget=1024 * MIB))
    assert requests.at_a_time(roomy, names) == 6
    tight = running(*names, memory=MemoryView(guests=6 * 32 * MIB, budget=(6 + 2) * 32 * MIB))
    assert requests.at_a_time(tight, names) == 2
    full = running(*names, memory=MemoryView(guests=6 * 32 * MIB, budget=6 * 32 * MIB))
    assert requests.at_a_time(full, names) == 1


async def test_salvage_is_asked_for_those_that_have_a_stranded_build() -> None:
    strand = Stranded("web-0.p1", chunks=2, length=MIB)
    stranded = PauseView("web-0.p1", "web-0", 0.0, strand=strand)
    others = {
        "web-1": replace(WEB, name="web-1"),
        "web-2": replace(WEB, name="web-2", pause=replace(stranded, strand=None)),
    }
    view = View(sandboxes={"web-0": replace(WEB, state="paused", pause=stranded), **others})
    request = requests.salvage(view, ["web-0", "web-1", "web-2", "gone"])
    assert request is not None
    assert request.doing == "completing the stranded build of web-0"
    assert await asked(request) == [("act", "salvage", ["web-0"])]
    assert requests.salvage(view, ["web-1", "web-2"]) is None
