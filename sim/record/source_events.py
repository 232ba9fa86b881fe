"""What happened to the source of the flags: frozen, past-tense facts."""

from __future__ import annotations

from dataclasses import dataclass

from engine.events import Event


@dataclass(frozen=True, slots=True)
class OutageBegan(Event):
    """The flag source starts to fail, as an `outage` step says; `detail` is the fault's setting, or empty."""

    fault: str
    detail: str


@dataclass(frozen=True, slots=True)
class OutageEnded(Event):
    """The flag source works again, and the node has all of its flags."""


@dataclass(frozen=True, slots=True)
class FlagFileEdited(Event):
    """The flag file that the node follows was changed from outside the run."""

    found: str  # off: for every sandbox, and that stood for two looks | not off | torn: no whole document, or gone
    ago: float  # seconds since it was last seen as it was before


@dataclass(frozen=True, slots=True)
class FlagSourceChanged(Event):
    """The node's flag client changed its state: INITIALIZING, VALID, INTERRUPTED or OFF; `error` says why."""

    state: str
    error: str | None


@dataclass(frozen=True, slots=True)
class LeaseMeasured(Event):
    """The dead-man lease opened or expired, or a heartbeat is overdue; seconds. `age` is None before any heartbeat."""

    open: bool
    age: float | None
    duration: float
