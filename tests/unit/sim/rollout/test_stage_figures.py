from __future__ import annotations

from fractions import Fraction
from typing import Any

from engine.events import Event
from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import PauseView, View
from sim.rollout.gates import kills
from sim.rollout.stretch import Figures, KillSwitchUse, PauseCost, Window, costs, figures, saved
from tests.story import at_its_end

FLAG = "memfd-punch-on-snapshot"


LAST = {"outcome", "copy_ms", "checkpoint", "consumed", "peak_over", "peak_ratio", "error"}
"""What a pause says of itself when it settles."""


def pause(sandbox: str, began: float, *, on: bool = True, **known: Any) -> PauseView:
    decision = {FLAG: {"value": on, "reason": known.pop("reason", "FALLTHROUGH"), "source_state": "VALID"}}
    seen = {"punch": on, "settled_at": began + 1.0} | {key: value for key, value in known.items() if key not in LAST}
    made = PauseView(f"{sandbox}.p1", sandbox, began, decision=decision, **seen)
    return at_its_end(made, **{key: value for key, value in known.items() if key in LAST})


def entry(t: float, event: Event, sandbox: str | None = None) -> Entry:
    return Entry(t=t, event=event, sandbox=sandbox, pause=None)


def taken(*pauses: PauseView, entries: tuple[Entry, ...] = (), kill: tuple[KillSwitchUse, ...] = ()) -> Figures:
    return figures(FLAG, entries, View(pauses=pauses), Window(10.0, 20.0), kill)


def over(*sizes: int, punched: bool = False) -> Figures:
    return Figures(costs=tuple(PauseCost("a", n, 0.0, punched, punched, peak_over=e) for n, e in enumerate(sizes)))


def test_only_what_began_in_the_stage_counts() -> None:
    found = taken(pause("a", 9.9), pause("b", 10.0), pause("c", 20.0), pause("d", 12.0, checkpoint=True))
    assert (found.asked, found.paused) == (1, ("b",))


def test_at_risk_are_those_condemned_at_once_whose_snapshot_is_unfinished() -> None:
    found = taken(
        pause("a", 11.0, condemned_at=11.1, settled_at=12.0),
        pause("b", 11.5, condemned_at=11.6, settled_at=None),
        pause("c", 13.0, condemned_at=13.1, settled_at=13.2),
        pause("d", 13.0, condemned_at=13.1, settled_at=13.2, on=False),
    )
    assert found.at_risk == 2


def test_lost_is_who_was_discarded_or_killed_meanwhile() -> None:
    gone = events.StateChanged("pausing", "discarded", "its copy failed")
    found = taken(entries=(entry(11.0, gone, "a"), entry(21.0, gone, "b")))
    assert found.lost == ("a",)


def test_a_pause_that_punched_after_the_kill_switch_had_its_time_is_late() -> None:
    thrown = (KillSwitchUse(11.0, 18.0, 2.0),)
    early, late = pause("a", 12.0, punched_bytes=1), pause("b", 14.0, punched_bytes=1)
    off, after = pause("c", 15.0, on=False), pause("d", 19.0, punched_bytes=1)
    found = taken(early, late, off, after, kill=thrown)
    assert (found.late, found.stalest) == (1, 3.0)


def test_a_decision_without_a_heartbeat_is_stale() -> None:
    assert taken(pause("a", 11.0, on=False, reason="lease_expired")).stale_decisions == 1


def test_peaks_of_both_pools_are_told_apart_and_together() -> None:
    samples = [events.MemorySampled(10, 5, 0, 100, 7), events.MemorySampled(40, 5, 0, 20, 3)]
    found = taken(entries=tuple(entry(11.0 + n, each) for n, each in enumerate(samples))).pools
    assert (found.hugetlb, found.pages, found.both, found.page_cache) == (100, 45, 115, 7)


def test_what_is_saved_is_that_of_the_largest_pauses_at_once() -> None:
    off, on = over(9, 1, 8), over(2, 1, 2, punched=True)
    assert saved(off, on, 2) == 13
    assert saved(Figures(), on, 2) is None


def test_at_a_scale_only_what_does_not_punch_is_larger_in_production() -> None:
    off, on = over(9, 1, 8), over(2, 1, 2, punched=True)
    assert saved(off, on, 2, Fraction(1, 64)) == 17 * 64 - 4


def test_a_pause_that_did_not_finish_keeps_its_number_and_has_no_cost() -> None:
    pauses = [pause("a", 11.0, outcome="refused"), pause("a", 12.0, copy_ms=3.0), pause("a", 13.0, checkpoint=True)]
    (found,) = costs(FLAG, pauses, epoch=100.0)
    assert (found.nth, found.began, found.copy_ms, found.on) == (1, 112.0, 3.0, True)


def test_each_kill_switch_lasts_until_the_weight_is_set_again() -> None:
    rollout = {"rollout": "10%", "by": "sandbox"}
    sets = [(1.0, rollout), (2.0, False), (3.0, rollout), (4.0, False)]
    ledger = [entry(t, events.FlagSet(FLAG, value)) for t, value in sets]
    assert kills(FLAG, False, ledger, 9.0, [0.5]) == [KillSwitchUse(2.0, 3.0, 0.5), KillSwitchUse(4.0, 9.0, 0.5)]


def test_a_checkpoint_with_a_new_guest_is_a_pause_and_one_in_place_is_not() -> None:
    fresh = {"checkpoint": True, "consumed": True}
    found = taken(
        pause("a", 11.0, **fresh, outcome="discarded", punched_bytes=4096),
        pause("b", 12.0, **fresh, outcome="finished", copy_ms=1.0),
        pause("c", 13.0, checkpoint=True, consumed=False, outcome="rolled-back"),
        pause("d", 14.0, outcome="discarded"),
    )
    assert (found.asked, found.checkpoints, found.in_place) == (3, 3, 1)
    assert (found.discarded, found.lost_at_checkpoint, found.punched) == (2, ("a",), ("a",))
    assert [each.sandbox for each in found.costs] == ["b"]
