"""Flags as LaunchDarkly streams them, or anything that speaks its protocol."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from engine.errors import UserError
from flags.catalog import CATALOG, Flag
from flags.client import SDK_KEY, FlagClientMisusedError, SourceStatus
from flags.context import ORIGINAL, Contexts, Moment, SandboxAttributes
from flags.decision import Decision
from flags.launchdarkly import Connection, Evaluator

STREAM_URI = "LAUNCHDARKLY_STREAM_URI"
_LOOPBACK = ("127.0.0.1", "localhost")


class LaunchDarklyFlags(Evaluator):
    """A FlagClient over LaunchDarkly's stream. Sends nothing back: no events, no diagnostics.

    The constructor never blocks, and until the first flags have come every decision is the safe one, with reason
    ERROR:CLIENT_NOT_READY; see wait_ready(). In an outage the last flags stay in force. One at a time a process.
    """

    _open: ClassVar[dict[int, LaunchDarklyFlags]] = {}  # by process: a fork's copy of another's entry means nothing

    def __init__(
        self,
        sdk_key: str | None = None,
        *,
        stream_uri: str | None = None,
        base_uri: str | None = None,
        events_uri: str | None = None,
        initial_reconnect_delay: float = 1.0,
        contexts: Contexts = ORIGINAL,
        obey_unsafe: bool = False,
    ) -> None:
        """Connect with `sdk_key` (default: the environment's LAUNCHDARKLY_SDK_KEY), to LaunchDarkly by default.

        Without a `stream_uri` it is the environment's LAUNCHDARKLY_STREAM_URI, where there is one: a relay's. The other
        two URIs are the stream's unless given. After `initial_reconnect_delay` seconds the SDK doubles its delay up to
        30 s, less up to half of it. UserError for a key or a URI that cannot be one.
        """
        self._process = os.getpid()
        stream_uri = stream_uri or os.environ.get(STREAM_URI) or None
        connection = Connection(
            _key(sdk_key, os.environ),
            stream_uri=_checked(stream_uri),
            base_uri=_checked(base_uri or stream_uri),
            events_uri=_checked(events_uri or stream_uri),
            initial_reconnect_delay=initial_reconnect_delay,
        )
        if stream_uri is not None:
            _bypass_proxy(stream_uri)
        if self._open.setdefault(self._process, self) is not self:
            raise FlagClientMisusedError("this process has a LaunchDarkly client already; close that one first")
        try:
            super().__init__(connection, contexts=contexts, obey_unsafe=obey_unsafe)
        except BaseException:
            self._release()
            raise

    def wait_ready(self, timeout: float) -> bool:
        """Wait for the first flags to be in force, at most `timeout` seconds; False where they have not come."""
        return self.wait_until(self._client.is_initialized, timeout)

    def decide(
        self, attributes: SandboxAttributes, moment: Moment = "pause", flags: Sequence[Flag] = CATALOG
    ) -> Decision:
        if os.getpid() != self._process:
            raise FlagClientMisusedError("this LaunchDarkly client was made before a fork; make one in each process")
        return super().decide(attributes, moment, flags)

    def status(self) -> SourceStatus:
        if os.getpid() != self._process:
            return SourceStatus("OFF", None, "made before a fork: no change reaches this process")
        return super().status()

    def close(self) -> None:
        super().close()
        self._release()

    def _release(self) -> None:
        if self._open.get(self._process) is self:
            del self._open[self._process]


def _key(given: str | None, environment: Mapping[str, str]) -> str:
    key = environment.get(SDK_KEY, "") if given is None else given
    if not key.strip():
        raise UserError(f"no LaunchDarkly SDK key; set {SDK_KEY} to the key of an environment")
    return key


def _checked(uri: str | None) -> str | None:
    """The SDK would take any text, and never connect."""
    if uri is not None:
        parts = urlsplit(uri)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UserError(f'"{uri}" is no address of a flag service; write http://HOST:PORT')
    return uri


def _bypass_proxy(uri: str) -> None:
    """Keep a loopback stream off the proxy, which the SDK would ask even for it; children inherit the setting.

    The SDK reads only the lower-case variables (impl/http.py), on the thread that connects.
    """
    host = urlsplit(uri).hostname
    bypassed = os.environ.get("no_proxy", "")
    if host in _LOOPBACK and host not in bypassed.split(",") and bypassed.strip() != "*":
        os.environ["no_proxy"] = f"{bypassed},{host}" if bypassed else host
