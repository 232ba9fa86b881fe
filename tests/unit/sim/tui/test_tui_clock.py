"""The screen's clock: stopped at first, then a tick each so often."""

from __future__ import annotations

from sim.tui.frames import SPEEDS, Clock


def test_it_is_stopped_at_first() -> None:
    clock = Clock()
    assert clock.words == "stopped"
    assert not clock.is_due(1000.0)


def test_it_ticks_at_once_and_then_once_a_second() -> None:
    clock = Clock()
    clock.toggle(10.0)
    assert [clock.is_due(now) for now in (10.0, 10.5, 10.9, 11.0, 11.5, 12.1)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_a_fleet_that_is_slower_than_the_clock_is_not_chased() -> None:
    clock = Clock()
    clock.toggle(0.0)
    assert [clock.is_due(now) for now in (0.0, 7.0, 7.5)] == [True, True, False]


def test_the_speed_goes_as_far_as_it_goes() -> None:
    clock = Clock()
    clock.change(1)
    assert clock.speed == 2.0
    clock.change(100)
    assert clock.speed == SPEEDS[-1]
    clock.change(-100)
    assert clock.speed == SPEEDS[0]


def test_it_says_its_speed_when_it_runs() -> None:
    clock = Clock()
    clock.toggle(0.0)
    assert clock.words == "1 tick/s"
    clock.change(2)
    assert clock.words == "4 ticks/s"
    clock.toggle(1.0)
    assert clock.words == "stopped"
