from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.tui.spans import HARD, Piece, Span, fit, line_of, opposite, text, width, wrap

WORDS = st.text(alphabet="abc ", max_size=30)


def test_short_text_is_padded_on_the_side_asked_for() -> None:
    assert text(fit((Span("ab"),), 4)) == "ab  "
    assert text(fit((Span("ab"),), 4, right=True)) == "  ab"


def test_long_text_is_cut_with_an_ellipsis_in_its_own_tone() -> None:
    cut = fit((Span("abc"), Span("defgh", "bad")), 6)
    assert text(cut) == "abcde…"
    assert cut[-1].tone == "bad"


@given(st.lists(WORDS, max_size=4), st.integers(0, 40))
def test_fitted_text_is_exactly_as_wide_as_asked_for(words: list[str], cells: int) -> None:
    assert width(fit(tuple(Span(word) for word in words), cells)) == cells


def test_a_piece_is_shown_whole_or_not_at_all_and_the_highest_rank_goes_first() -> None:
    pieces = [Piece(0, (Span("name"),)), Piece(2, (Span("least"),)), Piece(1, (Span("more"),))]
    assert text(line_of(pieces, 40)) == "name   least   more"
    assert text(line_of(pieces, 18)) == "name   more"
    assert text(line_of(pieces, 10)) == "name"
    assert text(line_of(pieces, 3)) == ""


def test_two_ends_of_a_line_meet_its_edges() -> None:
    assert text(opposite((Span("left"),), (Span("right"),), 12)) == "left   right"


def test_wrapping_breaks_between_words_and_indents_what_follows() -> None:
    lines = wrap((Span("one two "), Span("three four", "bad")), 10)
    assert [text(line) for line in lines] == ["one two", "  three", "  four"]
    assert lines[1][-1].tone == "bad"


@given(WORDS, st.integers(4, 40))
def test_wrapped_lines_fit_and_lose_no_word_that_fits(words: str, cells: int) -> None:
    lines = [text(line) for line in wrap((Span(words),), cells)]
    assert all(len(line) <= cells for line in lines)
    if all(len(word) <= cells - 2 for word in words.split()):
        assert " ".join(lines).split() == words.split()


def test_a_hard_blank_keeps_words_together_and_is_a_blank_in_the_end() -> None:
    lines = wrap((Span(f"one two{HARD}three four"),), 9, indent="")
    assert [text(line) for line in lines] == ["one", "two three", "four"]


def test_letters_that_are_two_cells_wide_count_as_two_and_are_never_halved() -> None:
    wide = (Span("数据 web"),)
    assert width(wide) == 8
    for cells in range(1, 10):
        assert width(fit(wide, cells)) == cells
    assert all(width(line) <= 6 for line in wrap(wide, 6))


def test_what_a_click_does_stays_with_every_part_of_it() -> None:
    long = (Span("several words that go on", "plain", "app.quit"),)
    for line in (*wrap(long, 10), fit(long, 9)):
        assert all(span.action == "app.quit" for span in line if span.text.strip(" …"))
