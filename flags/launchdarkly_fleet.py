"""The SDK's evaluator and its buckets without a client around them: one flag for a whole fleet."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ldclient import Context
from ldclient.evaluation import EvaluationDetail
from ldclient.impl.evaluator import Evaluator as SdkEvaluator
from ldclient.impl.evaluator_common import _bucket_context, _get_value_for_variation_or_rollout
from ldclient.impl.events.types import EventFactory
from ldclient.interfaces import (
    DataSourceState,
)
from ldclient.versioned_data_kind import FEATURES, SEGMENTS, VersionedDataKind

from flags.as_go import flag_as_go, segment_as_go
from flags.catalog import Flag
from flags.decision import Evaluation, evaluation_of
from flags.launchdarkly import Items, kinds_of, version_of


class FixedFlags:
    """Flags that do not change, for the SDK's own evaluator without a client around it: half of a client's time.

    It notifies no listener, keeps no status and takes no changes. UserError where the SDK refuses a flag.
    """

    def __init__(self, flags: Items, segments: Items) -> None:
        self._flags, self._segments = flags, segments
        self._events = EventFactory(with_reasons=True)
        self._by_kinds: dict[
            frozenset[str] | None, tuple[Mapping[str, Any], Mapping[str, Any], SdkEvaluator, bool]
        ] = {}

    def answer(self, key: str, context: Context, *, as_go: bool = True) -> EvaluationDetail | None:
        """What the SDK says of a flag for a context of make_context(), as Go's or as Python's; None for no flag."""
        flags, _, evaluator, _ = self._made(kinds_of(context) if as_go else None)
        if key not in flags:
            return None
        try:
            return evaluator.evaluate(flags[key], context, self._events).detail
        except Exception:  # noqa: BLE001 - as the SDK's client answers what its evaluator cannot bear
            return EvaluationDetail(None, None, {"kind": "ERROR", "errorKind": "EXCEPTION"})

    def served_again(self, key: str, context: Context, met: Mapping[str, Any]) -> EvaluationDetail | None:
        """What answer() says, as Go's, for a context that meets the part of the flag that the reason `met` names.

        None for a reason that names neither a rule nor the default rule, and where there is no flag.
        """
        flag = self._made(kinds_of(context))[0].get(key)
        if flag is None or met["kind"] not in {"RULE_MATCH", "FALLTHROUGH"}:
            return None
        is_rule = met["kind"] == "RULE_MATCH"
        part = flag.rules[met["ruleIndex"]].variation_or_rollout if is_rule else flag.fallthrough
        reason = {name: each for name, each in met.items() if name != "inExperiment"}
        try:
            return _get_value_for_variation_or_rollout(flag, part, context, reason)
        except Exception:  # noqa: BLE001 - answer() says what the SDK's client would
            return None

    def model(self, key: str) -> Any:
        """The SDK's model of a flag as it is written, None where there is none."""
        return self._made(None)[0].get(key)

    def segments(self) -> Mapping[str, Any]:
        """The SDK's models of the segments as they are written."""
        return self._made(None)[1]

    def is_same(self, context: Context) -> bool:
        """True where no flag or segment had to be rewritten for Go's SDK: Python's then says the same."""
        return self._made(kinds_of(context))[3]

    def differs(self, key: str, context: Context) -> bool:
        """True where Python's SDK serves another variation than Go's, or none."""
        if self.is_same(context):
            return False
        go, python = (self.answer(key, context, as_go=each) for each in (True, False))
        return (go and go.variation_index) != (python and python.variation_index)

    def _made(self, kinds: frozenset[str] | None) -> tuple[Mapping[str, Any], Mapping[str, Any], SdkEvaluator, bool]:
        if kinds not in self._by_kinds:
            flags, same_flags = self._decoded(FEATURES, self._flags, flag_as_go, kinds)
            segments, same_segments = self._decoded(SEGMENTS, self._segments, segment_as_go, kinds)
            evaluator = SdkEvaluator(flags.get, segments.get, lambda _key: (None, "NOT_CONFIGURED"))
            self._by_kinds[kinds] = flags, segments, evaluator, same_flags and same_segments
        return self._by_kinds[kinds]

    @staticmethod
    def _decoded(
        kind: VersionedDataKind,
        items: Items,
        rewrite: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]],
        kinds: frozenset[str] | None,
    ) -> tuple[dict[str, Any], bool]:
        found, same = {}, True
        for key, item in items.items():
            written = {"version": 1, **item}
            rewritten = written if kinds is None else rewrite(written, kinds)
            same = same and rewritten is written
            found[key] = kind.decode(rewritten)
        return found, same


class FleetEvaluator:
    """One flag for a whole fleet, as Go's SDK, production's, serves it; `contexts` are of make_context()."""

    def __init__(self, flag: Flag, contexts: Sequence[Context]) -> None:
        self._flag = flag
        self._contexts = contexts
        self._before: tuple[str, list[EvaluationDetail]] | None = None

    def each(self, flags: Items, segments: Items) -> Iterator[Evaluation]:
        """Of the contexts, in order; a flag that is not there or of another type has its safe value.

        Where these sections differ from the last ones only in what parts of the flag serve (a share, a variation), each
        context meets the same part as then, and the SDK is only asked what that part serves. UserError where the SDK
        refuses the flag.
        """
        flag, fixed = self._flag, FixedFlags(flags, segments)
        version = version_of(fixed.model(flag.key))
        meets, served = _without_what_is_served(flags, segments, flag.key), list[EvaluationDetail]()
        known = self._before[1] if self._before is not None and self._before[0] == meets else None
        for row, context in enumerate(self._contexts):
            found = None if known is None else fixed.served_again(flag.key, context, known[row].reason)
            if found is None:
                found = fixed.answer(flag.key, context)
            if found is None or found.variation_index is None:
                reason = found.reason if found is not None else {"kind": "ERROR", "errorKind": "FLAG_NOT_FOUND"}
                found = EvaluationDetail(flag.safe, None, reason)
            served.append(found)
            parts = found.value, found.variation_index, found.reason
            yield evaluation_of(flag, parts, version, DataSourceState.VALID.name)
        self._before = meets, served


def _without_what_is_served(flags: Items, segments: Items, key: str) -> str:
    """All that decides which part of the flag a context meets, as JSON: in Python 1 and true would be the same."""
    mine = dict(flags.get(key, {}))
    for name in ("fallthrough", "version"):
        mine.pop(name, None)
    if mine.get("rules"):
        mine["rules"] = [{n: part for n, part in rule.items() if n not in _SERVED} for rule in mine["rules"]]
    return json.dumps([{**flags, key: mine}, segments])


_SERVED = frozenset({"variation", "rollout"})


def bucket_of(key: str, salt: str, value: str, seed: int | None = None) -> float:
    """Where a context of that key lands in a rollout of a flag, by the SDK: from 0 to 1."""
    return bucket_in(Context.create(value), None, key, salt, None, seed)


def bucket_in(
    context: Context, kind: str | None, key: str, salt: str, bucket_by: Any, seed: int | None = None
) -> float:
    """As bucket_of(), of a context with that kind; -1 without it. `bucket_by` is as in the SDK's model of a rollout."""
    return float(_bucket_context(seed, context, kind, key, salt, bucket_by))
