"""What the flags said for one pause, pinned, and the engine's options that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flags.catalog import DEDUP, FLAGS, IN_PLACE, SALVAGE, Flag, Value, is_on

if TYPE_CHECKING:  # the engine's modules need Linux; reading and checking flag files must not
    from engine.plan import PauseOptions


UNSERVED = "ERROR:"
"""How the reason begins where the SDK had no answer, so that the value is the safe one."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One flag's answer and how it came about.

    `reason` is LaunchDarkly's reason kind (OFF, FALLTHROUGH, TARGET_MATCH, RULE_MATCH, PREREQUISITE_FAILED), its
    error as ERROR:FLAG_NOT_FOUND and the like, WRONG_TYPE where the served value was not of the catalogue's type and
    shape, or UNSAFE_FLAG where a following node does not obey it (flags/unsafe.py); the value is then the safe one.
    `variation`, `version` and `rule` (id, else index) are None where there is none. `source_state` is the data
    source's state at that moment.
    """

    flag: str
    value: Value
    reason: str
    variation: int | None
    version: int | None
    rule: str | None
    source_state: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The evaluations of one pause, one for each flag of the catalogue. Later changes do not touch it."""

    evaluations: tuple[Evaluation, ...]

    def evaluation(self, key: str) -> Evaluation:
        """That flag's answer; KeyError for a flag that was not evaluated."""
        for each in self.evaluations:
            if each.flag == key:
                return each
        raise KeyError(key)

    def value(self, key: str) -> Value:
        """The decided value; KeyError for a flag that was not evaluated."""
        return self.evaluation(key).value

    def is_on(self, key: str) -> bool:
        """True where the flag is true, or its object enabled; KeyError for a flag that was not evaluated."""
        return is_on(self.value(key))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided and counts for nothing, a sentence each."""
        return tuple(note for each in self.evaluations for note in _notes(FLAGS[each.flag], each.value))

    def as_fields(self) -> dict[str, dict[str, Any]]:
        """JSON-ready: for each flag its value, reason, variation, version, rule and source_state."""
        names = ("value", "reason", "variation", "version", "rule", "source_state")
        return {each.flag: {name: getattr(each, name) for name in names} for each in self.evaluations}


Answer = tuple[Any, int | None, Mapping[str, Any]]
"""What the SDK says: a value, its variation, and its reason, such as {"kind": "OFF"}."""


def evaluation_of(flag: Flag, answer: Answer, version: int | None, state: str) -> Evaluation:
    """One flag's answer; the SDK checks no types."""
    given, variation, reason = answer
    value = flag.accepted(given)
    said = "WRONG_TYPE" if value is None else reason_of(reason)
    return Evaluation(flag.key, flag.safe if value is None else value, said, variation, version, rule_of(reason), state)


def reason_of(reason: Mapping[str, Any]) -> str:
    """The SDK's reason as one word: its kind, an error as ERROR:MALFORMED_FLAG."""
    return f"{reason['kind']}:{reason['errorKind']}" if "errorKind" in reason else str(reason["kind"])


def rule_of(reason: Mapping[str, Any]) -> str | None:
    """The rule that matched, by its id or else by its index."""
    return str(reason.get("ruleId") or reason["ruleIndex"]) if reason["kind"] == "RULE_MATCH" else None


def otel_fields(decision: Decision, sandbox: str | None = None) -> list[dict[str, Any]]:
    """The attributes of one `feature_flag.evaluation` event a flag, by OpenTelemetry's semantic conventions.

    Where it has no word for a reason, that is LaunchDarkly's in small letters. `sandbox` is the one it was decided for.
    """
    return [_otel(each) | ({"feature_flag.context.id": sandbox} if sandbox else {}) for each in decision.evaluations]


def _otel(each: Evaluation) -> dict[str, Any]:
    kind, _, error = each.reason.partition(":")
    error = "WRONG_TYPE" if kind == "WRONG_TYPE" else error
    reason = "error" if error else _REASONS.get(kind, kind.lower())
    fields = {
        "feature_flag.key": each.flag,
        "feature_flag.provider.name": "LaunchDarkly",
        "feature_flag.result.value": each.value,
        "feature_flag.result.variant": None if each.variation is None else str(each.variation),
        "feature_flag.result.reason": reason,
        "feature_flag.version": None if each.version is None else str(each.version),
        "error.type": _ERRORS.get(error, "general") if error else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


_REASONS = {
    "OFF": "disabled",
    "FALLTHROUGH": "default",
    "TARGET_MATCH": "targeting_match",
    "RULE_MATCH": "targeting_match",
}
_ERRORS = {
    "CLIENT_NOT_READY": "provider_not_ready",
    "FLAG_NOT_FOUND": "flag_not_found",
    "MALFORMED_FLAG": "parse_error",
    "USER_NOT_SPECIFIED": "invalid_context",
    "WRONG_TYPE": "type_mismatch",
}


def options(decision: Decision, use_memfd: bool = True, *, salvage: bool = False) -> PauseOptions:
    """The engine's options for the pause this decision was made for.

    `salvage` holds where the flag of that name is not served.
    `use_memfd` is the value of the flag of that name that was latched when the sandbox was resumed.
    """
    from engine.plan import DedupOptions, PauseOptions

    dedup = DedupOptions(decision.is_on(DEDUP), ignored_settings(FLAGS[DEDUP], decision.value(DEDUP)))
    decided = decision.evaluation(SALVAGE)
    return PauseOptions(
        use_memfd=use_memfd,
        background_copy=decision.is_on("memfd-background-copy"),
        punch=decision.is_on("memfd-punch-on-snapshot"),
        dedup=dedup,
        inflight_serve=decision.is_on("memfd-dedup-inflight-serve"),
        salvage=salvage if decided.reason.startswith(UNSERVED) else is_on(decided.value),
    )


def is_in_place(decision: Decision, use_sync_wp: bool) -> bool:
    """Whether a checkpoint lets the same guest go on; `use_sync_wp` as latched when the sandbox was resumed.

    Otherwise it consumes the memory as a pause does, and a new guest is resumed from its build.
    """
    return use_sync_wp and decision.is_on(IN_PLACE)


def ignored_settings(flag: Flag, value: Value) -> tuple[str, ...]:
    """The settings that were given, other than by default, and that this engine does not act on."""
    if not isinstance(value, Mapping):
        return ()
    known = {each.name: each for each in flag.settings}
    return tuple(
        name
        for name, given in value.items()
        if name not in known or (given != known[name].default and not known[name].effect)
    )


def _notes(flag: Flag, value: Value) -> Iterator[str]:
    if not flag.effect and value != flag.safe:
        yield f"{flag.key} is accepted and has no effect"
    for name in ignored_settings(flag, value):
        yield f"{flag.key}: {name} is accepted and has no effect"
    if is_on(value):
        yield from (f"{other} has no effect: {flag.key} is on" for other in flag.overrides)
