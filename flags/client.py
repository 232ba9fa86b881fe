"""The four things asked of any flag source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flags.context import SandboxAttributes
from flags.decision import Decision


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A data source's health: INITIALIZING, VALID, INTERRUPTED (last good values are served) or OFF (closed).

    `since` is when it entered that state, in Unix seconds; `error` says what is wrong, None while VALID.
    """

    state: str
    since: float | None
    error: str | None


class FlagClient(Protocol):
    """A source of decisions. Safe to use from several threads; one client a process, made after any fork."""

    def decide(self, attributes: SandboxAttributes) -> Decision:
        """Evaluate every flag of the catalogue once; UserError where the attributes make no valid context."""

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the key of a changed flag, on the thread that changed it; the result unsubscribes."""

    def status(self) -> SourceStatus: ...

    def close(self) -> None:
        """Stop following changes, in bounded time. Closing twice is harmless."""
