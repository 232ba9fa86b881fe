"""All that touches the LaunchDarkly SDK: the real evaluator, a data source fed from this process, its own stream."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from threading import Event, Lock, RLock, Thread, local
from typing import Any, Self

import ldclient.impl.datasystem.fdv1  # noqa: F401 - a client loads it when it starts, each forked node would again
from ldclient import Config, Context, LDClient
from ldclient.evaluation import EvaluationDetail
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
from flags.as_go import AsGo, flag_as_go, segment_as_go
from flags.catalog import CATALOG, FLAGS, Flag
from flags.client import SourceStatus, Versions, error_words, one_change
from flags.context import ORIGINAL, Contexts, Moment, SandboxAttributes
from flags.decision import Decision, Evaluation, evaluation_of
from flags.decode import in_words
from flags.unsafe import UNSAFE_FLAG, Judge, Served

Items = Mapping[str, Mapping[str, Any]]
"""Flags or segments in LaunchDarkly's JSON form, by key. `version` may be left out."""

CLOSE_SECONDS = 2.0
_KINDS = {"flags": FEATURES, "segments": SEGMENTS}
_OTHERS = 1.5  # all of an environment's flags at once, where they are no more times as many as are asked for


class InProcessSource(UpdateProcessor):
    """A data source whose flags are put there by this process, through the SDK's own sink.

    Each change of content raises the version: the SDK notifies its listeners of no other. Before the first put()
    every flag has its default. What the SDK's decoder refuses is not there; `refused` says why, by section and key.
    """

    def __init__(self, flags: Items | None = None, segments: Items | None = None) -> None:
        self._lock = RLock()  # a listener may put again
        self._versions = Versions()
        self._decoded: dict[tuple[str, str], tuple[dict[str, Any], Any]] = {}
        self.refused: dict[tuple[str, str], str] = {}
        self._pushed: Mapping[VersionedDataKind, Mapping[str, Any]] | None = None
        self._data = None if flags is None else self._taken(flags, segments or {})
        self._sink: DataSourceUpdateSink | None = None
        self._ready = Event()

    def __call__(self, config: Config, store: FeatureStore, ready: Event) -> Self:
        """The SDK's factory call: take the sink that this source feeds."""
        self._sink = config.data_source_update_sink
        self._ready = ready
        return self

    def config(self, store: FeatureStore) -> Config:
        """The SDK's configuration for this source."""
        return Config(
            "snapdrill-local",
            update_processor_class=self,
            feature_store=store,
            send_events=False,
            diagnostic_opt_out=True,
        )

    def start(self) -> None:
        self._push()
        self._ready.set()

    def stop(self) -> None:
        self._report(DataSourceState.OFF)

    def initialized(self) -> bool:
        return self._ready.is_set() and self._data is not None

    def put(self, flags: Items, segments: Items) -> None:
        """Replace the whole set; effective, and listeners called on this thread, before it returns."""
        with self._lock:
            self._data = self._taken(flags, segments)
            self._push()

    def interrupt(self, error: str) -> None:
        """Say that the source is in trouble; the last good set, if any, stays in force until the next put()."""
        with self._lock:
            info = DataSourceErrorInfo(DataSourceErrorKind.INVALID_DATA, 0, time.time(), error)
            self._report(DataSourceState.INTERRUPTED, info)

    def _push(self) -> None:
        if self._sink is None or self._data is None:
            return
        change, self._pushed, before = one_change(self._pushed, self._data), None, self._pushed
        try:
            if change is not None:
                self._sink.upsert(*change)
            elif before is not self._data:
                self._sink.init(self._data)
            self._pushed = self._data
        except Exception as error:  # noqa: BLE001 - the SDK sorts flags by their prerequisites, at any depth
            self._sink.init({FEATURES: {}, SEGMENTS: {}})  # no older value
            self.refused[("flags", "")] = f"the SDK refuses the whole set: {error!r}"
        self._report(DataSourceState.VALID)

    def _report(self, state: DataSourceState, error: DataSourceErrorInfo | None = None) -> None:
        if self._sink is not None:
            self._sink.update_status(state, error)

    def _taken(self, flags: Items, segments: Items) -> dict[VersionedDataKind, dict[str, Any]]:
        """What decodes, decoded; what is as it was is not decoded again."""
        self.refused, before, self._decoded = {}, self._decoded, {}
        found: dict[VersionedDataKind, dict[str, Any]] = {FEATURES: {}, SEGMENTS: {}}
        for section, kind, items in (("flags", FEATURES, flags), ("segments", SEGMENTS, segments)):
            for key, item in items.items():
                stamped = self._versions.stamp(section, key, item)
                known = before.get((section, key))
                made = known[1] if known is not None and known[0] is stamped else _decoded(kind, stamped, key)
                self._decoded[section, key] = stamped, made
                if isinstance(made, str):
                    self.refused[section, key] = made
                else:
                    found[kind][key] = made
        return found


