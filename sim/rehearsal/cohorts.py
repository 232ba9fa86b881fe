"""Who is exposed at which weight: the fleet, bucketed by LaunchDarkly's own evaluator."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from flags.catalog import flag
from flags.context import SandboxAttributes, to_context
from flags.inline import Rollout, flag_from
from flags.launchdarkly import Evaluator, InProcessSource, Items, make_context, silence_sdk_logs
from sim.rehearsal.plan import Plan, flag_file


@dataclass(frozen=True, slots=True)
class Exposure:
    """Sandboxes that have the flag on at a weight, and how many randomization units they are of how many."""

    weight: float
    sandboxes: tuple[str, ...]
    contexts: int
    of_contexts: int
    joins: tuple[str, ...]
    leaves: tuple[str, ...]

    @property
    def is_superset(self) -> bool:
        """True where everybody who had it at the weight before has it still."""
        return not self.leaves


def exposures(plan: Plan, weights: Sequence[float]) -> list[Exposure]:
    """One a weight, in order; who joins and leaves is against the weight before."""
    silence_sdk_logs()
    members = {
        each.name: SandboxAttributes(each.name, each.template, each.team, each.cluster) for each in plan.sandboxes()
    }
    found: list[Exposure] = []
    before: tuple[str, ...] = ()
    for weight in weights:
        on = _on(plan, weight, members)
        found.append(exposure_of(plan, weight, on, before))
        before = on
    return found


def exposure_of(plan: Plan, weight: float, on: tuple[str, ...], before: tuple[str, ...]) -> Exposure:
    """Of those who have the flag on now and those who had it before."""
    units = {each.name: each.name if plan.by == "sandbox" else getattr(each, plan.by) for each in plan.sandboxes()}
    joins = tuple(name for name in on if name not in before)
    leaves = tuple(name for name in before if name not in on)
    return Exposure(weight, on, len({units[name] for name in on}), len(set(units.values())), joins, leaves)


def _on(plan: Plan, weight: float, members: dict[str, SandboxAttributes]) -> tuple[str, ...]:
    known, (flags, segments) = flag(plan.flag), _served(plan)
    flags = {**flags, plan.flag: flag_from(plan.flag, Rollout(weight, plan.by))}
    evaluator = Evaluator(InProcessSource(flags, segments))
    try:
        return tuple(
            name
            for name, each in members.items()
            if evaluator.evaluate(known, make_context(to_context(each))).value is True
        )
    finally:
        evaluator.close()


def _served(plan: Plan) -> tuple[Items, Items]:
    """What a flag file serves beside the flag that is rolled out: its prerequisites, for instance."""
    file = flag_file(plan)
    document = json.loads(file.read_text()) if file is not None else {}
    return dict(document.get("flags", {})), dict(document.get("segments", {}))


def contexts_needed(contexts: int, weight: float) -> int:
    """Randomization units a fleet must have so that a weight, in percent, exposes this many on average."""
    return math.ceil(contexts * 100 / weight) if weight else 0
