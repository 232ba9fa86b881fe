"""Flags held in memory: for a scenario's inline values, for rehearsals and for tests."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from flags.context import ORIGINAL, Contexts
from flags.launchdarkly import Evaluator, InProcessSource, Items


class MemoryFlags(Evaluator):
    """A FlagClient over flags in LaunchDarkly's JSON form, by key. Taken as they are: lint is for files."""

    def __init__(self, flags: Items, contexts: Contexts = ORIGINAL) -> None:
        self._changing = Lock()
        self._flags = dict(flags)
        self._source = InProcessSource(self._flags, {})
        super().__init__(self._source, contexts=contexts)

    def set(self, flag: Mapping[str, Any]) -> None:
        """Add or replace the flag of that `key`; effective, with subscribers notified, before it returns."""
        self._change({flag["key"]: flag})

    def delete(self, key: str) -> None:
        """Remove a flag; its safe value is served from then on. An unknown key is no error."""
        self._change({key: None})

    def _change(self, changes: Mapping[str, Mapping[str, Any] | None]) -> None:
        with self._changing:
            merged = {**self._flags, **changes}
            self._flags = {key: flag for key, flag in merged.items() if flag is not None}
            self._source.put(self._flags, {})
