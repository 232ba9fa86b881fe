"""Follows the real flag in LaunchDarkly as its operator turns it. Reads; nothing is written there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from engine.errors import UserError
from flags.cohort import Member, cohort
from flags.context import SandboxAttributes
from flags.launchdarkly import Items
from flags.streaming import LaunchDarklyFlags
from sim.rehearsal.cohorts import Exposure, exposure_of
from sim.rehearsal.plan import Plan

READY_SECONDS = 20.0
LOOK_SECONDS = 0.1
_WHOLE = 100_000


class Follower:
    """One LaunchDarkly client of the runner's own; close it. `patience` seconds for each turn of the operator."""

    def __init__(self, plan: Plan, *, patience: float, stream_uri: str | None = None) -> None:
        """UserError where LaunchDarkly does not serve the plan's flag."""
        self._plan = plan
        self._patience = patience
        self._flags = LaunchDarklyFlags(stream_uri=stream_uri)
        if not self._flags.wait_ready(READY_SECONDS) or plan.flag not in self._served()[0]:
            error = self._flags.status().error or f"it does not serve {plan.flag}"
            self.close()
            raise UserError(f"LaunchDarkly cannot be followed: {error}")

    def _served(self) -> tuple[Items, Items]:
        return self._flags.sections()

    def weight(self) -> float | None:
        """What the flag serves now, in percent; None where that is no plain weight, or the flag is gone."""
        flag = self._served()[0].get(self._plan.flag)
        return None if flag is None else weight_of(flag, safe=self._plan.safe)

    async def until(self, weight: float) -> None:
        """Wait until the operator has turned the flag to this weight; TimeoutError where that does not come."""
        deadline = time.monotonic() + self._patience
        while self.weight() != weight:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the flag was not turned to {weight:g} %; it is at {self.weight()} %")
            await asyncio.sleep(LOOK_SECONDS)

    def exposure(self, weight: float, before: tuple[str, ...]) -> Exposure:
        """Who is exposed by the flag as it is served now, with its own salt and rules."""
        members = [Member(SandboxAttributes(e.name, e.template, e.team, e.cluster)) for e in self._plan.sandboxes()]
        on = cohort(self._served(), self._plan.flag, members)
        return exposure_of(self._plan, weight, tuple(each.attributes.sandbox for each in on), before)

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
