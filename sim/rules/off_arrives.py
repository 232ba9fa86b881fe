"""Once off is served and its time is over, no decision punches until the flag is on again.

Its time is over at once where the node is known to have the change; else with the lease of what the node had before,
or with the end of the outage that kept it from the node. Off that is written into the followed file from outside
has half of the lease, from when it stood for two looks: by then every decision has read the file again. A file that is
torn or gone has the whole lease. Without a lease nothing bounds these, and nothing is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.catalog import PUNCH
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason

NAME = "off_arrives"
SLACK = 0.2
"""Seconds that a decision may take to be written down after it was made."""


def judge(evidence: Evidence) -> Finding:
    """Every decision that was made when off had had its time."""
    finding = Finding()
    for entry, why in _after_off(evidence):
        event = entry.event
        if not isinstance(event, events.Decided):
            continue
        finding.checked += 1
        decided = event.flags.get(PUNCH, {})
        if decided.get("value") is True and not _on_meanwhile(evidence, entry):
            said = f"it was decided to punch, and {why} s into the run"
            by = f": {decided['reason']}" if decided.get("reason") else ""
            finding.violated(entry.sandbox, Reason("punches", said + by), pause=entry.pause)
    return finding


@dataclass(slots=True)
class _Source:
    """What the flag's source says as far as the ledger goes: since when it serves off, or nothing, and how long yet."""

    lease: float
    off: float | None = None
    off_due: float = math.inf
    gone: float | None = None
    gone_due: float = math.inf

    def serves(self, t: float, *, off: bool, due: float) -> None:
        """Off that was served before gets no more time."""
        self.gone, self.gone_due = None, math.inf
        if not off:
            self.off, self.off_due = None, math.inf
            return
        self.off = t if self.off is None else self.off
        self.off_due = min(self.off_due, due)

    def is_gone(self, t: float) -> None:
        self.gone = t if self.gone is None else self.gone
        self.gone_due = min(self.gone_due, t + self.lease + SLACK)

    def why(self, t: float) -> str | None:
        """What forbids to punch at that time; None where nothing does."""
        if self.off is not None and t > self.off_due:
            return f"off was served {self.off:.1f}"
        if self.gone is not None and t > self.gone_due:
            return f"the flag file was torn or gone {self.gone:.1f}"
        return None


def _after_off(evidence: Evidence) -> Iterator[tuple[Entry, str]]:
    """What is in the ledger while nothing may punch, with what forbids it."""
    source = _Source(_lease(evidence))
    for entry in evidence.entries:
        t = entry.t
        match entry.event:
            case events.FlagSet(flag=flag, value=value, effective=effective) if flag == PUNCH:
                since = t if source.off is None else source.off
                due = -math.inf if effective else since + source.lease + SLACK
                source.serves(t, off=_is_off(value), due=due)
            case source_events.FlagFileEdited(found="torn") | source_events.OutageBegan(fault="tear"):
                source.is_gone(t)
            case source_events.FlagFileEdited(found=edit):
                source.serves(t, off=edit == "off", due=t + source.lease / 2 + SLACK)
            case source_events.OutageEnded():
                source.gone, source.gone_due = None, math.inf
                if source.off is not None:
                    source.off_due = -math.inf
            case _ if (why := source.why(t)) is not None:
                yield entry, why
            case _:
                pass


def _on_meanwhile(evidence: Evidence, decided: Entry) -> bool:
    """True where the flag was on again, or the file back, and the run saw that only after the decision."""
    for _, entry in evidence.of_kind(source_events.FlagFileEdited):
        if entry.t >= decided.t and isinstance(entry.event, source_events.FlagFileEdited):
            return entry.event.found == "not off" and entry.t - entry.event.ago <= decided.t
    return False


def _lease(evidence: Evidence) -> float:
    """Seconds, without end where the run has none."""
    run = evidence.view.run
    return run.lease if run is not None and run.lease is not None else math.inf


def _is_off(value: Any) -> bool:
    """False, or a rollout to 0 %."""
    return value is False or (isinstance(value, Mapping) and value.get("rollout") == "0%")
