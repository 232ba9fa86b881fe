"""Who is exposed, planned or followed live."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from engine.errors import UserError
from flags.catalog import flag
from flags.cohort import Member, cohort, with_memfd
from flags.context import SandboxAttributes
from flags.edit import Place, share_of
from flags.inline import flag_from
from flags.launchdarkly import Items, make_context
from flags.sdk_logs import silence_sdk_logs
from flags.streaming import LaunchDarklyFlags
from sim.files.plan import Plan
from sim.rollout.compiled import Compiled
from sim.rollout.row_exposure import stage_exposures
from sim.rollout.stage_flags import exported, file_document, stage_sections


@dataclass(frozen=True, slots=True)
class Exposure:
    """Sandboxes that have the flag on at a weight, and how many randomization units they are of how many.

    `able` are those of them that can punch: a guest has no memfd where `use-memfd` is off, or below Firecracker 1.14.
    `reasons` counts them by the part of the flag that serves them: `default rule`, `rule ID`, `target`.
    """

    weight: float
    sandboxes: tuple[str, ...]
    contexts: int
    of_contexts: int
    joins: tuple[str, ...]
    leaves: tuple[str, ...]
    able: tuple[str, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_superset(self) -> bool:
        """True where every sandbox that had it at the weight before still has it."""
        return not self.leaves


def exposures(plan: Plan, weights: Sequence[float], rules: Sequence[str | None] = ()) -> list[Exposure]:
    """One a weight, in order, with the user's rule that it edits; who joins and leaves is against the one before."""
    silence_sdk_logs()
    found: list[Exposure] = []
    before: tuple[str, ...] = ()
    edits = list(zip_longest(weights, rules[: len(weights)]))
    for number, weight in enumerate(weights, 1):
        on, reasons = _on(plan, stage_sections(plan, edits[:number]))
        found.append(replace(exposure_of(plan, weight, on, before), reasons=reasons))
        before = on
    return found


def exposures_of(made: Compiled) -> list[Exposure]:
    """Of the stages of a plan."""
    return exposures(made.plan, [each.weight for each in made.stages], [each.rule for each in made.stages])


def as_exported(plan: Plan) -> Exposure | None:
    """Who has the user's flag on as its file has it, before the first stage; None where no file serves it."""
    known = exported(plan)
    if known is None:
        return None
    silence_sdk_logs()
    flags, segments = stage_sections(plan, [])
    on, reasons = _on(plan, ({**flags, plan.flag: known}, segments))
    return replace(exposure_of(plan, share_of(known, not plan.safe, Place()), on, ()), reasons=reasons)


def exposure_of(
    plan: Plan, weight: float, on: tuple[str, ...], before: tuple[str, ...], able: AbstractSet[str] | None = None
) -> Exposure:
    """Of those who have the flag on now and those who had it before; `able` by the plan's own flags unless given."""
    units = {each.name: each.name if plan.by == "sandbox" else getattr(each, plan.by) for each in plan.sandboxes()}
    joins = tuple(name for name in on if name not in before)
    leaves = tuple(name for name in before if name not in on)
    able = can_punch(plan) if able is None else able
    counts = (len({units[name] for name in on}), len(set(units.values())))
    return Exposure(weight, on, *counts, joins, leaves, tuple(name for name in on if name in able))


def can_punch(plan: Plan) -> frozenset[str]:
    """The sandboxes with a memfd: `use-memfd` is on at their resume, and their Firecracker is 1.14 or newer."""
    document = file_document(plan)
    given = {key: flag_from(key, value) for key, value in plan.flag_values.items()}
    names = _by_key(plan)
    members = [Member(each.attributes()) for each in plan.sandboxes()]
    flags, segments = document.get("flags") or {}, document.get("segments") or {}
    return frozenset(names[key] for key in with_memfd(({**given, **flags}, segments), members, plan.contexts))


def _by_key(plan: Plan) -> dict[str, str]:
    """The sandboxes' names by what flags know them by."""
    return {each.attributes().sandbox: each.name for each in plan.sandboxes()}


