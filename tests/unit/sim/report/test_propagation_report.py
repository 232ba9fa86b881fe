"""How long the kill switch took, as the reports say it."""

from __future__ import annotations

import pytest

from engine.events import Planned
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report.judgements import Distribution, KillSwitchTimes, distribution, propagation, sentence

PUNCH = "memfd-punch-on-snapshot"


def view_of(*told: Entry, source: str = "relay") -> View:
    started = events.RunStarted(1, "0", "r", "n", 1, [], "", 0, "disk", None, flag_source=source)
    fold = Fold()
    step = events.StepStarted(0, "tick", 5, 5)
    fold.apply([Entry(0.0, started, None, None), Entry(0.1, step, None, None), *told])
    return fold.view()


def flips(*took_ms: float | None) -> list[Entry]:
    """Off and on again, a second each."""
    told = []
    for index, took in enumerate(took_ms):
        off, on = events.FlagSet(PUNCH, False, took is not None, took), events.FlagSet(PUNCH, True, True, 99.0)
        told += [Entry(2.0 * index + 1, off, None, None), Entry(2.0 * index + 2, on, None, None)]
    return told


def test_a_distribution_has_its_p95_by_nearest_rank() -> None:
    assert distribution([float(each) for each in range(1, 101)]) == Distribution(100, 1.0, 50.5, 95.0, 100.0)
    assert distribution([2.0]) == Distribution(1, 2.0, 2.0, 2.0, 2.0)
    assert distribution([]) is None


def test_a_run_without_a_kill_switch_has_none() -> None:
    assert propagation(view_of()) is None
    assert propagation(view_of(Entry(1.0, events.FlagSet(PUNCH, True, True, 1.0), None, None))) is None


def test_only_turning_off_for_everybody_counts() -> None:
    found = propagation(view_of(*flips(3.0, 1.0, 2.0)))
    assert found == KillSwitchTimes("relay", Distribution(3, 1.0, 2.0, 3.0, 3.0), 0, None)


def test_what_an_outage_kept_from_the_node_is_counted_apart() -> None:
    found = propagation(view_of(*flips(3.0, None)))
    assert found is not None
    assert (found.unawaited, found.took_ms and found.took_ms.n) == (1, 1)


def test_a_pause_that_was_decided_to_punch_after_it_is_told_with_how_late_it_was() -> None:
    planned = Entry(4.5, events.Decided({}), "web-0", "web-0.p1")
    off = Entry(3.0, events.FlagSet(PUNCH, False, False), None, None)
    punching = Entry(4.6, Planned("memfd", True, "", 1, 4096), "web-0", "web-0.p1")
    found = propagation(view_of(off, planned, punching))
    assert found is not None
    assert found.latest_punch_ms == pytest.approx(1500.0)
    assert "a pause decided 1500.0 ms after it still punched" in sentence(found)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("relay", "at the node after 2.0 ms by stream (median of 3, from 1.0 to 3.0, p95 3.0; measured)"),
        ("file", "at the node after 2.0 ms by file (median of 3, from 1.0 to 3.0, p95 3.0; measured)"),
    ],
)
def test_the_sentence_names_the_way_and_that_it_was_measured(source: str, said: str) -> None:
    found = propagation(view_of(*flips(3.0, 1.0, 2.0), source=source))
    assert found is not None
    assert sentence(found) == said
