"""Which pauses are read at once: the share that a file says, and the same ones in each run of a seed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.node.config import is_read

PAUSES = [(f"web-{sandbox}", number) for sandbox in range(60) for number in range(1, 31)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 62), percent=st.integers(0, 100))
def test_about_the_share_that_was_asked_is_read_and_more_where_more_was_asked(seed: int, percent: int) -> None:
    read = {each for each in PAUSES if is_read(percent / 100, seed, *each)}
    assert abs(len(read) / len(PAUSES) - percent / 100) < 0.08
    assert read <= {each for each in PAUSES if is_read(min(1.0, percent / 100 + 0.1), seed, *each)}


def test_nobody_at_0_and_everybody_at_100_percent() -> None:
    assert not any(is_read(0.0, 3, *each) for each in PAUSES)
    assert all(is_read(1.0, 3, *each) for each in PAUSES)


def test_seeds_sandboxes_and_pauses_each_draw_for_themselves() -> None:
    drawn = [[is_read(0.5, seed, name, number) for name, number in PAUSES] for seed in (1, 2)]
    assert drawn[0] != drawn[1]
    of_one = [{is_read(0.5, 1, name, number) for number in range(1, 31)} for name, _ in PAUSES[::30]]
    assert {False, True} in of_one
    of_first = {is_read(0.5, 1, name, 1) for name, _ in PAUSES}
    assert of_first == {False, True}
