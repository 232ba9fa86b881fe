"""`off_arrives`: once off has had its time, no decision punches until the flag is on again."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events import Event
from flags.catalog import BACKGROUND, PUNCH
from sim.record import events
from sim.record.ledger import Entry
from sim.rules import RULES
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding
from tests.story import created, decided, run_started

NAME = "off_arrives"
LEASE = 5.0


def found(*told: tuple[float, Event], lease: float | None = LEASE) -> Finding:
    """What is found in a ledger of events and their times, in seconds."""
    begun = [Entry(0.0, run_started(lease=lease), None, None), Entry(0.0, created(), "web-0", None)]
    entries = [Entry(t, event, "web-0", "web-0.p1") for t, event in told]
    return RULES[NAME].judge(Evidence([*begun, *entries]))


def served(value: Any, *, effective: bool = True, flag: str = PUNCH) -> events.FlagSet:
    return events.FlagSet(flag, value, effective)


PUNCHING, SAFE = decided(punch=True), decided(punch=False)


def test_a_decision_to_punch_after_off_has_arrived_is_a_violation() -> None:
    finding = found((1.0, served(False)), (1.0, PUNCHING))
    assert finding.checked == 1
    (violation,) = finding.violations
    assert violation["sandbox"] == "web-0"
    assert violation["pause"] == "web-0.p1"
    assert violation["reason"].startswith("it was decided to punch, and off was served 1.0 s into the run")


@pytest.mark.parametrize("off", [False, {"rollout": "0%", "by": "sandbox"}])
def test_safe_decisions_after_off_hold(off: Any) -> None:
    finding = found((1.0, PUNCHING), (1.0, served(off)), (1.0, SAFE), (9.0, SAFE))
    assert (finding.checked, finding.violations) == (2, [])


@pytest.mark.parametrize("on", [True, {"rollout": "1%", "by": "sandbox"}])
def test_until_the_flag_is_on_again(on: Any) -> None:
    finding = found((1.0, served(False)), (2.0, SAFE), (3.0, served(on)), (4.0, PUNCHING))
    assert (finding.checked, finding.violations) == (1, [])


def test_what_is_kept_from_the_node_has_the_time_of_the_lease() -> None:
    off = (1.0, served(False, effective=False))
    assert found(off, (1.0 + LEASE, PUNCHING)).checked == 0
    assert len(found(off, (1.5 + LEASE, PUNCHING)).violations) == 1
    assert found(off, (1.5 + LEASE, SAFE)).violations == []


def test_the_same_off_again_gives_no_more_time() -> None:
    off, again = (1.0, served(False, effective=False)), (4.0, served(False, effective=False))
    assert len(found(off, again, (1.5 + LEASE, PUNCHING)).violations) == 1


def test_the_end_of_an_outage_ends_the_time_too() -> None:
    told = [(1.0, served(False, effective=False)), (2.0, events.OutageEnded()), (2.0, PUNCHING)]
    assert len(found(*told).violations) == 1
    assert len(found(*told, lease=None).violations) == 1


def test_without_a_lease_nothing_bounds_what_is_kept_from_the_node() -> None:
    assert found((1.0, served(False, effective=False)), (900.0, PUNCHING), lease=None).checked == 0


def test_another_flag_and_an_outage_without_off_are_not_judged() -> None:
    finding = found((1.0, served(False, flag=BACKGROUND)), (2.0, events.OutageEnded()), (3.0, PUNCHING))
    assert finding.checked == 0