def _decoded(kind: VersionedDataKind, item: Mapping[str, Any], key: str) -> Any:
    """The SDK's model of an item, or as text why its decoder refuses it; null is as good as absent."""
    try:
        made = kind.decode({name: each for name, each in item.items() if each is not None})
        return made if made.key == key or made.deleted else f'its "key" is {json.dumps(made.key)}'
    except Exception as error:  # noqa: BLE001 - it reads what anybody may have written
        return in_words(str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where LaunchDarkly is, and who asks. URIs of None are LaunchDarkly's own; seconds."""

    sdk_key: str = field(repr=False)
    stream_uri: str | None = None
    base_uri: str | None = None
    events_uri: str | None = None
    initial_reconnect_delay: float = 1.0

    def config(self, store: FeatureStore) -> Config:
        """The SDK's configuration for this stream; UserError for a key that the SDK would silently discard."""
        names = ("stream_uri", "base_uri", "events_uri")
        config = Config(
            self.sdk_key,
            feature_store=store,
            send_events=False,
            diagnostic_opt_out=True,
            initial_reconnect_delay=self.initial_reconnect_delay,
            **{name: getattr(self, name) for name in names if getattr(self, name) is not None},
        )
        if not self.sdk_key or config.sdk_key != self.sdk_key:
            raise UserError("this is no LaunchDarkly SDK key: blank, too long or with odd characters; copy it again")
        return config


_Everything = Mapping[VersionedDataKind, Mapping[str, Any]]


class Store(FeatureStore):
    """The SDK's flags and segments; each change replaces the whole: the SDK's own store locks for each read.

    What is read is as production's SDK, Go's, would serve it where as_go() says for which kinds of context.
    """

    def __init__(self) -> None:
        self._changing = Lock()
        self._ready = False
        self._asking = local()
        self._as_go = AsGo()
        self.items: _Everything = {FEATURES: {}, SEGMENTS: {}}

    @contextmanager
    def as_go(self, kinds: frozenset[str] | None) -> Iterator[None]:
        """Give this thread what Go's SDK would serve to contexts of these kinds; None: what Python's would."""
        self._asking.kinds = kinds
        try:
            yield
        finally:
            self._asking.kinds = None

    def get(self, kind: VersionedDataKind, key: str, callback: Callable[[Any], Any] = lambda item: item) -> Any:
        items = self.items
        item = items[kind].get(key)
        return callback(None if item is None or item.get("deleted") else self._asked_for(items, kind, key, item))

    def all(self, kind: VersionedDataKind, callback: Callable[[Any], Any] = lambda items: items) -> Any:
        items = self.items
        found = ((key, item) for key, item in items[kind].items() if not item.get("deleted"))
        return callback({key: self._asked_for(items, kind, key, item) for key, item in found})

    def _asked_for(self, items: _Everything, kind: VersionedDataKind, key: str, item: Any) -> Any:
        kinds = getattr(self._asking, "kinds", None)
        if kinds is None:
            return item
        rewrite = flag_as_go if kind is FEATURES else segment_as_go
        return self._as_go.made(items, (kind, key, kinds), item, partial(rewrite, kinds=kinds), kind.decode)

    def init(self, all_data: Mapping[VersionedDataKind, Mapping[str, Any]]) -> None:
        decoded = {kind: {key: kind.decode(item) for key, item in items.items()} for kind, items in all_data.items()}
        with self._changing:
            self.items = {FEATURES: {}, SEGMENTS: {}, **decoded}
            self._ready = True

    def upsert(self, kind: VersionedDataKind, item: dict[str, Any]) -> None:
        self._newer(kind, item["key"], kind.decode(item))

    def delete(self, kind: VersionedDataKind, key: str, version: int) -> None:
        self._newer(kind, key, {"deleted": True, "version": version})

    @property
    def initialized(self) -> bool:
        return self._ready

    def count(self) -> int:
        """How many flags there are, deleted ones with them."""
        return len(self.items[FEATURES])

    def flags(self, keys: Iterable[str]) -> list[Any]:
        """Each flag as it is now, None where there is none; a change makes another, which is unequal."""
        items = self.items[FEATURES]
        return [items.get(key) for key in keys]

    def _newer(self, kind: VersionedDataKind, key: str, item: Any) -> None:
        """Older and equal versions change nothing: messages may come out of order."""
        with self._changing:
            known = self.items[kind].get(key)
            if known is None or known["version"] < item["version"]:
                self.items = {**self.items, kind: {**self.items[kind], key: item}}


class Evaluator:
    """A FlagClient over a data source, with the SDK's own evaluation. Make one a process, after any fork."""

    def __init__(
        self, source: InProcessSource | Connection, *, contexts: Contexts = ORIGINAL, obey_unsafe: bool = True
    ) -> None:
        """Never blocks: flags in this process are in force on return, those of a Connection when they come.

        Without `obey_unsafe`, decide() serves the safe value of a flag with one of the mistakes of flags/unsafe.py.
        """
        self._contexts = contexts
        self._obey_unsafe = obey_unsafe
        self._judge = Judge([flag.key for flag in CATALOG])
        self._store = Store()
        self._client = LDClient(source.config(self._store), start_wait=0)

    def decide(
        self, attributes: SandboxAttributes, moment: Moment = "pause", flags: Sequence[Flag] = CATALOG
    ) -> Decision:
        found: dict[str, Evaluation] = {}
        for each in dict.fromkeys(flag.moment_at(moment) for flag in flags):
            together = [flag for flag in flags if flag.moment_at(moment) == each]
            found |= self._decide(together, self._contexts.context(attributes, each))
        return Decision(tuple(found[flag.key] for flag in flags))

    def _decide(self, flags: Sequence[Flag], data: dict[str, Any]) -> dict[str, Evaluation]:
        """These flags by their keys, for a context in LaunchDarkly's JSON form."""
        refused = {} if self._obey_unsafe else self.unsafe(data)
        found = self._evaluations([flag for flag in flags if flag.key not in refused], make_context(data))
        refused |= {} if self._obey_unsafe else self.unsafe(data)  # the flags may have changed meanwhile
        known = {each.flag: each for each in found if each.flag not in refused}
        if len(known) == len(flags):
            return known
        state = self._client.data_source_status_provider.status.state.name
        return {
            flag.key: known.get(flag.key)
            or Evaluation(flag.key, flag.safe, UNSAFE_FLAG, None, self.version(flag.key), None, state)
            for flag in flags
        }

    def unsafe(self, context: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        """The flags that a following node does not obey for a context in LaunchDarkly's JSON form, and why."""
        shape = {kind: tuple(part) for kind, part in context.items() if kind != "kind"}
        items = self._store.items
        return self._judge.unsafe(items, Served(items[FEATURES].get, items[SEGMENTS].get, shape))

    def evaluate(self, flag: Flag, context: Context, *, as_go: bool = True) -> Evaluation:
        """One flag for a context of make_context(); a value of another type becomes the safe one.

        As Go's SDK, production's, serves it, or else as Python's does.
        """
        return self._evaluations((flag,), context, as_go=as_go)[0]

    def answer(self, key: str, context: Context, *, as_go: bool = True) -> EvaluationDetail:
        """What the SDK says of any flag, as Go's or as Python's; its default is the catalogue's safe value, or None."""
        kinds = kinds_of(context) if as_go else None
        with self._store.as_go(kinds):
            return self._client.variation_detail(key, context, FLAGS[key].safe if key in FLAGS else None)

    def model(self, section: str, key: str) -> Any:
        """The SDK's model of a flag or segment ("flags" or "segments"), None where there is none."""
        return self._store.get(_KINDS[section], key)

    def _evaluations(self, flags: Sequence[Flag], context: Context, *, as_go: bool = True) -> tuple[Evaluation, ...]:
        """All from one state of these flags: evaluated anew where one changed meanwhile, so versions fit values."""
        kinds = kinds_of(context) if as_go else None
        keys = [flag.key for flag in flags]
        before, now = None, self._store.flags(keys)
        while now != before:
            before = now
            state = self._client.data_source_status_provider.status.state.name
            with self._store.as_go(kinds):
                details = self._details(flags, now, context)
            now = self._store.flags(keys)
        return tuple(
            evaluation_of(flag, (each.value, each.variation_index, each.reason), version_of(item), state)
            for flag, each, item in zip(flags, details, now, strict=True)
        )

    def _details(self, flags: Sequence[Flag], items: Sequence[Any], context: Context) -> list[EvaluationDetail]:
        """In one call for all, which takes half the time, unless many others would be evaluated with them.

        It gives the same for each flag that served a variation; the rest is evaluated one by one, with its default; of
        those that there are not (None in `items`) one alone, as the SDK says the same of all.
        """
        at_once = self._store.count() <= len(flags) * _OTHERS
        told = self._client.all_flags_state(context, with_reasons=True).to_json_dict() if at_once else {}
        known = told.get("$flagsState", {})
        gone = [flag for flag, item in zip(flags, items, strict=True) if version_of(item) is None]
        missing = [self._client.variation_detail(flag.key, context, None) for flag in gone[:1]]
        return [
            EvaluationDetail(told[flag.key], known[flag.key]["variation"], known[flag.key]["reason"])
            if "variation" in known.get(flag.key, ())
            else EvaluationDetail(flag.safe, None, missing[0].reason)
            if flag in gone
            else self._client.variation_detail(flag.key, context, flag.safe)
            for flag in flags
        ]

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        def on_change(change: FlagChange) -> None:
            callback(change.key)

        tracker = self._client.flag_tracker
        tracker.add_listener(on_change)
        return lambda: tracker.remove_listener(on_change)

    def watch(self, report: Callable[[SourceStatus], None]) -> None:
        """Report the status now, and whenever its state or error changes, on the thread that changes it."""
        lock, last = Lock(), SourceStatus("", None, None)

        def on_change(_: object) -> None:
            nonlocal last
            with lock:
                status = self.status()
                if (status.state, status.error) != (last.state, last.error):  # not each failed attempt to connect
                    last = status
                    report(status)

        self._client.data_source_status_provider.add_listener(on_change)
        on_change(None)

    def wait_until(self, holds: Callable[[], bool], timeout: float) -> bool:
        """Wait for `holds()`, asked after each change of a flag or of the status; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        changed = Event()

        def on_change(_: object) -> None:
            changed.set()

        tellers = (self._client.flag_tracker, self._client.data_source_status_provider)
        for teller in tellers:
            teller.add_listener(on_change)
        try:
            while not holds():
                if not changed.wait(deadline - time.monotonic()):
                    return holds()
                changed.clear()
            return True
        finally:
            for teller in tellers:
                teller.remove_listener(on_change)

    def version(self, key: str) -> int | None:
        """The version in force of any flag, None where there is no such flag."""
        version: int | None = self._store.get(FEATURES, key, lambda item: item and item["version"])
        return version

    def sections(self) -> tuple[Items, Items]:
        """The flags and segments in force, in LaunchDarkly's JSON form."""
        flags, segments = ({k: e.to_json_dict() for k, e in self._store.all(kind).items()} for kind in _KINDS.values())
        return flags, segments

    def status(self) -> SourceStatus:
        status = self._client.data_source_status_provider.status
        sound = status.state in {DataSourceState.VALID, DataSourceState.OFF}  # the SDK keeps the last error for ever
        error = None if sound or not status.error else error_words(status.error.status_code, str(status.error.message))
        return SourceStatus(status.state.name, status.since, error)

    def close(self) -> None:
        """Close the SDK's client, waiting CLOSE_SECONDS at most: its own close can hang."""
        closing = Thread(target=self._client.close, name="flags.close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def version_of(item: Any) -> int | None:
    """The version of the SDK's model of a flag; None where there is no flag, or it was deleted."""
    return None if item is None or item.get("deleted") else int(item["version"])


def kinds_of(context: Context) -> frozenset[str]:
    """The kinds that a context has."""
    singles = (context.get_individual_context(n) for n in range(context.individual_context_count))
    return frozenset(each.kind for each in singles if each is not None)


def make_context(data: dict[str, Any]) -> Context:
    """The SDK's context of data in LaunchDarkly's JSON form; UserError where it is invalid: it would get defaults."""
    multi = data.get("kind") == "multi"
    context = Context.create_multi(*_parts(data)) if multi else Context.from_dict(data)
    if not context.valid:
        raise UserError(f"invalid flag context: {context.error}; give every kind a non-empty key")
    return context


def _parts(data: dict[str, Any]) -> Iterator[Context]:
    if data == {"kind": "multi"}:  # of a sandbox of which no kind is known
        yield _bare("unknown", "unknown")
    for kind, part in data.items():
        if kind != "kind":
            yield _bare(kind, part["key"]) if part.keys() == {"key"} else Context.from_dict({"kind": kind, **part})


@lru_cache(maxsize=4096)
def _bare(kind: str, key: str) -> Context:
    """A team or a cluster is that of many sandboxes; the SDK's contexts do not change."""
    return Context.create(key, kind)


def refusal(section: str, item: Mapping[str, Any], key: str) -> str | None:
    """Why the SDK would refuse this flag or segment ("flags" or "segments"), None if it would take it."""
    version = 1 if item.get("version") is None else item["version"]
    made = _decoded(_KINDS[section], {**item, "version": version}, key)
    return made if isinstance(made, str) else None
