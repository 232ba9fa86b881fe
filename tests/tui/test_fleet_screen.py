"""Keys, and what they ask of the run; what comes back, and what of it is seen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from engine import events as engine_events
from sim.files.faults import AtChunk
from sim.record import events
from sim.tui.fleet_app import FleetApp
from sim.tui.screens.fleet import FleetScreen
from sim.tui.screens.help import HelpScreen
from sim.tui.screens.map import MapScreen
from tests.tui.looking import seen, until, until_seen

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"


def app_for(drill: RecordedDrill) -> FleetApp:
    return FleetApp(lambda: drill)


@pytest.mark.parametrize(
    ("keys", "call"),
    [
        ("p", ("pause", ["web-0"])),
        ("down p", ("pause", ["web-1"])),
        ("j j k p", ("pause", ["web-1"])),
        ("G p", ("pause", ["web-5"])),
        ("G g p", ("pause", ["web-0"])),
        ("x j x p", ("pause", ["web-0", "web-2"])),
        ("x escape p", ("pause", ["web-1"])),
        ("X p", ("pause", [f"web-{number}" for number in range(6)])),
        ("slash 3 enter X escape escape p", ("pause", ["web-3"])),
        ("slash w e b minus 4 enter p", ("pause", ["web-4"])),
        ("slash 4 enter x slash 5 enter x p", ("pause", ["web-4", "web-5"])),
        ("K", ("set_flag", PUNCH, False)),
        ("d y", ("kill", ["web-0"])),
        ("d n x x d enter", ("kill", ["web-0", "web-1"])),
        ("P", ("pause", [f"web-{number}" for number in range(6)])),
        ("a", ("pause", [f"web-{number}" for number in range(6)])),
        ("r", ("resume", ["web-0"])),
        ("t", ("tick", 1)),
        ("f", ("set_flag", PUNCH, True)),
        ("b", ("set_flag", BACKGROUND, False)),
        ("j e", ("inject", "copy.write", "ENOSPC", AtChunk(3), "web-1")),
        ("E", ("inject", "copy.write", "ENOSPC", AtChunk(3), "*")),
        ("c", ("clear",)),
    ],
)
async def test_a_key_asks_the_run_for_one_thing(keys: str, call: tuple[object, ...], drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press(*keys.split())
        await until(pilot, lambda: len(drill.calls) > 1, "the run was asked")
        assert drill.calls == [("started",), call]


async def test_requests_are_made_one_after_the_other_in_order(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("f", "P", "r")
        await until(pilot, lambda: len(drill.calls) == 4, "all three were asked")
        assert [call[0] for call in drill.calls[1:]] == ["set_flag", "pause", "resume"]


async def test_a_changed_flag_is_seen(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "memfd-punch-on-snapshot ○ off")
        await pilot.press("f")
        await until_seen(pilot, "memfd-punch-on-snapshot ● on")
        await until_seen(pilot, "flag memfd-punch-on-snapshot is now on")


async def test_the_point_of_no_return_is_seen_in_the_row_and_in_the_log(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        drill.begin_pause("web-2", punch=True)
        await until_seen(pilot, "web-2    ◐ pausing")
        assert "CONDEMNED" not in seen(pilot.app)
        drill.publish("web-2", 1, punch=True)
        await until_seen(pilot, "web-2    ◆ CONDEMNED")
        await until_seen(pilot, "web-2 condemned: point of no return")


async def test_a_refused_resume_is_explained_in_words_under_the_fleet_and_in_the_log(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(110, 30)) as pilot:
        drill.discard("web-0")
        await until_seen(pilot, "web-0    ✗ discarded")
        drill.tell(events.RequestRefused("resume", "it was discarded and can never run again: ENOSPC"), "web-0")
        await until_seen(pilot, "web-0 ✗ discarded; refused: it was discarded and can never run again: ENOSPC")
        await until_seen(pilot, "web-0 resume refused: it was discarded and can never run again: ENOSPC")


async def test_a_refusal_away_from_the_cursor_is_shown_as_well(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        drill.tell(events.RequestRefused("resume", "it was discarded"), "web-5")
        await until(pilot, lambda: len(pilot.app._notifications) == 1, "a toast is up")
        assert [toast.message for toast in pilot.app._notifications] == ["web-5 resume refused: it was discarded"]


async def test_refusals_for_the_same_reason_are_one_toast(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(110, 30)) as pilot:
        await until_seen(pilot, "● running")
        drill.tell(events.RequestRefused("resume", "it is running"), "web-1")
        drill.tell(events.RequestRefused("resume", "it was discarded"), "web-2")
        for number in (3, 4, 5):
            drill.tell(events.RequestRefused("resume", "it is running"), f"web-{number}")
        await until(pilot, lambda: len(pilot.app._notifications) == 2, "the toasts are up")
        assert [toast.message for toast in pilot.app._notifications] == [
            "web-1, web-3 … web-5 (4) resume refused: it is running",
            "web-2 resume refused: it was discarded",
        ]


async def test_a_request_that_fails_is_one_line_and_the_screen_goes_on(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        drill.error = TimeoutError("the copy did not end within 60 s\nand more")
        await pilot.press("p")
        await until_seen(pilot, "pausing web-0 failed: the copy did not end within 60 s")
        assert "and more" not in seen(pilot.app)
        drill.error = None
        await pilot.press("t")
        await until(pilot, lambda: ("tick", 1) in drill.calls, "the next request is made")


async def test_nobody_to_pause_is_said(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        for number in range(6):
            drill.discard(f"web-{number}")
        await until_seen(pilot, "web-5    ✗ discarded")
        await pilot.press("P")
        await until_seen(pilot, "no sandbox is there for that")
        assert drill.calls == [("started",)]


async def test_a_violation_is_seen_at_once(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        drill.finish_pause("web-0", punch=False)
        await until_seen(pilot, "HELD so far")
        drill.violated.append({"sandbox": "web-0", "reason": "a punched guest ran"})
        await until_seen(pilot, "‼ VIOLATED (1)")


async def test_quitting_judges_tears_down_and_keeps_the_verdict(drill: RecordedDrill) -> None:
    app = app_for(drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "the app has ended")
    assert drill.calls == [("started",), ("finish",), ("torn down",)]
    assert app.last is not None
    assert app.last.ended is not None
    assert app.failure is None


async def test_a_signal_ends_the_run_like_quitting(drill: RecordedDrill) -> None:
    app = app_for(drill)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "● running")
        app.end_by_signal(15)
        await until(pilot, lambda: not app.is_running, "the app has ended")
    assert app.signal == 15
    assert drill.calls[-1] == ("torn down",)


async def test_an_app_that_dies_still_tears_the_run_down(drill: RecordedDrill) -> None:
    app = app_for(drill)

    async def die() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await until_seen(pilot, "● running")
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        await die()
    assert drill.calls == [("started",), ("finish",), ("torn down",)]


async def test_restarting_ends_the_run_and_shows_a_new_one(drill: RecordedDrill) -> None:
    made: list[RecordedDrill] = []

    def start() -> RecordedDrill:
        fresh = type(drill)()
        fresh.tell_of_fleet(["web-0", f"run-{len(made)}"])
        made.append(fresh)
        return fresh

    app = FleetApp(start)
    async with app.run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "run-0    ● running")
        made[0].tell(events.Ticked(7))
        await until_seen(pilot, "tick 7: every running guest")
        await pilot.press("R", "y")
        await until_seen(pilot, "run-1    ● running")
        assert "tick 7" not in seen(app)
        assert made[0].calls == [("started",), ("finish",), ("torn down",)]
        assert made[1].calls == [("started",)]


async def test_leaving_while_the_guests_start_tears_down_at_once_what_has_started(drill: RecordedDrill) -> None:
    class Slow(type(drill)):  # type: ignore[misc]
        async def __aenter__(self) -> Slow:
            self.calls.append(("starting",))
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.calls.append(("torn down",))
                raise
            return self

    slow = Slow()
    app = FleetApp(lambda: slow)
    async with app.run_test(size=(100, 30)) as pilot:
        slow.tell_of_fleet(["web-0", "web-1"])
        await until_seen(pilot, "starting the node and its guests: 2 guests up", "web-1    ● running")
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "the app has ended")
    assert slow.calls == [("starting",), ("torn down",)]
    assert app.failure is None


async def test_a_second_q_waits_no_longer_for_what_is_under_way(drill: RecordedDrill) -> None:
    app = app_for(drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "● running")
        drill.waits = asyncio.Event()
        await pilot.press("p", "q")
        await until_seen(pilot, "pausing web-0")
        await pilot.pause(0.3)
        assert app.is_running
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "the app has ended")
    assert drill.calls == [("started",), ("pause", ["web-0"]), ("finish",), ("torn down",)]


async def test_a_run_that_does_not_start_ends_the_app_with_its_reason(drill: RecordedDrill) -> None:
    def start() -> RecordedDrill:
        raise PermissionError("no memfd here")

    app = FleetApp(start)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.failure is not None, "it failed")
    assert str(app.failure) == "no memfd here"


async def test_help_explains_every_sign_and_closes_again(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(140, 45)) as pilot:
        await until_seen(pilot, "● running")
        await pilot.press("question_mark")
        await until_seen(pilot, "pause: freeze, copy, tear down")
        await pilot.press("pagedown", "pagedown")
        await until_seen(pilot, "◆ CONDEMNED   past the point of no return")
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, HelpScreen)


async def test_a_filter_shows_only_some_and_says_how_many_until_it_is_dropped(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "web-5    ● running")
        drill.discard("web-2")
        await pilot.press("slash", *"disc")
        await until_seen(pilot, "filter disc  1 of 6 shown")
        assert "▶ web-2    ✗ discarded" in seen(pilot.app)
        assert "web-5" not in seen(pilot.app).split("─ events")[0]
        await pilot.press("escape")
        await until_seen(pilot, "  web-5    ● running")
        assert "filter" not in seen(pilot.app).split("─ events")[0]
        assert "▶ web-2    ✗ discarded" in seen(pilot.app)


async def test_a_filter_that_fits_nobody_leaves_nobody_to_act_on(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "web-5    ● running")
        await pilot.press("slash", *"nobody", "enter", "p")
        await until_seen(pilot, "no sandbox is there for that")
        assert drill.calls == [("started",)]


async def test_the_next_column_sorts_and_the_cursor_stays_on_its_sandbox(drill: RecordedDrill) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "▶ web-0    ● running")
        drill.discard("web-4")
        await until_seen(pilot, "web-4    ✗ discarded")
        await pilot.press("s")
        await until_seen(pilot, "state▾")
        table = seen(pilot.app).split("─ events")[0]
        assert table.index("web-4    ✗ discarded") < table.index("▶ web-0    ● running")


async def test_a_thousand_rows_scroll_with_the_cursor(drill: RecordedDrill) -> None:
    many = type(drill)()
    many.tell_of_fleet([f"web-{number}" for number in range(1000)])
    async with app_for(many).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "1000 sandboxes by state")
        await pilot.press("escape")
        await until_seen(pilot, "web-0    ● running")
        await pilot.press("G")
        await until_seen(pilot, "▶ web-999  ● running")
        await pilot.press("g")
        await until_seen(pilot, "▶ web-0    ● running")


async def test_only_rows_that_changed_are_drawn_again(drill: RecordedDrill, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app_for(drill).run_test(size=(80, 24)) as pilot:
        await until_seen(pilot, "web-5    ● running")
        app: Any = pilot.app
        drawn: list[int] = []
        table = app._fleet._table
        row = table._row

        def counted(index: int, cells: int, **marks: bool) -> Any:
            drawn.append(index)
            return row(index, cells, **marks)

        monkeypatch.setattr(table, "_row", counted)
        published = engine_events.ChunkPublished(chunk=0, length=1, span=1, source_resident=0, cache_resident=32 << 20)
        drill.tell(published, "web-3")
        await until_seen(pilot, "web-3    ● running    ▓▓▓▓▓▓▓▓▓▓·········")
        assert set(drawn) == {3}


async def test_a_fleet_of_two_hundred_is_shown_as_a_map_once(drill: RecordedDrill) -> None:
    for number in range(200):
        drill.tell(events.SandboxCreated(1 << 20, 4096, 4096, "base", "acme", "local"), f"many-{number}")
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, MapScreen), "the map")
        await pilot.press("escape")
        app.look()
        await until(pilot, lambda: isinstance(app.screen, FleetScreen), "the fleet")