def _on(plan: Plan, sections: tuple[Items, Items]) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Names, and how many of them by which part of the flag; UserError where a prerequisite fails for every sandbox."""
    known = flag(plan.flag)
    members = plan.sandboxes()
    contexts = [make_context(context_of(plan, each.attributes())) for each in members]
    (found,) = stage_exposures([(0.0, sections)], known, contexts)
    if found.failures.get("PREREQUISITE_FAILED") == len(members):
        raise UserError(
            f"{plan.flag_file}: error: a prerequisite of {plan.flag} fails for every sandbox: no stage exposes one"
        )
    return tuple(each.name for each, on in zip(members, found.on.tolist(), strict=True) if on), found.reasons


def context_of(plan: Plan, attributes: SandboxAttributes) -> dict[str, Any]:
    """What the plan's flag is evaluated for when it is read."""
    return plan.contexts.context(attributes, flag(plan.flag).moments[0])


def contexts_needed(contexts: int, weight: float) -> int:
    """Randomization units a fleet must have so that a weight, in percent, exposes this many on average."""
    return math.ceil(contexts * 100 / weight) if weight else 0


READY_SECONDS = 20.0
LOOK_SECONDS = 0.1
_WHOLE = 100_000


class FlagFollower:
    """One LaunchDarkly client of the runner's own; close it. `patience` seconds for each turn of the operator."""

    def __init__(self, plan: Plan, *, patience: float, stream_uri: str | None = None) -> None:
        """UserError where LaunchDarkly answers, and does not serve the plan's flag."""
        self._plan = plan
        self._patience = patience
        self._flags = LaunchDarklyFlags(stream_uri=stream_uri)
        self._answered = self._flags.wait_ready(READY_SECONDS)
        if self._answered and plan.flag not in self._served()[0]:
            self.close()
            raise UserError(f"LaunchDarkly cannot be followed: it does not serve {plan.flag}")

    def _served(self) -> tuple[Items, Items]:
        return self._flags.sections()

    def weight(self) -> float | None:
        """What the flag serves now, in percent; None where that is no plain weight, or the flag is gone."""
        flag = self._served()[0].get(self._plan.flag)
        return None if flag is None else weight_of(flag, safe=self._plan.safe)

    async def until(self, weight: float) -> None:
        """Wait until the operator has turned the flag to this weight; TimeoutError where that does not come."""
        if not self._answered:
            raise TimeoutError(f"LaunchDarkly was never reached: {self._flags.status().error or 'nothing came'}")
        deadline = time.monotonic() + self._patience
        while self.weight() != weight:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the flag was not turned to {weight:g} %; it is at {self.weight()} %")
            await asyncio.sleep(LOOK_SECONDS)

    def exposure(self, weight: float, before: tuple[str, ...]) -> Exposure:
        """Who is exposed by the flag as it is served now, with its own salt and rules."""
        members = [Member(each.attributes()) for each in self._plan.sandboxes()]
        on = cohort(self._served(), self._plan.flag, members, self._plan.contexts)
        names = _by_key(self._plan)
        able = {names[key] for key in with_memfd(self._served(), members, self._plan.contexts)}
        return exposure_of(self._plan, weight, tuple(names[each.attributes.sandbox] for each in on), before, able)

    def close(self) -> None:
        """In bounded time."""
        self._flags.close()


def weight_of(flag: Mapping[str, Any], *, safe: bool) -> float | None:
    """Percent that a flag in LaunchDarkly's JSON form serves of the other variation, by its default rule."""
    if not flag.get("on"):
        return 0.0
    served, variations = flag.get("fallthrough", {}), flag.get("variations", [])
    if served.get("variation") is not None:
        return 0.0 if variations[served["variation"]] is safe else 100.0
    entries = (served.get("rollout") or {}).get("variations")
    if not entries:
        return None
    exposed = sum(int(each["weight"]) for each in entries if variations[each["variation"]] is not safe)
    return exposed * 100 / _WHOLE
