from __future__ import annotations

from sim.record import events
from sim.record.fold import LOG_LENGTH, Fold
from sim.record.ledger import Entry
from sim.tui.frames import Feed

CREATED = events.SandboxCreated(1 << 20, 4096, 4096, "python", "acme", "local")


def test_only_sandboxes_that_changed_are_named() -> None:
    fold = Fold()
    fold.apply([Entry(0.0, CREATED, name, None) for name in ("web-0", "web-1")])
    feed = Feed(fold.view)
    assert feed.next().changed == {"web-0", "web-1"}
    assert feed.next().changed == frozenset()
    fold.apply([Entry(1.0, events.GuestMeasured(5), "web-1", None)])
    assert feed.next().changed == {"web-1"}


def test_each_entry_comes_once() -> None:
    fold = Fold()
    feed = Feed(fold.view)
    assert feed.next().entries == ()
    fold.apply([Entry(0.0, events.Ticked(1), None, None)])
    assert [entry.event for entry in feed.next().entries] == [events.Ticked(1)]
    fold.apply([Entry(1.0, events.Ticked(2), None, None), Entry(1.0, events.Ticked(3), None, None)])
    frame = feed.next()
    assert [entry.event for entry in frame.entries] == [events.Ticked(2), events.Ticked(3)]
    assert not frame.gap
    assert feed.next().entries == ()


def test_equal_entries_are_still_two() -> None:
    fold = Fold()
    feed = Feed(fold.view)
    for _ in range(2):
        fold.apply([Entry(0.0, events.FaultsCleared(), None, None)])
        assert len(feed.next().entries) == 1


def test_entries_that_left_the_log_unseen_are_owned_up_to() -> None:
    fold = Fold()
    feed = Feed(fold.view)
    fold.apply([Entry(0.0, events.Ticked(0), None, None)])
    assert not feed.next().gap
    fold.apply([Entry(1.0, events.Ticked(number), None, None) for number in range(LOG_LENGTH + 1)])
    frame = feed.next()
    assert frame.gap
    assert len(frame.entries) == LOG_LENGTH
