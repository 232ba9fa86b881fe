from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine import events as engine_events
from engine.events import Event
from flags.catalog import PUNCH
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import PauseView, SandboxView
from sim.tui import rows
from sim.tui.spans import Span, Spans, text, width
from tests.story import at_its_end

MIB = 1 << 20
RUNNING = SandboxView(
    "web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="running", pid=7, resident=32 * MIB
)


def decided(value: bool, reason: str = "FALLTHROUGH") -> dict[str, dict[str, Any]]:
    return {PUNCH: {"value": value, "reason": reason, "variation": 0, "version": 1, "source_state": "VALID"}}


COPYING = PauseView(
    "web-0.p1", "web-0", 1.0, decision=decided(True), path="memfd-background", punch=True, chunks=16, published=4
)
FINISHED = at_its_end(replace(COPYING, published=16, settled_at=2.0, blocked_ms=4.25), copy_ms=61.0, peak_ratio=2.0)


def tones(spans: Spans) -> set[str]:
    return {span.tone for span in spans if span.text.strip()}


@pytest.mark.parametrize("state", sorted(rows.STATES))
def test_every_state_has_its_own_glyph_and_its_word(state: str) -> None:
    cell = text(rows.state_cell(replace(RUNNING, state=state)))
    assert cell.endswith(f" {state}")
    assert len({glyph for glyph, _ in rows.STATES.values()}) == len(rows.STATES)


@pytest.mark.parametrize("state", ["pausing", "paused"])
def test_a_row_says_condemned_from_the_point_of_no_return_until_the_copy_ends(state: str) -> None:
    sandbox = replace(RUNNING, state=state, pause=COPYING)
    assert text(rows.state_cell(sandbox)) == f"{rows.STATES[state][0]} {state}"
    condemned = replace(COPYING, condemned_at=1.5)
    assert text(rows.state_cell(replace(sandbox, pause=condemned))) == "◆ CONDEMNED"
    settled = at_its_end(replace(condemned, settled_at=2.0))
    assert text(rows.state_cell(replace(sandbox, pause=settled))) == f"{rows.STATES[state][0]} {state}"


def test_a_copy_without_punching_fills_the_memory_bar_to_2x() -> None:
    sandbox = replace(RUNNING, cached=32 * MIB)
    assert text(rows.memory_cell(sandbox, 18)) == "█████████▓▓▓▓▓▓▓▓▓"


def test_a_punched_copy_stays_at_1x_and_what_it_freed_is_hollow() -> None:
    sandbox = replace(RUNNING, resident=16 * MIB, cached=16 * MIB, punched=16 * MIB)
    assert text(rows.memory_cell(sandbox, 16)) == "████▓▓▓▓◦◦◦◦····"


@pytest.mark.parametrize(("peak", "bar"), [(64, "▓▓▓▓▓▓▓▓·······┃"), (33, "▓▓▓▓▓▓▓▓┃·······"), (0, "▓▓▓▓▓▓▓▓········")])
def test_the_peak_of_the_last_pause_is_marked(peak: int, bar: str) -> None:
    sandbox = replace(RUNNING, resident=0, cached=32 * MIB, pause=replace(FINISHED, peak=peak * MIB))
    assert text(rows.memory_cell(sandbox, 16)) == bar


def test_of_a_discarded_sandbox_nothing_is_left_also_where_a_recovery_deleted_it_without_a_word() -> None:
    fold, pause = Fold(), "web-0.p1"
    published = engine_events.ChunkPublished(0, 2 * MIB, 2 * MIB, 32 * MIB, 2 * MIB, 0)
    told: list[tuple[Event, str | None]] = [
        (events.SandboxCreated(32 * MIB, 4096, 4096, "python", "acme", "local"), None),
        (published, pause),
        (events.NodeCrashed(100), None),
        (events.StateChanged("pausing", "discarded", "the node crashed past the point of no return"), None),
    ]
    fold.apply(Entry(1.0, event, "web-0", of) for event, of in told[:2])
    assert "▓" in text(rows.memory_cell(fold.view().sandboxes["web-0"], 18))
    fold.apply(Entry(2.0, event, "web-0", of) for event, of in told[2:])
    assert "▓" not in text(rows.memory_cell(fold.view().sandboxes["web-0"], 18))


def test_a_peak_that_lasts_needs_no_mark() -> None:
    sandbox = replace(RUNNING, cached=32 * MIB, pause=replace(COPYING, peak=64 * MIB))
    assert "┃" not in text(rows.memory_cell(sandbox, 16))


def test_the_least_memory_shows_and_the_bar_never_overflows() -> None:
    sandbox = replace(RUNNING, resident=60 * MIB, punched=4096, cached=4096)
    assert text(rows.memory_cell(sandbox, 17)) == "████████████████▓"


def test_the_progress_turns_at_the_point_of_no_return_in_colour_and_in_sign() -> None:
    sandbox = replace(RUNNING, state="pausing", pause=COPYING)
    before = rows.pause_cell(sandbox, 17)
    after = rows.pause_cell(replace(sandbox, pause=replace(COPYING, condemned_at=1.5)), 17)
    assert (text(before), tones(before)) == ("━━━───────── 4/16", {"busy", "muted"})
    assert (text(after), tones(after)) == ("◆━━───────── 4/16", {"condemned", "muted"})


