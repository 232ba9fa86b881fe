from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.tui import replay
from sim.tui.replay import Mark, Playback, Recording, beside, marks
from sim.tui.spans import Span, text, width


def entry(t: float, event: Event, sandbox: str | None = None) -> Entry:
    return Entry(t, event, sandbox, f"{sandbox}.p1" if sandbox else None)


STORY = [
    entry(0.0, events.RunStarted(1, "0", "run", "demo", 42, [], "", 1, "disk", None)),
    entry(0.1, events.SandboxCreated(1 << 20, 4096, 4096, "python", "acme", "local"), "web-0"),
    entry(1.0, events.StepStarted(0, "pause", 13, 5)),
    entry(1.1, events.Decided({}), "web-0"),
    entry(1.2, engine_events.Condemned("web-0.p1"), "web-0"),
    entry(1.3, events.FaultFired(1, "copy.write", "ENOSPC", 3), "web-0"),
    entry(1.25, events.Ticked(1)),  # another process wrote it later
    entry(1.4, events.StateChanged("pausing", "discarded", "why", "discarded"), "web-0"),
    entry(2.0, events.StepEnded(0)),
    entry(
        3.0,
        events.Judged("invariant:never_resumed", "violated", 1, [{"sandbox": "web-0", "reason": "ran", "line": 13}]),
    ),
    entry(3.0, events.Judged("metric:peak", "violated", 1, [{"sandbox": "web-0", "reason": "high", "line": 13}])),
    entry(4.0, events.RunEnded("violated", 1, {}, None, 0)),
]


@pytest.mark.parametrize("t", [0.0, 0.1, 1.2, 1.35, 4.0])
def test_a_recording_at_any_time_is_the_fold_up_to_then_whether_one_comes_from_before_or_after(t: float) -> None:
    recording = Recording(STORY)
    recording.view_at(0.5)
    fold = Fold()
    fold.apply(each for each in STORY if each.t <= t)
    from_before = recording.view_at(t)
    recording.view_at(recording.end)
    assert dataclasses.replace(from_before, log=()) == dataclasses.replace(fold.view(), log=())
    assert recording.view_at(t) == from_before


def test_marks_are_where_it_happened_and_a_violation_is_where_it_was_found() -> None:
    assert marks(STORY) == (
        Mark(1.1, "pause"),
        Mark(1.2, "condemn"),
        Mark(1.3, "fault", "fault: copy.write ENOSPC on web-0"),
        Mark(1.4, "discard"),
        Mark(2.0, "violation", "never_resumed: web-0: ran"),
    )


def test_playing_goes_on_at_its_speed_and_stops_at_the_end() -> None:
    playback = Playback(10.0)
    playback.change(1)
    playback.advance(1.0)
    assert (playback.t, playback.words) == (2.0, "playing 2x")
    playback.change(-100)
    playback.advance(1.0)
    assert playback.t == pytest.approx(2.001)
    playback.toggle()
    playback.advance(1.0)
    assert playback.t == pytest.approx(2.001)
    assert playback.words == "stopped"
    playback.seek(11.0)
    assert (playback.t, playback.words) == (10.0, "at its end")
    playback.toggle()
    assert (playback.t, playback.stopped) == (0.0, False)


@pytest.mark.parametrize(
    ("t", "direction", "found"), [(0.0, 1, 1.0), (1.0, 1, 2.0), (2.0, 1, None), (2.0, -1, 1.0), (1.0, -1, None)]
)
def test_a_jump_leaves_where_one_is(t: float, direction: int, found: float | None) -> None:
    assert beside([1.0, 2.0], t, direction) == found


@pytest.mark.parametrize("cells", [20, 80, 140, 200])
@pytest.mark.parametrize("said", [None, Span("never_resumed: web-0: a guest runs although its memory was freed")])
def test_the_foot_is_never_wider_than_the_screen(cells: int, said: Span | None) -> None:
    playback = Playback(4.0)
    playback.seek(1.2)
    lines = replay.foot(playback, marks(STORY), said, cells)
    assert len(lines) == 3
    assert all(width(line) <= cells for line in (lines[0], lines[2]))
    assert text(lines[0]).count("┃") == 1


def test_the_graver_of_two_marks_on_one_cell_is_drawn() -> None:
    playback = Playback(4.0)
    line = text(replay.time_line(playback, [Mark(2.0, "violation", "x"), Mark(2.0, "pause")], 42))
    assert "‼" in line
    assert "▴" not in line


def test_a_recording_is_shown_where_there_are_none_of_linuxs_own_calls() -> None:
    """The engine's system calls are those of one kernel; what tells a recording needs none of them."""
    code = (
        "import sys; sys.modules['engine.linux'] = None; import sim.tui.replay, sim.record.folder, sim.commands.replay"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
