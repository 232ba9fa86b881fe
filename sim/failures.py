"""What the ledger tells that a node could not do: a defect, whatever else was judged."""

from __future__ import annotations

from collections.abc import Iterable

from sim import events
from sim.ledger import Entry
from sim.node_link import NodeFailedError


def raise_failures(entries: Iterable[Entry]) -> None:
    """NodeFailedError for the first pause whose end the node could not carry out: nobody may have asked for it."""
    for each in entries:
        if isinstance(each.event, events.SettlingFailed):
            raise NodeFailedError(f"what {each.pause} came to could not be carried out: {each.event.error}")
