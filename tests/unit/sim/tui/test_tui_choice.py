from __future__ import annotations

from dataclasses import replace

import pytest

from sim.record.view import PauseView, SandboxView
from sim.tui.rows import SORTS, Choice, choice_line, fits
from sim.tui.spans import text

MIB = 1 << 20
WEB = SandboxView("web-0", 32 * MIB, 4096, 4096, "python", "acme", "local", state="running")
COPYING = PauseView("web-1.p1", "web-1", 1.0, condemned_at=1.5, dirty_bytes=MIB)
FLEET = [
    WEB,
    replace(WEB, name="web-1", state="pausing", pause=COPYING),
    replace(WEB, name="web-10", state="paused", resident=MIB),
    replace(WEB, name="db-0", template="postgres", team="beta", state="discarded", resident=2 * MIB),
]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("", ["web-0", "web-1", "web-10", "db-0"]),
        ("web-1", ["web-1", "web-10"]),
        ("web-1?", ["web-10"]),
        ("*-0", ["web-0", "db-0"]),
        ("paus", ["web-1", "web-10"]),
        ("condemned", ["web-1"]),
        ("BETA", ["db-0"]),
        ("web !paused", ["web-0", "web-1"]),
        ("!", ["web-0", "web-1", "web-10", "db-0"]),
        ("nobody", []),
    ],
)
def test_every_word_of_the_filter_must_fit(words: str, names: list[str]) -> None:
    assert Choice(words).names(FLEET) == names


def test_what_needs_a_look_comes_first_when_sorted_by_state() -> None:
    by_state = Choice().next_sort()
    assert by_state is not None
    assert Choice(sort=by_state).names(FLEET) == ["web-1", "db-0", "web-0", "web-10"]


def test_the_most_memory_comes_first_and_equals_stay_in_the_fleets_order() -> None:
    by_memory = next(each for each in SORTS if each is not None and each.column == "memory")
    assert Choice(sort=by_memory).names(FLEET) == ["db-0", "web-10", "web-0", "web-1"]


def test_what_was_never_paused_comes_last_by_last_dirty() -> None:
    by_last_dirty = next(each for each in SORTS if each is not None and each.column == "last dirty")
    assert Choice(sort=by_last_dirty).names(FLEET)[0] == "web-1"


def test_the_sorts_end_where_they_began() -> None:
    choice = Choice()
    for _ in SORTS:
        choice = replace(choice, sort=choice.next_sort())
    assert choice == Choice()


def test_a_selection_that_the_filter_hides_is_owned_up_to() -> None:
    line = text(choice_line(Choice("db"), 1, 4, 3, 2, 80))
    assert line == " filter db  1 of 4 shown   3 selected, 2 of them not shown"
    assert text(choice_line(Choice(), 4, 4, 2, 0, 80)) == " 2 selected"


def test_a_term_is_part_of_a_word_or_a_pattern_of_the_name() -> None:
    assert fits(WEB, "yth")
    assert not fits(WEB, "yth*")
