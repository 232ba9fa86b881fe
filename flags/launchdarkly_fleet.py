"""The SDK's evaluator and its buckets without a client around them: one flag for a whole fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ldclient import Context
from ldclient.evaluation import EvaluationDetail
from ldclient.impl.evaluator import Evaluator as SdkEvaluator
from ldclient.impl.evaluator_common import _bucket_context
from ldclient.impl.events.types import EventFactory
from ldclient.interfaces import (
    DataSourceState,
)
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

from flags.as_go import flag_as_go, segment_as_go
from flags.catalog import Flag
from flags.decision import Evaluation, evaluation_of
from flags.launchdarkly import Items, kinds_of, version_of


class FleetEvaluator:
    """One flag for a whole fleet, by the SDK's own evaluator without a client around it: half of a client's time.

    As Go's SDK, production's, serves it. It notifies no listener, keeps no status and takes no changes. UserError where
    the SDK refuses the flag.
    """

    def __init__(self, flags: Items, segments: Items, flag: Flag) -> None:
        self._flag = flag
        self._flags, self._segments = flags, segments
        self._events = EventFactory(with_reasons=True)
        self._by_kinds: dict[frozenset[str], tuple[Any, SdkEvaluator]] = {}

    def each(self, contexts: Iterable[Context]) -> Iterator[Evaluation]:
        """Of contexts of make_context(), in order; a flag that is not there or of another type has its safe value."""
        flag = self._flag
        for context in contexts:
            known, evaluator = self._evaluator(kinds_of(context))
            served = known and evaluator.evaluate(known, context, self._events).detail
            if served is None or served.variation_index is None:
                reason = served.reason if served is not None else {"kind": "ERROR", "errorKind": "FLAG_NOT_FOUND"}
                served = EvaluationDetail(flag.safe, None, reason)
            parts = served.value, served.variation_index, served.reason
            yield evaluation_of(flag, parts, version_of(known), DataSourceState.VALID.name)

    def _evaluator(self, kinds: frozenset[str]) -> tuple[Any, SdkEvaluator]:
        """The SDK's model of the flag, and its evaluator, for contexts of these kinds."""
        if kinds not in self._by_kinds:
            flags = {
                key: FEATURES.decode(flag_as_go({"version": 1, **each}, kinds)) for key, each in self._flags.items()
            }
            segments = {
                key: SEGMENTS.decode(segment_as_go({"version": 1, **each}, kinds))
                for key, each in self._segments.items()
            }
            evaluator = SdkEvaluator(flags.get, segments.get, lambda _key: (None, "NOT_CONFIGURED"))
            self._by_kinds[kinds] = flags.get(self._flag.key), evaluator
        return self._by_kinds[kinds]


def bucket_of(key: str, salt: str, value: str, seed: int | None = None) -> float:
    """Where a context of that key lands in a rollout of a flag, by the SDK: from 0 to 1."""
    return bucket_in(Context.create(value), None, key, salt, None, seed)


def bucket_in(
    context: Context, kind: str | None, key: str, salt: str, bucket_by: Any, seed: int | None = None
) -> float:
    """As bucket_of(), of a context with that kind; -1 without it. `bucket_by` is as in the SDK's model of a rollout."""
    return float(_bucket_context(seed, context, kind, key, salt, bucket_by))
