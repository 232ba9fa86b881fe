"""A stage as an edit to the user's own flag: one share changes, everything else stays as it was. Pure.

Flags are in LaunchDarkly's JSON form. The variations are never relisted: their order draws the cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError

WHOLE = 100_000
"""LaunchDarkly has weights in thousandths of a percent."""

STAGED = {"measuredRollout": "guarded", "progressiveRollout": "progressive"}
"""Rollouts that LaunchDarkly moves on by itself, by the type that an export gives them."""

Flag = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """What a stage edits: the default rule (`rule` is None), or the rule with that id. `by` is for a new rollout."""

    rule: str | None = None
    by: str = "sandbox"

    def __str__(self) -> str:
        return "the default rule" if self.rule is None else f'rule "{self.rule}"'


def with_share(flag: Flag, value: Any, weight: float, place: Place) -> dict[str, Any]:
    """The flag with `weight` percent on the variation of that value; UserError where the flag has no place for it.

    A fixed variation becomes a rollout in the order of the variations. An existing rollout changes its weights in
    place: the other entries share the rest in their old proportion, or it goes to the safest one where they had none.
    """
    _refuse(flag, place)
    edited = deepcopy(dict(flag))
    served, aimed = served_by(edited, place), variation_of(flag, value)
    share = round(weight * 1000)
    if served.get("rollout") is not None:
        entries = served["rollout"]["variations"]
        _reweigh(entries, aimed, share, _rest(flag, aimed))
        return edited
    fixed = served.pop("variation", None)
    if fixed is None:
        raise UserError(f"{place} of {flag.get('key')} serves nothing; give it a variation or a rollout first")
    rest = fixed if fixed != aimed else _rest(flag, aimed)
    weights = {aimed: share, rest: WHOLE - share}
    entries = [{"variation": each, "weight": weights.get(each, 0)} for each in range(len(flag["variations"]))]
    served["rollout"] = {"contextKind": place.by, "variations": entries}
    return edited


def share_of(flag: Flag, value: Any, place: Place) -> float:
    """Percent that the place serves of the variation of that value, as it stands."""
    served, aimed = served_by(flag, place), variation_of(flag, value)
    if served.get("rollout") is None:
        return 100.0 if served.get("variation") == aimed else 0.0
    weights = [int(each["weight"]) for each in served["rollout"]["variations"] if each["variation"] == aimed]
    return sum(weights) * 100 / WHOLE


def variation_of(flag: Flag, value: Any) -> int:
    """Its index; UserError where the flag has no such variation, or two of them."""
    found = [at for at, each in enumerate(flag.get("variations") or []) if each is value or each == value]
    found = [at for at in found if type(flag["variations"][at]) is type(value)]
    if len(found) != 1:
        lack = "has no variation" if not found else f"has {len(found)} variations that are"
        raise UserError(f"{flag.get('key')} {lack} {str(value).lower()}; a rollout needs exactly one")
    return found[0]


def served_by(flag: Flag, place: Place) -> dict[str, Any]:
    """The part of the flag that the place names; UserError where there is no such rule, or more than one."""
    if place.rule is None:
        served: dict[str, Any] = flag.get("fallthrough") or {}
        return served
    rules = flag.get("rules") or []
    found = [each for each in rules if each.get("id") == place.rule]
    if len(found) == 1:
        rule: dict[str, Any] = found[0]
        return rule
    if found:
        raise UserError(f'{flag.get("key")} has {len(found)} rules with the id "{place.rule}"; give each its own')
    known = ", ".join(f'"{each["id"]}"' for each in rules if each.get("id"))
    hint = f"it has {known}" if known else "its rules have no ids"
    raise UserError(f'{flag.get("key")} has no rule "{place.rule}"; {hint}')


def _refuse(flag: Flag, place: Place) -> None:
    """Rollouts that LaunchDarkly moves by itself draw their cohorts anew: a stage cannot be an edit of them."""
    ids = [each.get("id") for each in flag.get("rules") or [] if each.get("id")]
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise UserError(f'{flag.get("key")} has two rules with the id "{twice[0]}": patches could not distinguish them')
    rollout = served_by(flag, place).get("rollout") or {}
    kind = (rollout.get("experimentAllocation") or {}).get("type") or rollout.get("kind") or "rollout"
    if kind != "rollout":
        what = f"a {STAGED[kind]} rollout" if kind in STAGED else f'a rollout of kind "{kind}"'
        raise UserError(
            f"{place} of {flag.get('key')} is {what}: LaunchDarkly moves it and draws its sandboxes anew;"
            " end it, or rehearse a percentage rollout"
        )


def _rest(flag: Flag, aimed: int) -> int:
    """Where the rest goes if nothing else says so: to the off variation, or to the first other one."""
    off = flag.get("offVariation")
    return off if off is not None and off != aimed else next(at for at in range(len(flag["variations"])) if at != aimed)


def _reweigh(entries: list[dict[str, Any]], aimed: int, share: int, rest: int) -> None:
    """In place. An entry that is not there yet is put last, so that no other context changes sides."""
    for variation in (rest, aimed):
        if not any(each["variation"] == variation for each in entries):
            entries.append({"variation": variation, "weight": 0})
    mine = [each for each in entries if each["variation"] == aimed]
    others = [each for each in entries if each["variation"] != aimed]
    _deal(mine, share, mine[0])
    _deal(others, WHOLE - share, next(each for each in others if each["variation"] == rest))


def _deal(entries: Sequence[dict[str, Any]], share: int, otherwise: dict[str, Any]) -> None:
    """`share` to these entries in their old proportion, whole thousandths by largest remainder."""
    whole = sum(each["weight"] for each in entries)
    if whole == 0:
        otherwise["weight"] = share
        return
    exact = [each["weight"] * share for each in entries]
    for each, size in zip(entries, exact, strict=True):
        each["weight"] = size // whole
    left = share - sum(each["weight"] for each in entries)
    for at in sorted(range(len(entries)), key=lambda at: -(exact[at] % whole))[:left]:
        entries[at]["weight"] += 1


@dataclass(frozen=True, slots=True)
class Ids:
    """The variations' ids, in their order, where an export had them: SDK payloads do not."""

    variations: tuple[str, ...] = ()

    def of(self, flag: Flag, variation: int) -> str:
        """The id, or a placeholder to be replaced."""
        if variation < len(self.variations):
            return self.variations[variation]
        return f"VARIATION_ID_OF_{str(flag['variations'][variation]).upper()}"

    def complete(self, flag: Flag) -> bool:
        """Whether nothing has to be replaced."""
        return len(self.variations) >= len(flag["variations"])


