from __future__ import annotations

from dataclasses import replace
from typing import Any

from flags.catalog import BACKGROUND, PUNCH
from sim.files.faults import AtChunk, failing
from sim.record.view import SandboxView, View
from sim.tui import requests
from sim.tui.requests import Request

MIB = 1 << 20
WEB = SandboxView("web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="running")


class Asked:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **_options: Any) -> None:
            self.calls.append((name, *args))

        return call


async def asked(request: Request | None) -> list[tuple[Any, ...]]:
    assert request is not None
    drive: Any = Asked()
    await request.ask(drive)
    calls: list[tuple[Any, ...]] = drive.calls
    return calls


async def test_a_request_names_who_it_is_for() -> None:
    request = requests.pause(["web-0", "web-1"])
    assert request is not None
    assert request.doing == "pausing web-0, web-1"
    assert await asked(request) == [("pause", ["web-0", "web-1"])]
    many = requests.resume([f"web-{number}" for number in range(9)])
    assert many is not None
    assert many.doing == "resuming 9 sandboxes"


def test_there_is_no_request_for_nobody() -> None:
    assert requests.pause([]) is None
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
