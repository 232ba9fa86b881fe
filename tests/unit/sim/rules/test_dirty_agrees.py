"""`dirty_agrees`: of a virtual machine, the tracker and KVM's own log name the same blocks."""

from __future__ import annotations

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.ledger import Entry
from sim.rules import RULES
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding
from tests.story import created, decided, run_started, spawned, whole

SCANNED = copying.Scanned("write-protect-scan", 4096, 0, 8192, 0.1, None)


def found(*told: Event, kind: str = "vm") -> Finding:
    """What is found in the first pause of a guest of that kind."""
    begun = [
        Entry(0.0, run_started(), None, None),
        Entry(0.0, created(), "web-0", None),
        Entry(0.0, spawned(guest=kind), "web-0", None),
    ]
    pause = [decided(), events.GuestFrozen("web-0.1", 0.1), *told]
    entries = [*begun, *(Entry(1.0, each, "web-0", "web-0.p1") for each in pause)]
    return whole("dirty_agrees", RULES["dirty_agrees"].judge(Evidence(entries)))


def compared(missed: int = 0, unlogged: int = 0) -> copying.DirtyCompared:
    first = [7 if each else None for each in (missed, unlogged)]
    return copying.DirtyCompared("write-protect-scan", 9, 9, missed, unlogged, *first)


def test_equal_answers_hold() -> None:
    finding = found(compared(), SCANNED)
    assert (finding.checked, finding.violations, finding.missing) == (1, [], [])


def test_a_block_that_the_machine_wrote_and_the_tracker_does_not_name_is_a_violation() -> None:
    (violation,) = found(compared(missed=2), SCANNED).violations
    words = "2 of 9 blocks that the virtual machine wrote are not in the dirty set, block 7 first"
    assert (violation["reason"], violation["pause"], violation["incarnation"]) == (words, "web-0.p1", "web-0.1")


def test_a_block_that_only_the_tracker_names_was_written_by_the_host_side_or_by_nobody() -> None:
    (violation,) = found(compared(unlogged=1), SCANNED).violations
    assert violation["reason"].startswith("1 of 9 blocks in the dirty set were not written by the virtual machine")
    assert "the host side wrote them, or the tracker is wrong" in violation["reason"]


def test_a_scan_of_a_machine_without_a_comparison_is_missing_evidence() -> None:
    finding = found(SCANNED)
    assert (finding.checked, finding.violations) == (0, [])
    assert "no `dirty_compared` event for web-0.p1" in finding.missing[0]["reason"]


def test_the_rule_is_about_fleets_with_machines_alone() -> None:
    assert (found(kind="process").applies, found().applies) == (False, True)


def test_a_process_and_a_scan_that_was_not_used_have_nothing_to_compare() -> None:
    assert found(SCANNED, kind="process").missing == []
    assert found(copying.Scanned("resident-blocks", 4096, 0, 8192, 0.1, "why")).missing == []
