"""Who of the fleet a flag is on for, as LaunchDarkly's own evaluator says. Pure, but for what is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from flags.catalog import FLAGS
from flags.context import SandboxAttributes
from flags.inline import flag_from, from_written
from sim.view import SandboxView, View

Fleet = tuple[SandboxAttributes, ...]


def fleet_of(sandboxes: Iterable[SandboxView]) -> Fleet:
    """What flags are evaluated for."""
    return tuple(SandboxAttributes(each.name, each.template, each.team, each.cluster) for each in sandboxes)


def cohort_now(view: View, key: str) -> tuple[str, ...] | None:
    """Whom the flag's value is on for; None where the source's own rules decide, which are not known here."""
    if key in view.flags:
        return cohort_of(key, view.flags[key], fleet_of(view.sandboxes.values()))
    if view.run is not None and view.run.flag_source in {"file", "launchdarkly"}:
        return None
    return cohort_of(key, FLAGS[key].safe, fleet_of(view.sandboxes.values()))


def cohort_of(key: str, written: Any, fleet: Fleet) -> tuple[str, ...]:
    """Sandboxes for whom a value, as a scenario writes it, is on, in the fleet's order."""
    return _evaluated(key, json.dumps(written), fleet)


@lru_cache(maxsize=256)
def _evaluated(key: str, written: str, fleet: Fleet) -> tuple[str, ...]:
    from flags.cohort import Member, cohort  # it imports the LaunchDarkly SDK, which takes a while

    flags = {key: flag_from(key, from_written(json.loads(written)))}
    return tuple(each.attributes.sandbox for each in cohort((flags, {}), key, map(Member, fleet)))
