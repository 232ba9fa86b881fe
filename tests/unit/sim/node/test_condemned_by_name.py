"""Who is condemned after a crash: by a record, by the ledger, or because the folder of records is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from engine.events import Condemned
from sim.node.node import Node
from sim.node.recovery import _condemned
from sim.record import events
from sim.record.ledger import Entry

PAUSE = "web-0.p1"


def record(*, build: str | None) -> SimpleNamespace:
    """Of one that cannot be read, the name alone is known."""
    return SimpleNamespace(incarnation=SimpleNamespace(name="web-0.1"), build=build)


@pytest.mark.parametrize(
    ("records", "vanished", "told", "pauses"),
    [
        ([], False, (), set()),
        ([], False, (Condemned(PAUSE),), {PAUSE}),
        ([record(build=PAUSE)], False, (), {PAUSE}),
        ([record(build=None)], False, (), {PAUSE}),
        ([], True, (), {PAUSE}),
    ],
    ids=["nobody", "by the ledger", "by a record", "by a record that cannot be read", "by a folder that is gone"],
)
def test_whoever_is_condemned_is_condemned_with_the_pause_that_froze_it(
    records: list[SimpleNamespace], vanished: bool, told: tuple[Condemned, ...], pauses: set[str]
) -> None:
    past = [Entry(1.0, each, "web-0", PAUSE) for each in (events.GuestFrozen("web-0.1", 1.0), *told)]
    past.append(Entry(1.0, events.GuestFrozen("web-1.1", 1.0), "web-1", "web-1.p1"))
    known = {
        "web-0": SimpleNamespace(state="pausing", open_pause=SimpleNamespace(id=PAUSE)),
        "web-1": SimpleNamespace(state="running", open_pause=None),
    }
    made = SimpleNamespace(
        records=SimpleNamespace(records=lambda: records, vanished=vanished), config=SimpleNamespace(known=known)
    )
    found = _condemned(cast("Node", made), ["web-0.1", "web-1.1"], past)
    assert (found.pauses, found.guests) == (pauses, {"web-0.1"} if pauses else set())
