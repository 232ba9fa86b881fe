"""Memory over time as cells: columns of samples, an area of rows, the node's chart and two pauses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.record.stages import NO_TRACK, Sample
from sim.record.view import MemoryView, PauseView, SandboxView, View
from sim.tui import charts
from sim.tui.spans import text, width
from tests.story import at_its_end, settled

MIB = 1 << 20
WEB = SandboxView("web-0", 32 * MIB, 4096, 4096, "python", "acme", "local")
PUNCHED = PauseView(
    "web-0.p1",
    "web-0",
    1.0,
    punch=True,
    settled_at=1.02,
    dirty_bytes=32 * MIB,
    settled=settled(peak_ratio=1.06, dirty_bytes=32 * MIB),
    track=replace(NO_TRACK, samples=(Sample(1.0, 32 * MIB, 0), Sample(1.01, 16 * MIB, 16 * MIB), Sample(1.02, 0, 32))),
)
WHOLE = replace(
    PUNCHED,
    id="web-0.p2",
    punch=False,
    settled=settled("web-0.p2", peak_ratio=2.0),
    track=replace(NO_TRACK, samples=(Sample(2.0, 32 * MIB, 0), Sample(2.01, 32 * MIB, 32 * MIB))),
)


def test_a_column_without_a_sample_shows_what_was_known_last() -> None:
    samples = (Sample(0.0, 1, 0), Sample(5.0, 2, 0))
    found = charts.columns(samples, 0.0, 10.0, 10)
    assert [each.source for each in found if each] == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_a_column_with_several_samples_shows_the_peak() -> None:
    samples = tuple(Sample(at / 10, 100 if at == 37 else 1, 0) for at in range(100))
    found = charts.columns(samples, 0.0, 10.0, 10)
    assert [each.source for each in found if each] == [1, 1, 1, 100, 1, 1, 1, 1, 1, 1]


def test_before_the_first_sample_there_is_nothing() -> None:
    assert charts.columns((Sample(9.0, 1, 0),), 0.0, 10.0, 4) == [None, None, None, Sample(9.0, 1, 0)]
    assert charts.columns((), 0.0, 10.0, 2) == [None, None]


def test_caches_stand_on_guests_and_lines_pass_behind() -> None:
    drawn = [text(line) for line in charts.area([Sample(0.0, 2, 1), None], 4, 4, {"2x": (3, "muted")})]
    assert [line[charts.LABEL :] for line in drawn] == ["┄┄", "▓ ", "█ ", "█ "]
    assert drawn[0].startswith("      2x ┼")


def test_little_memory_shows_at_the_foot() -> None:
    assert text(charts.area([Sample(0.0, 1, 0)], 1000, 3, {})[-1]).endswith("█")


def view(*pauses: PauseView) -> View:
    samples = (Sample(0.0, 32 * MIB, 0), Sample(1.0, 32 * MIB, 32 * MIB))
    memory = MemoryView(guests=32 * MIB, peak=64 * MIB, budget=1024 * MIB)
    return View(t=4.0, sandboxes={"web-0": WEB}, pauses=pauses, memory=memory, samples=samples)


@pytest.mark.parametrize(("cells", "height"), [(80, 10), (140, 24), (200, 30), (40, 4)])
def test_the_charts_fit(cells: int, height: int) -> None:
    for lines in (charts.memory_lines, charts.two_pause_lines):
        drawn = lines(view(PUNCHED, WHOLE), cells, height)
        assert len(drawn) <= height
        assert all(width(line) <= cells for line in drawn)


def test_a_budget_far_above_all_that_happened_is_said_and_not_drawn() -> None:
    drawn = "\n".join(text(line) for line in charts.memory_lines(view(PUNCHED), 140, 20))
    assert "budget 1024 MiB (above the chart)" in drawn
    near = replace(view(PUNCHED), memory=MemoryView(peak=64 * MIB, budget=70 * MIB))
    assert "budget ┼" in "\n".join(text(line) for line in charts.memory_lines(near, 140, 20))


def test_each_pause_is_marked_where_it_began() -> None:
    lost = at_its_end(replace(PUNCHED, began=3.0), outcome="discarded")
    lines = charts.memory_lines(view(PUNCHED, replace(WHOLE, began=2.0), lost), 50, 12)
    marks = text(lines[-2])[charts.LABEL :]
    assert [marks.index(mark) for mark in "▲△✗"] == [9, 19, 29]


def test_the_newest_pause_of_each_kind_is_shown_on_the_same_axes_and_called_what_it_is() -> None:
    drawn = [text(line) for line in charts.two_pause_lines(view(WHOLE, PUNCHED), 100, 12, "T runs its twin")]
    assert drawn[0] == " two pauses of this run, the newest of each kind, 32 MiB dirty in each   T runs its twin"
    assert "punch off web-0.p2  peak 2.00x" in drawn[1]
    assert "punch on web-0.p1  peak 1.06x" in drawn[1]
    assert sum(line.count("2x ┼") for line in drawn) == 2


def test_a_pause_that_was_slowed_is_in_no_figure_and_that_is_said() -> None:
    slowed = replace(WHOLE, track=replace(WHOLE.track, paced=True))
    drawn = "\n".join(text(line) for line in charts.two_pause_lines(view(slowed, PUNCHED), 100, 12))
    assert "none yet" in drawn
    assert "1 pause slowed or stopped: in no figure" in drawn
    assert "off:" not in drawn


def test_keys_are_told_only_where_there_is_somebody_to_ask() -> None:
    assert "P pauses all" in "\n".join(
        text(line) for line in charts.two_pause_lines(View(), 140, 12, "T runs its twin")
    )
    assert "P pauses all" not in "\n".join(text(line) for line in charts.two_pause_lines(View(), 140, 12))


def test_the_page_cache_of_finished_builds_is_told_beside_the_budget() -> None:
    cached = replace(view(PUNCHED), memory=MemoryView(peak=64 * MIB, budget=70 * MIB, page_cache=192 * MIB))
    assert text(charts.memory_lines(cached, 140, 20)[0]).endswith("budget 70 MiB   + page cache 192")


def dirtied(pause: PauseView, began: float, dirty: int) -> PauseView:
    return replace(pause, id=f"web-0.at-{began:g}", began=began, dirty_bytes=dirty)


def test_only_pauses_of_as_many_dirty_bytes_are_beside_each_other() -> None:
    alike = (dirtied(WHOLE, 1.0, 32 * MIB), dirtied(PUNCHED, 2.0, 32 * MIB))
    newer = (dirtied(PUNCHED, 3.0, 4 * MIB), dirtied(WHOLE, 4.0, 8 * MIB))
    drawn = [text(line) for line in charts.two_pause_lines(view(*alike, *newer), 140, 12)]
    assert "32 MiB dirty in each" in drawn[0]
    assert "web-0.at-1" in drawn[1]
    assert "web-0.at-2" in drawn[1]
    assert drawn[-1].strip() == "off: 1 pause, peak 2.00x at most; on: 1 pause, peak 1.06x at most"


def test_where_none_is_alike_nothing_is_beside_it() -> None:
    drawn = [text(line) for line in charts.two_pause_lines(view(WHOLE, dirtied(PUNCHED, 5.0, MIB)), 140, 12)]
    assert "web-0.p2" not in "".join(drawn)
    assert "none yet with 1 MiB dirty" in "".join(drawn)


def test_a_pause_with_nothing_dirty_is_in_no_figure_and_that_is_said() -> None:
    empty = dirtied(PUNCHED, 5.0, 0)
    drawn = "\n".join(text(line) for line in charts.two_pause_lines(view(WHOLE, empty), 140, 12))
    assert "1 pause with nothing dirty: in no figure" in drawn
    assert "on:" not in drawn


def test_a_checkpoint_with_a_new_guest_is_beside_pauses_and_one_in_place_is_not() -> None:
    fresh, in_place = (at_its_end(WHOLE, checkpoint=True, consumed=consumed) for consumed in (True, False))
    assert [each.id for each in charts.of_kind(view(fresh), punch=False)] == ["web-0.p2"]
    assert charts.of_kind(view(in_place), punch=False) == []