def ids_file(flag_file: Path) -> Path:
    """Where the ids of the variations of a flag file's flags are kept: `flags.json` has `flags.ids.json`."""
    return flag_file.with_suffix(".ids.json")


def instruction(flag: Flag, place: Place, ids: Ids) -> dict[str, Any]:
    """LaunchDarkly's semantic patch instruction that makes the place serve what it serves in this flag."""
    served = served_by(flag, place)
    named = {"ruleId": place.rule} if place.rule is not None else {}
    kind = "updateFallthroughVariationOrRollout" if place.rule is None else "updateRuleVariationOrRollout"
    rollout = served.get("rollout")
    if rollout is None:
        return {"kind": kind, **named, "variationId": ids.of(flag, served["variation"])}
    weights: dict[str, int] = {}
    for each in rollout["variations"]:
        name = ids.of(flag, each["variation"])
        weights[name] = weights.get(name, 0) + each["weight"]
    made = {"kind": kind, **named, "rolloutContextKind": rollout.get("contextKind", "user"), "rolloutWeights": weights}
    return made | ({"rolloutBucketBy": rollout["bucketBy"]} if rollout.get("bucketBy") else {})


def turned_on(flag: Flag) -> dict[str, Any]:
    """The flag with its targeting on."""
    return {**deepcopy(dict(flag)), "on": True}
