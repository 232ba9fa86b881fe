"""A sandbox's pages as cells, and a pause's stages as a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sim.record.stages import NO_TRACK, Pace, Track
from sim.record.view import PauseView, SandboxView
from sim.tui import charts, page_map
from sim.tui.spans import Spans, text, width
from tests.story import at_its_end

MIB = 1 << 20
SANDBOX = SandboxView(
    "web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="pausing", incarnation="web-0.1", resident=32 * MIB
)
PAUSE = PauseView("web-0.p1", "web-0", 2.0, incarnation="web-0.1", path="memfd", punch=True, chunks=16)
SCANNED = replace(NO_TRACK, runs="512d 256c 256z")


def with_track(track: Track, pause: PauseView = PAUSE, sandbox: SandboxView = SANDBOX) -> SandboxView:
    return replace(sandbox, pause=replace(pause, track=track))


def shown(lines: Sequence[Spans]) -> str:
    return "\n".join(map(text, lines))


def states(track: Track, pause: PauseView = PAUSE) -> str:
    sandbox = with_track(track, pause)
    assert sandbox.pause is not None
    return page_map.states(sandbox, sandbox.pause)


def test_a_copied_chunk_is_drawn_where_it_was_dirty_only() -> None:
    letters = states(replace(SCANNED, copied=((15 * MIB, 17 * MIB),)))
    assert letters == "d" * 480 + "w" * 32 + "c" * 256 + "z" * 256


def test_a_punched_chunk_is_gone_with_all_of_its_span() -> None:
    spans = ((15 * MIB, 17 * MIB),)
    assert states(replace(SCANNED, copied=spans, punched=spans)) == "d" * 480 + "p" * 64 + "c" * 224 + "z" * 256


def test_clean_and_zero_pages_go_first_when_punching_begins() -> None:
    assert states(replace(SCANNED, clean_punched=True)) == "d" * 512 + "p" * 512


@pytest.mark.parametrize(("condemned", "letter"), [(None, "u"), (2.1, "U")])
def test_what_is_under_a_copier_turns_at_the_point_of_no_return(condemned: float | None, letter: str) -> None:
    letters = states(replace(SCANNED, under={0: (0, 2 * MIB)}), replace(PAUSE, condemned_at=condemned))
    assert letters.startswith(letter * 64 + "d")


@pytest.mark.parametrize(("cells", "height"), [(80, 9), (140, 13), (200, 30), (40, 5)])
def test_the_map_fits_and_its_legend_adds_up(cells: int, height: int) -> None:
    lines = page_map.lines(with_track(SCANNED), cells, height)
    assert len(lines) <= height
    assert all(width(line) <= cells for line in lines)
    assert "dirty 16 MiB" in shown(lines)


def test_a_wide_screen_shows_a_cell_for_each_of_the_scan() -> None:
    drawn = shown(page_map.lines(with_track(SCANNED), 140, 13)[1:-1])
    assert [drawn.count(glyph) for glyph in "█▪·"] == [512, 256, 256]


def test_pages_of_a_guest_that_is_gone_are_said_to_be() -> None:
    finished = at_its_end(replace(PAUSE, settled_at=3.0))
    sandbox = with_track(SCANNED, finished, replace(SANDBOX, state="paused"))
    assert "as pause web-0.p1 left them; that guest is gone" in shown(page_map.lines(sandbox, 140, 13))


def test_the_stages_are_told_in_milliseconds_since_the_decision() -> None:
    stages = {"decided": 2.0, "frozen": 2.0004, "scanned": 2.0016, "condemned": 2.004, "finished": 2.02}
    said = shown(charts.time_lines(with_track(replace(SCANNED, stages=stages)), 140, 5))
    assert "frozen +0.4 ms  scanned +1.6 ms  ◆ condemned +4.0 ms  finished +20 ms" in said


def test_the_axis_turns_where_the_guest_is_condemned() -> None:
    stages = {"decided": 2.0, "condemned": 2.01, "finished": 2.02}
    axis = charts.time_lines(with_track(replace(SCANNED, stages=stages)), 80, 5)[1]
    bar = "".join(span.text for span in axis[1:-1])
    at = bar.index("◆")
    assert abs(at - len(bar) // 2) <= 1
    assert {span.tone for span in axis[1 : 1 + at]} == {"busy"}
    assert {span.tone for span in axis[1 + at : -1]} == {"condemned"}


def test_before_condemn_it_can_still_roll_back_and_after_it_cannot() -> None:
    before, after = with_track(SCANNED), with_track(SCANNED, replace(PAUSE, condemned_at=2.1))
    assert "it can still roll back" in shown(charts.time_lines(before, 80, 5))
    assert "◆ no way back" in shown(charts.time_lines(after, 80, 5))
    assert "◆ past the point of no return" in shown(charts.time_lines(after, 140, 5))


def test_a_held_copy_says_before_what_and_that_it_is_in_no_figure() -> None:
    held = replace(SCANNED, paced=True, waits_for="chunk", under={3: (0, 1), 4: (1, 2)})
    sandbox = replace(with_track(held), pace=Pace(200.0, held=True))
    said = shown(charts.time_lines(sandbox, 140, 5))
    assert "SLOWED x200" in said
    assert "STOPPED before chunks 3, 4" in said
    assert "in no figure" in said
    at_condemn = replace(with_track(replace(held, waits_for="condemn")), pace=Pace(held=True))
    assert "STOPPED before condemn" in shown(charts.time_lines(at_condemn, 80, 5))
