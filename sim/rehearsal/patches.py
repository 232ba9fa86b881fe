"""A plan's stages as LaunchDarkly semantic-patch instructions, each with its inverse. Nothing is sent. Pure.

PATCH /api/v2/flags/PROJECT/FLAG, Content-Type `application/json; domain-model=launchdarkly.semanticpatch`, with
`environmentKey`, `comment` and `instructions` (LaunchDarkly's REST API reference, feature flags): `turnFlagOn`,
`turnFlagOff`, `updateOffVariation` with `variationId`, and `updateFallthroughVariationOrRollout` with `rolloutWeights`,
a map of variation id to thousandths of a percent, and `rolloutContextKind`, which is `user` unless it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.rehearsal.plan import Plan

WHOLE = 100_000


def variation_id(value: bool) -> str:
    """What stands for a variation's id, which only your LaunchDarkly environment knows."""
    return f"VARIATION_ID_OF_{str(value).upper()}"


def weight_patch(plan: Plan, weight: float, comment: str) -> dict[str, Any]:
    """Serve the destructive variation to `weight` percent.

    A map has no order that is promised, and the order of the weighted variations draws the cohort: the checklist has it
    looked at.
    """
    share = round(weight * 1000)
    weights = {variation_id(plan.safe): WHOLE - share, variation_id(not plan.safe): share}
    instruction = {
        "kind": "updateFallthroughVariationOrRollout",
        "rolloutContextKind": plan.by,
        "rolloutWeights": weights,
    }
    return _patch([{"kind": "turnFlagOn"}, instruction], comment)


def kill_patch(plan: Plan) -> dict[str, Any]:
    """The kill switch: the safe variation for everybody, whatever the off variation was before."""
    instructions = [{"kind": "updateOffVariation", "variationId": variation_id(plan.safe)}, {"kind": "turnFlagOff"}]
    return _patch(instructions, f"Kill switch of {plan.name}: what was punched stays punched")


def stage_patches(plan: Plan, weights: Sequence[float]) -> list[tuple[float, dict[str, Any], dict[str, Any]]]:
    """(weight, forward, inverse) of each stage; the inverse of the first is the kill switch."""
    made = []
    for number, weight in enumerate(weights):
        forward = weight_patch(plan, weight, f"{plan.name}, stage {number + 1}: {weight:g} %")
        back = kill_patch(plan)
        if number:
            before = weights[number - 1]
            back = weight_patch(plan, before, f"{plan.name}: stage {number + 1} taken back, to {before:g} %")
        made.append((weight, forward, back))
    return made


def _patch(instructions: list[dict[str, Any]], comment: str) -> dict[str, Any]:
    return {"environmentKey": "ENVIRONMENT", "comment": comment, "instructions": instructions}
