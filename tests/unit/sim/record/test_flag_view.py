from __future__ import annotations

from engine.events import Event
from flags import catalog
from flags.lease import Lease
from sim.node.flags import LeaseWatch
from sim.record import events, source_events, view
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View

PUNCH = "memfd-punch-on-snapshot"


def folded(*told: tuple[float, Event]) -> View:
    fold = Fold()
    fold.apply(Entry(t, event, None, None) for t, event in told)
    return fold.view()


def test_who_set_a_flag_and_when_is_known() -> None:
    view = folded((0.0, events.FlagSet(PUNCH, False)), (2.0, events.FlagSet(PUNCH, True, by="screen")))
    assert view.flag_changes[PUNCH].by == "screen"
    assert view.flag_changes[PUNCH].t == 2.0
    assert view.flag_changes[PUNCH].effective


def test_what_the_node_did_not_hear_of_it_has_heard_when_the_outage_ends() -> None:
    told = [(1.0, source_events.OutageBegan("down", "")), (2.0, events.FlagSet(PUNCH, False, effective=False))]
    view = folded(*told)
    assert (view.source.outage, view.flag_changes[PUNCH].effective) == ("down", False)
    view = folded(*told, (3.0, source_events.OutageEnded()))
    assert (view.source.outage, view.flag_changes[PUNCH].effective) == (None, True)


def test_a_node_that_starts_again_has_told_nothing_of_its_client_yet() -> None:
    told = [(1.0, source_events.FlagSourceChanged("VALID", None)), (1.0, source_events.LeaseMeasured(True, 0.1, 1.0))]
    view = folded(*told)
    assert (view.source.state, view.source.lease) == ("VALID", source_events.LeaseMeasured(True, 0.1, 1.0))
    view = folded(*told, (2.0, events.NodeStarted(1, 1, 2, 1, recovered=True)))
    assert (view.source.state, view.source.lease) == (None, None)


def test_a_fault_remembers_on_whom_it_fired() -> None:
    fold = Fold()
    fold.apply([Entry(0.0, events.FaultArmed(1, "copy.write", "EIO", "first", "*"), None, None)])
    for name in ("web-0", "web-1", "web-0"):
        fold.apply([Entry(1.0, events.FaultFired(1, "copy.write", "EIO", 0), name, None)])
    (fault,) = fold.view().faults
    assert (fault.fired, fault.fired_on) == (3, {"web-0": 2, "web-1": 1})


class Watched:
    """A lease of two seconds on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lease = Lease(2.0, lambda: self.now)
        self.watch = LeaseWatch(self.lease)

    def beat(self, version: int) -> None:
        self.lease.saw(version)

    def news_at(self, now: float) -> source_events.LeaseMeasured | None:
        self.now = now
        return self.watch.news()


def test_a_sound_lease_is_told_of_once() -> None:
    watched = Watched()
    watched.beat(1)
    assert watched.news_at(0.0) == source_events.LeaseMeasured(False, None, 2.0)
    watched.beat(2)
    assert watched.news_at(0.1) == source_events.LeaseMeasured(True, 0.1, 2.0)
    for number in range(3, 20):
        watched.beat(number)
        assert watched.news_at(watched.now + 0.25) is None


def test_an_overdue_heartbeat_is_told_of_until_the_lease_expires_and_then_once() -> None:
    watched = Watched()
    watched.beat(1)
    watched.beat(2)
    told = [watched.news_at(now / 4) for now in range(1, 16)]
    assert [(each.open, each.age) for each in told if each] == [
        (True, 0.25),
        (True, 1.25),
        (True, 1.5),
        (True, 1.75),
        (False, 2.0),
    ]
    watched.beat(3)
    assert watched.news_at(4.0) == source_events.LeaseMeasured(True, 0.25, 2.0)


def test_the_keys_that_the_fold_knows_are_the_catalogue_s() -> None:
    assert (view.PUNCH, view.BACKGROUND) == (catalog.PUNCH, catalog.BACKGROUND)
