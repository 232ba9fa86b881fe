"""All that touches the LaunchDarkly SDK: the real evaluator, and a data source fed from this process."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any, Self

from ldclient import Config, Context, LDClient
from ldclient.feature_store import InMemoryFeatureStore
from ldclient.interfaces import (
    DataSourceErrorInfo,
    DataSourceErrorKind,
    DataSourceState,
    DataSourceUpdateSink,
    FeatureStore,
    FlagChange,
    UpdateProcessor,
)
from ldclient.versioned_data_kind import FEATURES, SEGMENTS, VersionedDataKind

from engine.errors import UserError
from flags.catalog import CATALOG, Flag
from flags.client import SourceStatus
from flags.context import SandboxAttributes, to_context
from flags.decision import Decision, Evaluation

Items = Mapping[str, Mapping[str, Any]]
"""Flags or segments in LaunchDarkly's JSON form, by key. `version` may be left out."""

CLOSE_SECONDS = 2.0


class InProcessSource(UpdateProcessor):
    """A data source whose flags are put there by this process, through the SDK's own sink.

    The SDK tells its listeners only of higher versions, so each change of content raises the version here.
    """

    def __init__(self, flags: Items, segments: Items) -> None:
        self._lock = RLock()  # a listener may put again
        self._newest: dict[tuple[VersionedDataKind, str], dict[str, Any]] = {}
        self._data = self._versioned(flags, segments)
        self._sink: DataSourceUpdateSink | None = None
        self._ready = Event()

    def __call__(self, config: Config, store: FeatureStore, ready: Event) -> Self:
        """The SDK's factory call: take the sink that this source feeds."""
        self._sink = config.data_source_update_sink
        self._ready = ready
        return self

    def start(self) -> None:
        self._push()
        self._ready.set()

    def stop(self) -> None:
        self._report(DataSourceState.OFF)

    def initialized(self) -> bool:
        return self._ready.is_set()

    def put(self, flags: Items, segments: Items) -> None:
        """Replace the whole set; effective, and listeners called on this thread, before it returns."""
        with self._lock:
            self._data = self._versioned(flags, segments)
            self._push()

    def interrupt(self, error: str) -> None:
        """Say that the source is in trouble; the last good set stays in force until the next put()."""
        with self._lock:
            info = DataSourceErrorInfo(DataSourceErrorKind.INVALID_DATA, 0, time.time(), error)
            self._report(DataSourceState.INTERRUPTED, info)

    def _push(self) -> None:
        if self._sink is not None:
            self._sink.init(self._data)
            self._report(DataSourceState.VALID)

    def _report(self, state: DataSourceState, error: DataSourceErrorInfo | None = None) -> None:
        if self._sink is not None:
            self._sink.update_status(state, error)

    def _versioned(self, flags: Items, segments: Items) -> dict[VersionedDataKind, dict[str, dict[str, Any]]]:
        sets = {FEATURES: flags, SEGMENTS: segments}
        return {
            kind: {key: self._version(kind, key, item) for key, item in items.items()} for kind, items in sets.items()
        }

    def _version(self, kind: VersionedDataKind, key: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """A copy with a version above that of any other content this key has had, not below the given one."""
        given = item.get("version", 1)
        last = self._newest.get((kind, key))
        if last is not None:
            changed = _canonical(last) != _canonical(item)
            given = max(given, last["version"] + changed)
        self._newest[kind, key] = {**deepcopy(dict(item)), "version": given}
        return self._newest[kind, key]


class Evaluator:
    """A FlagClient over a data source, with the SDK's own evaluation. Make one a process, after any fork."""

    def __init__(self, source: InProcessSource) -> None:
        self._store: FeatureStore = InMemoryFeatureStore()  # type: ignore[no-untyped-call]
        config = Config(
            "snapdrill-local",
            update_processor_class=source,
            feature_store=self._store,
            send_events=False,
            diagnostic_opt_out=True,
        )
        self._client = LDClient(config, start_wait=0)

    def decide(self, attributes: SandboxAttributes) -> Decision:
        context = make_context(to_context(attributes))
        return Decision(tuple(self.evaluate(flag, context) for flag in CATALOG))

    def evaluate(self, flag: Flag, context: Context) -> Evaluation:
        """One flag for a context of make_context(); a value of another type becomes the safe one."""
        state = self._client.data_source_status_provider.status.state.name
        version = self._flag_version(flag)
        detail = self._client.variation_detail(flag.key, context, flag.safe)
        while (now := self._flag_version(flag)) != version:  # it changed meanwhile: value and version must agree
            version = now
            detail = self._client.variation_detail(flag.key, context, flag.safe)
        value = detail.value if isinstance(detail.value, bool) else None  # the SDK checks no types
        return Evaluation(
            flag=flag.key,
            value=flag.safe if value is None else value,
            reason="WRONG_TYPE" if value is None else _reason(detail.reason),
            variation=detail.variation_index,
            version=version,
            rule=_rule(detail.reason),
            source_state=state,
        )

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        def on_change(change: FlagChange) -> None:
            callback(change.key)

        tracker = self._client.flag_tracker
        tracker.add_listener(on_change)
        return lambda: tracker.remove_listener(on_change)

    def status(self) -> SourceStatus:
        status = self._client.data_source_status_provider.status
        valid = status.state is DataSourceState.VALID  # the SDK keeps the last error for ever
        return SourceStatus(
            status.state.name, status.since, None if valid or not status.error else status.error.message
        )

    def close(self) -> None:
        """Close the SDK's client, waiting CLOSE_SECONDS at most: its own close can hang."""
        closing = Thread(target=self._client.close, name="flags.close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _flag_version(self, flag: Flag) -> int | None:
        version: int | None = self._store.get(FEATURES, flag.key, lambda item: item and item["version"])
        return version


def make_context(data: dict[str, Any]) -> Context:
    """The SDK's context of to_context()'s data; UserError where it is invalid (the SDK would serve defaults)."""
    context = Context.from_dict(data)
    if not context.valid:
        raise UserError(f"invalid flag context: {context.error}; give every kind a non-empty key")
    return context


def refusal(section: str, item: Mapping[str, Any]) -> str | None:
    """Why the SDK would refuse this flag or segment ("flags" or "segments"), None if it would take it."""
    kind = {"flags": FEATURES, "segments": SEGMENTS}[section]
    try:
        kind.decode({"version": 1, **item})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return str(error)
    return None


def route_sdk_logs(path: Path) -> None:
    """Send the SDK's log records to a file from now on, so that none is written over a screen."""
    logger = logging.getLogger("ldclient")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(logging.FileHandler(path, encoding="utf-8", delay=True))
    logger.propagate = False


def _canonical(item: Mapping[str, Any]) -> str:
    """The content without its version, as text: in Python alone, true equals 1."""
    return json.dumps({**item, "version": 0}, sort_keys=True)


def _reason(reason: Mapping[str, Any] | None) -> str:
    kind, error = (reason or {}).get("kind", "UNKNOWN"), (reason or {}).get("errorKind")
    return f"{kind}:{error}" if error else str(kind)


def _rule(reason: Mapping[str, Any] | None) -> str | None:
    if not reason or reason.get("kind") != "RULE_MATCH":
        return None
    return str(reason.get("ruleId") or reason["ruleIndex"])
