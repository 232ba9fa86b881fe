from __future__ import annotations

import pathlib

import pytest

from sim.tui.replay import GLYPHS
from sim.tui.rows import STATES
from sim.tui.terminal import to_ascii

GOLDENS = sorted((pathlib.Path(__file__).parents[3] / "tui" / "goldens").glob("*.txt"))


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda each: each.stem)
def test_a_screen_in_ascii_has_every_line_as_long_as_before_and_no_sign_unknown(golden: pathlib.Path) -> None:
    drawn = golden.read_text()
    plain = to_ascii(drawn)
    assert plain.isascii()
    assert [len(line) for line in plain.splitlines()] == [len(line) for line in drawn.splitlines()]
    assert plain.count("?") == drawn.count("?")


def test_states_stay_apart_in_ascii() -> None:
    signs = [to_ascii(glyph) for glyph, _ in STATES.values()]
    assert len(set(signs)) == len(signs)


def test_memory_stays_apart_in_ascii() -> None:
    assert len({to_ascii(each) for each in "█▓░·"}) == 4


def test_marks_of_the_time_line_stay_apart_from_the_line() -> None:
    assert not {to_ascii(glyph) for glyph, _ in GLYPHS.values()} & {to_ascii(each) for each in "━─┃"}


def test_an_escape_code_is_left_as_it_is() -> None:
    assert to_ascii("\x1b[1;32m●\x1b[0m") == "\x1b[1;32m*\x1b[0m"


def test_a_frame_and_a_scroll_bar_have_a_shape() -> None:
    assert to_ascii("╭─╮│▐é") == "+-+|#?"
