"""The simulated nodes that a sample of a fleet is spread over: who is on which, their budgets, and what it all takes.

They are budgets in one node process: a pause is admitted by its own node's, and one zygote has all guests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from engine.errors import UserError
from sim.files.loader import Drilled
from sim.files.plan import Plan, with_groups
from sim.files.units import format_size, parse_size
from sim.files.user_table import UserSandbox, as_group
from sim.node.memory import most_copier_bytes
from sim.rollout.sample import FleetSample
from sim.run.needs import free_memory

A_GUEST = 1_782_579
"""Bytes that a guest takes beside its memory: 1.7 MiB."""
ARMS = 2
_LEAST = 32 << 20


def on_nodes(plan: Plan, chosen: FleetSample, table: Sequence[UserSandbox]) -> Plan:
    """The plan over the sample, spread over its simulated nodes; UserError where one cannot hold its guests.

    Neighbours in stratum, template and size go to different nodes, so that every node has a share of each.
    """
    rows = chosen.rows.tolist()
    guest = {} if plan.asked_guest is None else {"guest": plan.asked_guest}
    groups = [as_group(table[row], plan.scale) | guest for row in rows]
    names = [f"node-{number + 1}" for number in range(_count(plan, len(rows), table))]
    order = sorted(
        range(len(rows)),
        key=lambda at: (chosen.strata[at], table[rows[at]].attributes.template, table[rows[at]].memory, at),
    )
    for place, at in enumerate(order):
        turn, of = divmod(place, len(names))
        groups[at]["node"] = names[of if turn % 2 == 0 else len(names) - 1 - of]
    return with_groups(plan, groups, _budgets(plan, groups, names))


def _count(plan: Plan, sample: int, table: Sequence[UserSandbox]) -> int:
    """As many as the sample would fill in production; one where the table names none."""
    if plan.nodes is not None:
        return min(plan.nodes, sample)
    on = Counter(each.node for each in table if each.node is not None)
    return max(1, round(sample / fmean(on.values()))) if on else 1


def _budgets(plan: Plan, groups: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The plan's `node.memory` for each; else its guests twice, in whole MiB."""
    given = plan.node.memory if "memory" in plan.node.model_fields_set else None
    budgets = {}
    for name in names:
        guests = sum(parse_size(each["memory"]) for each in groups if each["node"] == name)
        if given is not None and guests > given:
            what = f"the guests of {name} need {format_size(guests)} and node.memory is {format_size(given)}"
            mend = "raise it, or `nodes`, or lower `sample` or `scale`"
            raise UserError(f"{plan.place(('node',))}: error: {what}: {mend}")
        budgets[name] = given or max(_LEAST, -(-2 * guests >> 20) << 20)
    return {
        "memory": format_size(sum(budgets.values())),
        "budgets": {name: format_size(size) for name, size in budgets.items()},
    }


def need(rehearsed: Drilled) -> int:
    """Bytes of one arm's guests: their memory, and what each takes beside it."""
    return sum(each.memory + A_GUEST for each in rehearsed.sandboxes())


def sample_lack(rehearsed: Drilled, free: int | None = None) -> str | None:
    """Why this host cannot hold one arm's guests at a time; None where it can."""
    there = free_memory() if free is None else free
    size, count = need(rehearsed), len(rehearsed.sandboxes())
    if size <= there:
        return None
    fits = max(1, int(count * there / size))
    guests = f"its {count:,} guests need {size >> 20:,} MiB, of which {count * A_GUEST >> 20:,} MiB beside their memory"
    return f"{guests}, and {there >> 20:,} MiB are available: at most `sample: {fits}`, or a smaller `scale`"


def lines(plan: Plan) -> list[str]:
    """Where the sample runs and what it takes, a sentence each."""
    on = Counter(each.node for each in plan.sandboxes())
    budgets = plan.node.budgets
    many = max(on.values())
    where = f"{len(on)} simulated {'node' if len(on) == 1 else 'nodes'} in one process, at most {many} on each"
    whole = f"{ARMS * need(plan) >> 20:,} MiB, or half of it one arm after the other"
    said = [
        f"on {where}, with a budget of {', '.join(f'{name} {format_size(size)}' for name, size in budgets.items())}",
        f"needs (memory + 1.7 MiB) x {len(plan.sandboxes())} sandboxes x {ARMS} arms = {whole}",
    ]
    tight = [name for name in budgets if _is_tight(plan, name)]
    if tight:
        said.append(f"the largest pause does not fit {', '.join(tight)} beside the guests with the flag off: refused")
    return said


def _is_tight(plan: Plan, node: str) -> bool:
    mine = [each for each in plan.sandboxes() if each.node == node]
    most = max(
        most_copier_bytes(each.memory, each.page_size, each.block_size) + int(each.memory * each.workload.dirty / 100)
        for each in mine
    )
    return sum(each.memory for each in mine) + most > plan.node.budgets[node]
