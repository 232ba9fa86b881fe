"""What any flag source is asked; versions."""

from __future__ import annotations

import json
import marshal
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from engine.errors import EngineError
from flags.catalog import CATALOG, Flag
from flags.context import Moment, SandboxAttributes
from flags.decision import Decision

SDK_KEY = "LAUNCHDARKLY_SDK_KEY"
"""The variable of the environment that holds the SDK's key: for nodes alone, no guest and no zygote gets it."""


class FlagClientMisusedError(EngineError):
    """A second LaunchDarkly client in one process, or one that a fork has copied: neither would receive changes."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A data source's health: INITIALIZING, VALID, INTERRUPTED (last good values are served) or OFF (closed).

    `since` is when it entered that state, in Unix seconds. `error` says what is wrong: why nothing comes or, while
    VALID, what of the newest flags is refused and so not served.
    """

    state: str
    since: float | None
    error: str | None


Kind = TypeVar("Kind")


def one_change(
    before: Mapping[Kind, Mapping[str, Any]] | None, after: Mapping[Kind, Mapping[str, Any]]
) -> tuple[Kind, Any] | None:
    """The kind and the item where one item alone is another object, and none is new, gone or deleted; else None."""
    if before is None or any(before[kind].keys() != items.keys() for kind, items in after.items()):
        return None
    changed = [
        (kind, item) for kind, items in after.items() for key, item in items.items() if before[kind][key] is not item
    ]
    return changed[0] if len(changed) == 1 and not changed[0][1].get("deleted") else None


def error_words(status: int, message: str) -> str:
    """The SDK's error in words; after most 4xx its next attempt comes in 2.5 to 60 minutes (SDK, retry.py)."""
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f"LaunchDarkly refused the SDK key (HTTP {status}); correct the key and start again"
    return f"HTTP {status} from LaunchDarkly" if status else message


class FlagClient(Protocol):
    """A source of decisions. Safe to use from several threads; one client a process, made after any fork."""

    def decide(
        self, attributes: SandboxAttributes, moment: Moment = "pause", flags: Sequence[Flag] = CATALOG
    ) -> Decision:
        """Evaluate these flags of the catalogue once each, as at that moment; UserError where there is no context."""

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the key of a changed flag, on the thread that changed it; the result unsubscribes."""

    def status(self) -> SourceStatus: ...

    def close(self) -> None:
        """Stop following changes, in bounded time. Closing twice is harmless."""


class Versions:
    """The newest version of each item of a section ("flags" or "segments"). Not thread-safe.

    The SDK drops a patch or a deletion whose version is not higher, and notifies no listener.
    """

    def __init__(self, first: int = 1) -> None:
        """`first` is for items that bring no version of their own."""
        self._first = first
        self._newest: dict[tuple[str, str], dict[str, Any]] = {}
        self._given: dict[tuple[str, str], bytes | None] = {}

    def stamp(self, section: str, key: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """A copy with a version above that of any other content this key has had, not below the given one.

        The same content again gives the same object again. A version that is no integer stays as it is.
        """
        last, content = self._newest.get((section, key)), _bytes(item)
        if last is not None and content is not None and content == self._given.get((section, key)):
            return last
        copied = deepcopy(dict(item)) if content is None else marshal.loads(content)  # noqa: S302 - our own bytes
        given = self._first if item.get("version") is None else item["version"]
        if not isinstance(given, int):
            return dict(copied)  # which the SDK refuses
        if last is not None:
            given = max(given, last["version"] + (_canonical(last) != _canonical(item)))
        self._newest[section, key], self._given[section, key] = {**copied, "version": given}, content
        return self._newest[section, key]

    def retire(self, section: str, key: str) -> int:
        """The version of this key's deletion."""
        last = self._newest.get((section, key))
        version: int = self._first if last is None else last["version"] + 1
        self._newest[section, key] = {"version": version, "deleted": True}
        self._given.pop((section, key), None)
        return version


def _bytes(item: Mapping[str, Any]) -> bytes | None:
    """The content to the letter, at the cost of a copy; None for what is not plain data. Here true is not 1."""
    plain: Any = item
    try:
        return marshal.dumps(plain, 2)  # from 3 on, equal content may give other bytes
    except ValueError:
        return None


def _canonical(item: Mapping[str, Any]) -> str:
    """The content without its version, as text: in Python alone, true equals 1."""
    return json.dumps({**item, "version": 0}, sort_keys=True)
