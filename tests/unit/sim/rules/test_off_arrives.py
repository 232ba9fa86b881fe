"""`off_arrives`: once off has had its time, no decision punches until the flag is on again."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events import Event
from flags.catalog import BACKGROUND, PUNCH
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.rules import RULES
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding
from tests.story import created, decided, run_started, whole

NAME = "off_arrives"
LEASE = 5.0


def found(*told: tuple[float, Event], lease: float | None = LEASE) -> Finding:
    """What is found in a ledger of events and their times, in seconds."""
    begun = [Entry(0.0, run_started(lease=lease), None, None), Entry(0.0, created(), "web-0", None)]
    entries = [Entry(t, event, "web-0", "web-0.p1") for t, event in told]
    return whole(NAME, RULES[NAME].judge(Evidence([*begun, *entries])))


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
    told = [(1.0, served(False, effective=False)), (2.0, source_events.OutageEnded()), (2.0, PUNCHING)]
    assert len(found(*told).violations) == 1
    assert len(found(*told, lease=None).violations) == 1


def test_without_a_lease_nothing_bounds_what_is_kept_from_the_node() -> None:
    assert found((1.0, served(False, effective=False)), (900.0, PUNCHING), lease=None).checked == 0


def test_another_flag_and_an_outage_without_off_are_not_judged() -> None:
    finding = found((1.0, served(False, flag=BACKGROUND)), (2.0, source_events.OutageEnded()), (3.0, PUNCHING))
    assert finding.checked == 0


def edited(found: str = "not off", ago: float = 0.05) -> source_events.FlagFileEdited:
    return source_events.FlagFileEdited(found, ago)


def test_off_that_is_written_from_outside_has_half_of_the_lease() -> None:
    off = (1.0, edited("off"))
    assert found(off, (1.0 + LEASE / 2, PUNCHING)).checked == 0
    finding = found(off, (1.5 + LEASE / 2, PUNCHING))
    assert finding.violations[0]["reason"].startswith("it was decided to punch, and off was served 1.0 s into the run")
    assert found(off, (1.5 + LEASE / 2, SAFE)).violations == []
    assert found(off, (900.0, PUNCHING), lease=None).checked == 0


def test_a_file_that_is_torn_or_gone_has_the_whole_lease() -> None:
    for gone in (edited("torn"), source_events.OutageBegan("tear", "40%")):
        assert found((1.0, gone), (1.0 + LEASE, PUNCHING)).checked == 0
        finding = found((1.0, gone), (1.5 + LEASE, PUNCHING))
        assert "the flag file was torn or gone 1.0 s into the run" in finding.violations[0]["reason"]
        assert found((1.0, gone), (900.0, PUNCHING), lease=None).checked == 0


def test_a_file_that_is_back_is_obeyed_again() -> None:
    gone, back = (1.0, edited("torn")), (2.0, edited())
    assert found(gone, back, (9.0, PUNCHING)).checked == 0
    assert found(gone, (2.0, source_events.OutageEnded()), (9.0, PUNCHING)).checked == 0


def test_a_decision_before_the_run_saw_that_the_flag_was_on_again_is_no_violation() -> None:
    off, decided = (1.0, edited("off")), (9.0, PUNCHING)
    assert found(off, decided, (9.05, edited(ago=0.1))).violations == []
    assert len(found(off, decided, (9.2, edited(ago=0.1))).violations) == 1
    assert len(found(off, decided, (9.05, edited("off", ago=0.1))).violations) == 1
    assert len(found(off, decided, (9.05, edited("torn", ago=0.1))).violations) == 1


def test_a_violation_says_the_reason_of_its_decision_where_there_is_one() -> None:
    (bare,) = found((1.0, served(False)), (1.0, PUNCHING)).violations
    reasoned = events.Decided({PUNCH: {"value": True, "reason": "TARGETING_MATCH"}})
    (told,) = found((1.0, served(False)), (1.0, reasoned)).violations
    assert told["reason"] == f"{bare['reason']}: TARGETING_MATCH"
