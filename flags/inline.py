"""Flag values written in a scenario, turned into full LaunchDarkly flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.errors import UserError
from flags.catalog import Value, did_you_mean, flag

RolloutKind = Literal["sandbox", "team", "template", "cluster"]
ENABLED: Mapping[str, Any] = {"enabled": True}


@dataclass(frozen=True, slots=True)
class Rollout:
    """Serve `value` to `percent` (0 to 100, three decimals) of the contexts, drawn by the key of kind `by`.

    Without a value that is true, and {"enabled": true} for a JSON flag. Every other context gets the other boolean,
    or the JSON flag's safe object.
    """

    percent: float
    by: RolloutKind
    value: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise UserError(f"rollout {self.percent:g}% is out of range; use 0% to 100%")
        if self.by not in get_args(RolloutKind):
            raise UserError(f'unknown rollout kind "{self.by}"; {did_you_mean(self.by, get_args(RolloutKind))}')


@dataclass(frozen=True, slots=True)
class Share:
    """Edit the flag that a file serves: `percent` on its true variation, by its default rule or the rule of that id.

    `by` is for a rule that had no rollout yet. Everything else of the flag stays.
    """

    percent: float
    by: RolloutKind = "sandbox"
    rule: str | None = None


InlineValue = bool | Mapping[str, Any] | Rollout | Share


def flag_from(key: str, value: InlineValue) -> dict[str, Any]:
    """The LaunchDarkly flag that serves this value.

    UserError for a key that is not in the catalogue and for a value that is not of the flag's type.
    Variation 0 is the safe value: off serves it, and a rollout lists it first, because a context that lacks the
    rollout's kind gets the first entry at any weight (SDK evaluator: its bucket is -1). The salt is the key, so
    that a rollout draws the same cohort in every source.
    """
    if isinstance(value, Share):
        raise UserError(f"{key} has no flag of its own to edit here; a share is for a flag that a file serves")
    aimed = _aimed(key, value)
    variations = _variations(flag(key).safe, aimed)
    index = variations.index(aimed)
    served = _rollout(value, index, len(variations)) if isinstance(value, Rollout) else {"variation": index}
    return {
        "key": key,
        "on": True,
        "variations": variations,
        "fallthrough": served,
        "offVariation": 0,
        "salt": key,
    }


def _aimed(key: str, value: InlineValue) -> Value:
    """The value to serve, or the one that a rollout rolls out."""
    known = flag(key)
    given: Any = value
    if isinstance(value, Rollout):
        given = value.value if value.value is not None else (True if known.type == "boolean" else ENABLED)
    accepted = known.accepted(given)
    if accepted is None:
        form = "true or false" if known.type == "boolean" else "an object such as {enabled: true}"
        raise UserError(f"{key} cannot be {given!r}; it takes {form}")
    return accepted


def _variations(safe: Value, aimed: Value) -> list[Value]:
    if isinstance(safe, bool):
        return [safe, not safe]
    return [dict(safe)] if aimed == safe else [dict(safe), aimed]


def _rollout(rollout: Rollout, index: int, variations: int) -> dict[str, Any]:
    weight = round(rollout.percent * 1000) if variations > 1 else 100_000
    weights = [weight if each == index else 100_000 - weight for each in range(variations)]
    entries = [{"variation": each, "weight": weight} for each, weight in enumerate(weights)]
    return {"rollout": {"contextKind": rollout.by, "variations": entries}}


def as_written(value: InlineValue) -> Any:
    """The value as a scenario file writes it."""
    if isinstance(value, Share):
        named = {} if value.rule is None else {"rule": value.rule}
        return {"share": f"{value.percent:g}%", "by": value.by, **named}
    if not isinstance(value, Rollout):
        return value if isinstance(value, bool) else dict(value)
    served = {} if value.value is None else {"value": dict(value.value)}
    return {"rollout": f"{value.percent:g}%", "by": value.by, **served}


def from_written(written: Any) -> InlineValue:
    """The value of what as_written() gave."""
    if isinstance(written, Mapping) and "rollout" in written:
        return Rollout(float(written["rollout"].rstrip("%")), written["by"], written.get("value"))
    if isinstance(written, Mapping) and "share" in written:
        return Share(float(written["share"].rstrip("%")), written["by"], written.get("rule"))
    value: InlineValue = written
    return value
