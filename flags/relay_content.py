"""What a flag relay serves, and both protocols that it is served by: FDv1, and FDv2 beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.client import Versions
from flags.launchdarkly import Items
from flags.lease import HEARTBEAT

_SECTIONS = ("segments", "flags")  # in the order of their use: a flag comes after the segments it names
_PAYLOAD = "snapdrill"


@dataclass(frozen=True, slots=True)
class Change:
    """One flag or segment as it is served from now on; `item` is None where it is served no longer."""

    section: str
    key: str
    version: int
    item: Mapping[str, Any] | None


class Content:
    """Flags and segments with versions that only rise; what no JSON can say, as an infinite number, is left out."""

    def __init__(self, first_version: int) -> None:
        self._versions = Versions(first_version)
        self._served: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in _SECTIONS}
        self._changes = 0

    def whole(self) -> bytes:
        """All of it as JSON, as a client that polls gets it (FDv1)."""
        return json.dumps(self._served, allow_nan=False).encode()

    def polled(self) -> bytes:
        """All of it as JSON, as a client that polls gets it (FDv2)."""
        events = [{"event": name, "data": data} for name, data in self._transfer()]
        return json.dumps({"events": events}, allow_nan=False).encode()

    def put(self) -> bytes:
        """The event that a stream begins with (FDv1)."""
        return event("put", {"path": "/", "data": self._served})

    def transfer(self) -> bytes:
        """The events that a stream begins with (FDv2)."""
        return b"".join(event(name, data) for name, data in self._transfer())

    def _transfer(self) -> Iterator[tuple[str, Any]]:
        payload = {"id": _PAYLOAD, "target": self._changes, "intentCode": "xfer-full", "reason": "payload-missing"}
        yield "server-intent", {"payloads": [payload]}
        for section in _SECTIONS:
            for key, item in self._served[section].items():
                yield _object(Change(section, key, item["version"], item))
        yield _transferred(self._changes)

    def set(self, section: str, key: str, item: Mapping[str, Any]) -> Iterator[Change]:
        """Serve this; nothing where the content is the same."""
        stamped = self._versions.stamp(section, key, item)
        if self._served[section].get(key) == stamped:
            return
        try:
            json.dumps(stamped, allow_nan=False)
        except (TypeError, ValueError):
            yield from self.delete(section, key)
        else:
            self._changes += 1
            self._served[section][key] = stamped
            yield Change(section, key, stamped["version"], stamped)

    def delete(self, section: str, key: str) -> Iterator[Change]:
        """Serve this no longer; nothing where there is no such thing."""
        if self._served[section].pop(key, None) is not None:
            self._changes += 1
            yield Change(section, key, self._versions.retire(section, key), None)

    def replace(self, flags: Items, segments: Items) -> Iterator[Change]:
        """Replace everything except the heartbeat by these; a change for each difference."""
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


def fdv1(change: Change) -> bytes:
    """A patch or a deletion."""
    path = f"/{change.section}/{change.key}"
    if change.item is None:
        return event("delete", {"path": path, "version": change.version})
    return event("patch", {"path": path, "data": change.item})


def fdv2(change: Change) -> bytes:
    """An object, and that the state is whole again; the SDK asks for nothing but an increasing state."""
    return event(*_object(change)) + event(*_transferred(change.version))


def _object(change: Change) -> tuple[str, Any]:
    named = {"version": change.version, "kind": change.section.removesuffix("s"), "key": change.key}
    if change.item is None:
        return "delete-object", named
    return "put-object", {**named, "object": change.item}


def _transferred(version: int) -> tuple[str, Any]:
    return "payload-transferred", {"state": f"({_PAYLOAD}:{version})", "version": version}


def event(name: str, data: Any) -> bytes:
    """A server-sent event with JSON data; data that is text is sent as it is."""
    text = data if isinstance(data, str) else json.dumps(data, allow_nan=False)
    return f"event: {name}\ndata: {text}\n\n".encode()
