"""The panel asks every checker, and its checkers are the invariants that a scenario may name."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sim.files.expectations import Invariant
from sim.rules import Panel

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene


def test_every_invariant_has_its_checker_and_every_checker_its_invariant() -> None:
    assert sorted(each.name for each in Panel().checkers) == sorted(get_args(Invariant))


def test_a_good_run_violates_nothing(scene: Scene, guests: Guests) -> None:
    panel = Panel()
    guest = guests.start()
    scene.go_to("created", "running")
    panel.observe(scene.evidence())
    guest.kill()
    scene.go_to("running", "killed")
    panel.observe(scene.evidence())
    assert panel.violations() == []


def test_what_any_checker_saw_is_told_while_the_fleet_lives_and_after(scene: Scene, guests: Guests) -> None:
    panel = Panel()
    guests.start().punch(4)
    scene.go_to("created", "paused")
    panel.observe(scene.evidence())
    assert [each["reason"] for each in panel.violations()] == ["a guest runs although its memory was freed"]
    panel.conclude(scene.evidence())
    found = [each["reason"] for each in panel.violations()]
    assert "it went from created to paused" in found
    assert f"{scene.builds} is still there" in found
