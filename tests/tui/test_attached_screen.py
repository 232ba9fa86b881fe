"""A run of another process on screen: it follows the ledger, asks nothing, and claims no verdict of its own."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import pytest

from engine.events import Event
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import EVENTS_FILE, Ledger
from sim.tui.attached import AttachedApp
from tests.tui.looking import seen, until, until_seen
from tests.tui.test_fleet_goldens import tell_a_story

if TYPE_CHECKING:
    from tests.tui.conftest import RecordedDrill


class Writing:
    """A drill whose events go to a ledger, as another process writes it."""

    def __init__(self, drill: RecordedDrill, folder: pathlib.Path) -> None:
        self.path = folder / EVENTS_FILE
        ledger = Ledger(self.path, 0.0)

        def tell(event: Event, sandbox: str | None = None, pause: str | None = None) -> None:
            ledger.append(event, sandbox=sandbox, pause=pause)

        drill.tell = tell  # type: ignore[method-assign]


async def test_what_another_process_writes_is_seen_as_it_is_written_however_much(
    drill: RecordedDrill, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.record.ledger.MOST_LEDGER_BYTES", 100)
    other = Writing(drill, tmp_path)
    drill.tell_of_fleet(["web-0", "web-1", "web-2", "web-3", "web-4"])
    app = AttachedApp(StoredRun(other.path, []))
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "web-0    ● running", "tick 0 attached", "judged at its end")
        tell_a_story(drill)
        await until_seen(pilot, "web-3    ✗ discarded", "tick 5 attached")
        assert "HELD" not in seen(app)
        drill.tell(events.RunEnded("held", 0, {}, "digest", 0))
        await until_seen(pilot, "HELD", "tick 5 over")
        assert "next:" not in seen(app)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running, "it has left")
    assert app.failure is None


async def test_nothing_can_be_asked_of_it(drill: RecordedDrill, tmp_path: pathlib.Path) -> None:
    other = Writing(drill, tmp_path)
    drill.tell_of_fleet(["web-0"])
    app = AttachedApp(StoredRun(other.path, []))
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "web-0    ● running")
        for key in ("p", "f", "K", "e"):
            app.live.note = None
            await pilot.press(key)
            await until_seen(pilot, "another process drives this run")
        assert "p pause" not in seen(app)
        assert "space play" not in seen(app)
        assert "t tick" not in seen(app)


async def test_a_ledger_that_nobody_can_read_ends_it_with_its_line(
    drill: RecordedDrill, tmp_path: pathlib.Path
) -> None:
    other = Writing(drill, tmp_path)
    drill.tell_of_fleet(["web-0"])
    app = AttachedApp(StoredRun(other.path, []))
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "web-0    ● running")
        with other.path.open("a") as file:
            file.write("no event\n")
        await until(pilot, lambda: not app.is_running, "it has left")
    assert app.failure is not None
    assert str(other.path) in str(app.failure)
