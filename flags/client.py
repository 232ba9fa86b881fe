"""What any flag source is asked; versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

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


class Versions:
    """The newest version of each item of a section ("flags" or "segments"). Not thread-safe.

    The SDK drops a patch or a deletion whose version is not higher, and tells no listener of it.
    """

    def __init__(self, first: int = 1) -> None:
        """`first` is for items that bring no version of their own."""
        self._first = first
        self._newest: dict[tuple[str, str], dict[str, Any]] = {}

    def stamp(self, section: str, key: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """A copy with a version above that of any other content this key has had, not below the given one."""
        given = item.get("version", self._first)
        last = self._newest.get((section, key))
        if last is not None:
            changed = _canonical(last) != _canonical(item)
            given = max(given, last["version"] + changed)
        self._newest[section, key] = {**deepcopy(dict(item)), "version": given}
        return self._newest[section, key]

    def retire(self, section: str, key: str) -> int:
        """The version of this key's deletion."""
        last = self._newest.get((section, key))
        version: int = self._first if last is None else last["version"] + 1
        self._newest[section, key] = {"version": version, "deleted": True}
        return version


def _canonical(item: Mapping[str, Any]) -> str:
    """The content without its version, as text: in Python alone, true equals 1."""
    return json.dumps({**item, "version": 0}, sort_keys=True)
