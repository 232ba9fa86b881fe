"""Flag values written in a scenario, turned into full LaunchDarkly flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.errors import UserError
from flags.catalog import did_you_mean, flag

RolloutKind = Literal["sandbox", "team", "template", "cluster"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Serve `true` to `percent` (0 to 100, three decimals) of the contexts, drawn by the key of kind `by`."""

    percent: float
    by: RolloutKind

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise UserError(f"rollout {self.percent:g}% is out of range; use 0% to 100%")
        if self.by not in get_args(RolloutKind):
            raise UserError(f'unknown rollout kind "{self.by}"; {did_you_mean(self.by, get_args(RolloutKind))}')


def flag_from(key: str, value: bool | Rollout) -> dict[str, Any]:
    """The LaunchDarkly flag that serves this value; UserError for a key that is not in the catalogue.

    Variation 0 is the safe value: off serves it, and a rollout lists it first, because a context that lacks the
    rollout's kind gets the first entry at any weight (SDK evaluator: its bucket is -1). The salt is the key, so
    that a rollout draws the same cohort in every source.
    """
    variations = [flag(key).safe, not flag(key).safe]
    served = _rollout(value, variations) if isinstance(value, Rollout) else {"variation": variations.index(value)}
    return {
        "key": key,
        "on": True,
        "variations": variations,
        "fallthrough": served,
        "offVariation": 0,
        "salt": key,
    }


def _rollout(rollout: Rollout, variations: list[bool]) -> dict[str, Any]:
    true_weight = round(rollout.percent * 1000)
    weights = [true_weight if value else 100_000 - true_weight for value in variations]
    entries = [{"variation": index, "weight": weight} for index, weight in enumerate(weights)]
    return {"rollout": {"contextKind": rollout.by, "variations": entries}}
