"""The flag of each stage: an edit of the one that the user's file serves, or one of our own making."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import UserError
from flags.decode import look
from flags.edit import Ids, Place, ids_file, turned_on, with_share
from flags.inline import Rollout, flag_from
from flags.torn import loads
from sim.files.plan import Plan

Document = Mapping[str, Any]


def file_document(plan: Plan) -> Document:
    """What the plan's flag file serves; empty without one."""
    file = plan.flag_file
    found = loads(file, look(file)) if file is not None else {}
    return found if isinstance(found, dict) else {}


def exported(plan: Plan) -> dict[str, Any] | None:
    """The user's own flag as its file has it; None where no file serves it.

    UserError where it is off, and the plan does not say `turnOn: true`.
    """
    found = (file_document(plan).get("flags") or {}).get(plan.flag)
    if found is None:
        return None
    flag = {"key": plan.flag, **found}
    if not flag.get("on") and not plan.turn_on:
        raise UserError(f"{plan.flag_file}: error: {plan.flag} is off: no stage exposes a sandbox; add `turnOn: true`")
    return turned_on(flag)


Edit = tuple[float, str | None]
"""Percent, and the rule that it is of; None for the default rule."""


def stage_flag(plan: Plan, edits: Sequence[Edit]) -> dict[str, Any]:
    """The flag after these edits, one after the other; UserError where the user's flag cannot be edited so."""
    known = exported(plan)
    if known is None:
        return flag_from(plan.flag, Rollout(edits[-1][0], plan.by))
    for weight, rule in edits:
        known = with_share(known, not plan.safe, weight, Place(rule, plan.by))
    return known


def stage_sections(plan: Plan, edits: Sequence[Edit]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All flags and segments after these edits: everything else stays as the file has it."""
    document = file_document(plan)
    flags = {**(document.get("flags") or {}), plan.flag: stage_flag(plan, edits)}
    return flags, dict(document.get("segments") or {})


def stage_value(plan: Plan, weight: float, rule: str | None = None) -> dict[str, Any]:
    """The flag's value at a stage, as a scenario writes it."""
    if exported(plan) is None:
        return bare_value(plan, weight)
    return {"share": f"{weight:g}%", "by": plan.by} | ({} if rule is None else {"rule": rule})


def variation_ids(plan: Plan) -> Ids:
    """Of the user's flag, from the file that `snapdrill flags import` writes beside it; none without that."""
    file = plan.flag_file
    beside = None if file is None else ids_file(file)
    if beside is None or not beside.is_file():
        return Ids()
    known = loads(beside, look(beside))
    known = known.get(plan.flag) if isinstance(known, dict) else None
    return Ids(tuple(map(str, known))) if isinstance(known, list) else Ids()


def bare_value(plan: Plan, weight: float) -> dict[str, Any]:
    """A flag with nothing but a rollout."""
    return {"rollout": f"{weight:g}%", "by": plan.by}
