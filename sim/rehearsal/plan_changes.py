"""What the command line changes in a plan."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from engine.errors import UserError
from sim.flag_values import ServedFlags
from sim.mutants.spec import Engine
from sim.rehearsal.plan import Plan
from sim.steps import Outage
from sim.units import parse_duration


def changed(plan: Plan, *, lease: str | None = None, mend: Sequence[str] = (), source: str | None = None) -> Plan:
    """The plan with another lease (`none`, `1s`), with weaknesses mended, or following LaunchDarkly's own flag.

    UserError for what it cannot have.
    """
    if source is not None:
        plan = _following(plan)
    if lease is not None:
        plan = _with_lease(plan, lease)
    return _mended(plan, mend) if mend else plan


def _following(plan: Plan) -> Plan:
    """The real flag, in real time; an outage of LaunchDarkly is not ours to make."""
    if wrong := [index for index, step in enumerate(plan.steps) if isinstance(step, Outage)]:
        place = plan.place(("steps", wrong[0]))
        raise UserError(f"{place}: error: LaunchDarkly is not ours to break; remove the outage, or --source")
    return plan.model_copy(update={"flags": ServedFlags(source="launchdarkly"), "time": "real"})


def _with_lease(plan: Plan, lease: str) -> Plan:
    try:
        seconds = None if lease == "none" else parse_duration(lease)
    except ValueError as error:
        raise UserError(f"--lease: {error}, or none") from None
    if seconds is not None and plan.flag_source not in {"relay", "launchdarkly"}:
        raise UserError(f"--lease: {plan.path} has no flag service whose heartbeat a lease could watch; use none")
    return plan.model_copy(update={"lease": seconds})


def _mended(plan: Plan, names: Sequence[str]) -> Plan:
    known = plan.engine
    said = {"profile": known.profile, "mended": [*known.mended, *names], "only": list(known.only)}
    try:
        engine = Engine.model_validate(said)
    except ValidationError as error:
        raise UserError(f"--mend: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return plan.model_copy(update={"engine": engine})