def test_the_trend_goes_from_1x_to_2x_and_ends_with_the_latest() -> None:
    assert text(rows.trend_cell(RUNNING)) == "-"
    assert text(rows.trend_cell(replace(RUNNING, peaks=(2.4, 2.0, 1.5, 1.0, 0.9)))) == "██▅▁▁"
    assert tones(rows.trend_cell(replace(RUNNING, peaks=(2.0, 1.03)))) == {"warn", "good"}


def test_the_column_that_the_fleet_is_sorted_by_is_kept_and_marked() -> None:
    titles = text(rows.header(rows.columns(79, 5, "last dirty")))
    assert "last dirty▾" in titles
    assert "▾" not in text(rows.header(rows.columns(79, 5)))


def test_over_the_memory_bar_stands_where_1x_and_2x_are() -> None:
    layout = rows.columns(79, 5)
    bar = next(column for column in layout if column.title == "memory")
    start = text(rows.header(layout)).index("memory")
    titles = text(rows.header(layout))[start : start + bar.cells]
    assert titles.index("╵1x") == bar.cells // 2
    assert titles.endswith("2x")


def test_a_pause_without_a_plan_is_preparing() -> None:
    sandbox = replace(RUNNING, state="pausing", pause=PauseView("web-0.p1", "web-0", 1.0))
    assert text(rows.pause_cell(sandbox, 17)) == "preparing"


def test_a_pause_that_was_refused_is_not_in_flight_for_ever() -> None:
    sandbox = replace(RUNNING, pause=PauseView("web-0.p1", "web-0", 1.0))
    assert text(rows.pause_cell(sandbox, 17)) == "not begun"


def test_a_finished_pause_shows_its_path_its_wait_and_its_peak() -> None:
    sandbox = replace(RUNNING, state="paused", pause=FINISHED)
    assert text(rows.pause_cell(sandbox, 17)) == "background 4.2 ms"
    assert text(rows.peak_cell(sandbox)) == "2.00x"
    assert tones(rows.peak_cell(sandbox)) == {"warn"}
    assert tones(rows.peak_cell(replace(sandbox, pause=at_its_end(FINISHED, peak_ratio=1.03)))) == {"good"}


def test_a_failed_pause_shows_how_it_ended() -> None:
    rolled_back = at_its_end(FINISHED, outcome="rolled-back")
    discarded = at_its_end(replace(FINISHED, condemned_at=1.5), outcome="discarded")
    assert rows.pause_cell(replace(RUNNING, pause=rolled_back), 17)[0] == Span("rolled back", "warn")
    assert rows.pause_cell(replace(RUNNING, pause=discarded), 17)[0] == Span("discarded", "bad")


def test_the_decision_is_the_flags_and_its_reason_in_words() -> None:
    sandbox = replace(RUNNING, pause=replace(COPYING, decision=decided(True, "ERROR:FLAG_NOT_FOUND")))
    assert text(rows.decision_cell(sandbox)) == "punch on"
    assert text(rows.reason_cell(sandbox)) == "error: flag not found"
    assert text(rows.decision_cell(RUNNING)) == "-"


def test_a_plan_that_may_not_punch_overrules_the_flag_in_words() -> None:
    sandbox = replace(RUNNING, pause=replace(COPYING, punch=False))
    assert text(rows.decision_cell(sandbox)) == "not legal"


@pytest.mark.parametrize("cells", [60, 79, 100, 120, 139, 200])
@pytest.mark.parametrize("longest", [5, 12, 40])
def test_header_and_row_are_equally_wide_and_fit(cells: int, longest: int) -> None:
    layout = rows.columns(cells, longest)
    sandbox = replace(RUNNING, name="w" * longest, state="checkpointing", pause=FINISHED)
    drawn = rows.row(sandbox, layout, cursor=True, selected=True)
    assert width(drawn) == width(rows.header(layout))
    assert width(drawn) <= max(cells, 79)


def test_a_narrow_screen_drops_the_less_important_columns() -> None:
    narrow, wide = rows.columns(79, 5), rows.columns(139, 5)
    kept = [column.title for column in narrow]
    assert kept == ["sandbox", "state", "memory", "decision", "last pause", "peak"]
    assert len(wide) == len(rows.COLUMNS)


def test_cursor_and_selection_are_marked_without_colour() -> None:
    layout = rows.columns(79, 5)
    marks = [
        text(rows.row(RUNNING, layout, cursor=cursor, selected=selected))[:2]
        for cursor in (False, True)
        for selected in (False, True)
    ]
    assert marks == ["  ", " ✓", "▶ ", "▶✓"]


def test_a_pause_with_nothing_dirty_says_so_and_claims_no_peak() -> None:
    sandbox = replace(
        RUNNING, state="paused", pause=at_its_end(replace(FINISHED, dirty_bytes=0), dirty_bytes=0, peak_ratio=1.0)
    )
    assert text(rows.pause_cell(sandbox, 17)) == "nothing dirty"
    assert rows.peak_cell(sandbox) == rows.NONE
