"""A stored run on screen: played, stopped, scrubbed; and nobody to ask."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import pytest

from engine.events import Event
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.tui.replay import ReplayApp
from tests.tui.looking import seen

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill

GOLDENS = pathlib.Path(__file__).parent / "goldens"


@pytest.fixture
def stored(drill: RecordedDrill, monkeypatch: pytest.MonkeyPatch) -> StoredRun:
    """Six sandboxes; at 2 s a pause, at 4 s a discard by a fault, at 15 s a violation of step 1, at 20 s the end."""
    entries: list[Entry] = []

    def tell(event: Event, sandbox: str | None = None, pause: str | None = None) -> None:
        entries.append(Entry(drill.now, event, sandbox, pause))

    monkeypatch.setattr(drill, "tell", tell)
    drill.tell_of_fleet([f"web-{number}" for number in range(6)])
    drill.now = 2.0
    drill.tell(events.StepStarted(0, "pause", 10, 5))
    drill.finish_pause("web-0", punch=True)
    drill.now = 4.0
    drill.tell(events.StepStarted(1, "pause", 11, 5))
    drill.discard("web-1")
    drill.now = 15.0
    drill.tell(events.StepEnded(1))
    drill.now = 20.0
    found = {"sandbox": "web-1", "reason": "a condemned guest runs again", "line": 11}
    other = {"sandbox": "web-1", "reason": "its page 512 was zero", "line": 11}
    drill.tell(events.Judged("invariant:never_resumed", "violated", 1, [found, other]))
    drill.tell(events.RunEnded("violated", 1, {}, None, 0))
    return StoredRun(pathlib.Path("events.jsonl"), entries)


JUMPS = (
    ("right_square_bracket right_square_bracket", 2.0),
    ("right_square_bracket left_square_bracket", 0.0),
    ("right_curly_bracket right_curly_bracket", 4.0),
    ("end left_curly_bracket", 4.0),
    ("end", 20.0),
    ("end home", 0.0),
    ("n", 4.0),
    ("n n", 15.0),
    ("n n n", 15.0),
    ("n n N", 4.0),
)


async def test_keys_go_to_a_time(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(80, 24)) as pilot:
        for keys, t in JUMPS:
            app.playback.seek(0.0)
            await pilot.press(*keys.split())
            assert app.playback.t == t, keys


async def test_the_past_is_shown_as_it_was(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("end")
        await pilot.pause()
        assert "✗ discarded" in seen(app)
        assert "VIOLATED" in seen(app)
        await pilot.press("home", "right_square_bracket", "right_square_bracket")
        await pilot.pause()
        assert "■ paused" in seen(app)
        assert "✗ discarded" not in seen(app)
        assert "VIOLATED" not in seen(app)
        assert "came too fast" not in seen(app)


async def test_a_violation_is_told_where_one_jumps_to_it(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.press("n", "n")
        await pilot.pause()
        assert "never_resumed: web-1: a condemned guest runs again (and 1 more)" in seen(app)


async def test_what_was_found_is_not_said_to_hold_although_it_was_judged_only_at_the_end(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(120, 24)) as pilot:
        await pilot.press("n")
        await pilot.pause()
        assert "HELD so far" in seen(app)
        await pilot.press("n")
        await pilot.pause()
        assert "VIOLATED (2)" in seen(app)
        await pilot.press("N")
        await pilot.pause()
        assert "HELD so far" in seen(app)


async def test_a_recording_refuses_every_request_calmly(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(80, 24)) as pilot:
        for key in "prfec":
            await pilot.press("right_square_bracket")
            await pilot.pause()
            assert "not asked" not in seen(app)
            await pilot.press(key)
            await pilot.pause()
            assert "a recording: it can be watched, not asked" in seen(app), key


async def test_what_was_refused_is_said_until_somebody_moves_on(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4", "T")
        await pilot.pause()
        assert "a recording: it can be watched, not asked" in seen(app)
        assert "none yet" in seen(app)
        assert "P pauses all" not in seen(app)
        await pilot.press("right_square_bracket")
        await pilot.pause()
        assert "not asked" not in seen(app)


async def test_playing_reaches_the_end(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space")
        app.playback.advance(60.0)
        app.look()
        await pilot.pause()
        assert "at its end" in seen(app)


async def test_every_screen_has_the_time_line_at_its_foot(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(80, 24)) as pilot:
        for keys in (["1"], ["2"], ["3"], ["4"], ["1", "enter"]):
            await pilot.press(*keys)
            await pilot.pause()
            assert "s of 20.000 s" in seen(app), keys
            assert "━" in seen(app) or "┃" in seen(app)


async def test_q_leaves(stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q")
        await pilot.pause()
    assert not app.is_running


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
async def test_a_replayed_run_looks_as_agreed(width: int, height: int, stored: StoredRun) -> None:
    app = ReplayApp(stored, stopped=True)
    async with app.run_test(size=(width, height)) as pilot:
        await pilot.press("n")
        await pilot.pause()
        shown = seen(app) + "\n"
    golden = GOLDENS / f"replay-{width}x{height}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()
