"""What a flag relay serves, and the events that tell its changes; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flags.launchdarkly import Items
from flags.lease import HEARTBEAT
from flags.versions import Versions

_SECTIONS = ("segments", "flags")  # in the order of their use: a flag comes after the segments it names


class Content:
    """Flags and segments with versions that only rise, and LaunchDarkly's put, patch and delete of them."""

    def __init__(self, first_version: int) -> None:
        self._versions = Versions(first_version)
        self._served: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in _SECTIONS}

    def whole(self) -> bytes:
        """All of it as JSON, as a client that polls gets it."""
        return json.dumps(self._served).encode()

    def put(self) -> bytes:
        """The event that a stream begins with."""
        return event("put", {"path": "/", "data": self._served})

    def set(self, section: str, key: str, item: Mapping[str, Any]) -> Iterator[bytes]:
        """Serve this; a patch, or nothing where the content is the same."""
        stamped = self._versions.stamp(section, key, item)
        if self._served[section].get(key) != stamped:
            self._served[section][key] = stamped
            yield event("patch", {"path": f"/{section}/{key}", "data": stamped})

    def delete(self, section: str, key: str) -> Iterator[bytes]:
        """Serve this no longer; a deletion, or nothing where there is no such thing."""
        if self._served[section].pop(key, None) is not None:
            version = self._versions.retire(section, key)
            yield event("delete", {"path": f"/{section}/{key}", "version": version})

    def replace(self, flags: Items, segments: Items) -> Iterator[bytes]:
        """Make these the whole, but for the heartbeat; a patch or a deletion for each difference."""
        wanted = {"flags": flags, "segments": segments}
        for section in _SECTIONS:
            for key, item in wanted[section].items():
                yield from self.set(section, key, item)
        for section in reversed(_SECTIONS):
            for key in self._served[section].keys() - wanted[section].keys() - {HEARTBEAT}:
                yield from self.delete(section, key)

    def version(self, key: str) -> int | None:
        """The version in force of a flag, None where there is none."""
        version: int | None = self._served["flags"].get(key, {}).get("version")
        return version


def event(name: str, data: Any) -> bytes:
    """A server-sent event with JSON data; data that is text is sent as it is."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"event: {name}\ndata: {text}\n\n".encode()
