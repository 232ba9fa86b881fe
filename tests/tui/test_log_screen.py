"""The log screen: everything that happened, and the words that are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.tui.fleet_app import FleetApp
from sim.tui.screens.fleet import FleetScreen
from tests.tui.looking import seen, until, until_seen
from tests.tui.test_fleet_goldens import tell_a_story

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill


async def test_a_sentence_that_is_longer_than_the_screen_stands_whole(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(80, 40)) as pilot:
        tell_a_story(drill)
        await pilot.press("5")
        await until_seen(pilot, "resume refused")
        words = " ".join(seen(pilot.app).split())
        assert "never run again: copy.write of chunk 3 failed: No space left on device (injected)" in words
        assert "…" not in words.replace("web-1 … web-5", "")


async def test_only_sentences_with_the_words_are_shown_until_they_are_dropped(drill: RecordedDrill) -> None:
    app = FleetApp(lambda: drill)
    async with app.run_test(size=(100, 40)) as pilot:
        tell_a_story(drill)
        await pilot.press("5", "slash", *"web-3 refused", "enter")
        await until_seen(pilot, "with web-3 refused  1 sentence")
        assert "condemned" not in seen(app)
        await pilot.press("escape")
        await until_seen(pilot, "web-2 condemned")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, FleetScreen), "back on the fleet")


async def test_details_are_shown_where_they_are_asked_for(drill: RecordedDrill) -> None:
    async with FleetApp(lambda: drill).run_test(size=(100, 60)) as pilot:
        tell_a_story(drill)
        await pilot.press("5")
        await until_seen(pilot, "web-2 condemned")
        assert "is published" not in seen(pilot.app)
        await pilot.press("f")
        await until_seen(pilot, "is published")
