"""The page that decides: what cannot be undone, what was shown, and what is saved, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.files import figures
from sim.files.figures import percent
from sim.files.plan import Plan
from sim.files.units import format_duration
from sim.report.table import Bullets, Paragraph, Section, Table, Words, markdown, toned
from sim.report.words import Tone
from sim.rollout import simulated_nodes
from sim.rollout.bounds import upper_bound
from sim.rollout.critic import concern_place
from sim.rollout.incident_clock import Count, Part, StageIncident
from sim.rollout.results import Decision, Rehearsal, StageResult
from sim.rollout.row_exposure import StageExposure, sums
from sim.rollout.salvage_section import three_arms_section
from sim.rollout.shown import nodes_of
from sim.rollout.stretch import saved
from sim.rollout.user_fleet import UserFleet

_TONES: dict[Decision, Tone] = {"go": "good", "no-go": "bad", "inconclusive": "warn", "waits for approval": "warn"}
_CHAT = 3500
"""Characters that a chat message takes."""


def decision_page(found: Rehearsal) -> list[Section]:
    """Its first section is the first number to read."""
    if not found.stages:
        return [_concerns(found)]
    return [_by_stage(found), _clock(found), *fleet_sections(found.plan, found.fleet), _concerns(found)]


def _by_stage(found: Rehearsal) -> Section:
    head = ("weight", "punched p50, p99", "any", "exposed", "lost, at 95 %", "saved at peak")
    rows = [(f"{each.stage.weight:g} %", *_cells(found, each)) for each in found.stages]
    fleet = "the plan's production" if found.plan.production else "the rehearsed fleet"
    note = (
        f"punched: sandboxes of {fleet} before OFF is obeyed, and the chance of any at all (derived);"
        " exposed, lost, saved: rehearsed here (measured)"
    )
    said: list[Words] = [_saved(found)]
    if found.bound is not None:
        bound = found.bound
        demanded = "" if bound.demanded is None else f"; demanded {bound.demanded}: "
        met = "" if bound.demanded is None else "shown" if bound.is_met else "not shown"
        said.insert(0, f"lost because of the flag: {bound.text}, of the exposed, on this engine, here{demanded}{met}")
    return Section("What cannot be undone, stage by stage", (Table(head, rows, ">"), Bullets(said)), note)


def fleet_sections(plan: Plan, fleet: UserFleet | None) -> list[Section]:
    """The user's whole fleet, and what of it is rehearsed; nothing where the plan has a fleet of its own."""
    if fleet is None:
        return []
    whole = sums(fleet.rows)
    rows = [] if fleet.exported is None else [("as exported", *_fleet_cells(fleet, fleet.exported), "")]
    for number, each in enumerate(fleet.exposures):
        left = each.left(fleet.exposures[number - 1]) if number else 0
        rows.append((f"{each.weight:g} %", *_fleet_cells(fleet, each), f"{left:,} leave" if left else "none leaves"))
    head = ("weight", "sandboxes", "GiB", "pauses/h", "teams", "nodes", "by", "superset")
    of = (
        f"{whole.sandboxes:,} sandboxes of {whole.teams:,} teams on {whole.nodes:,} nodes, {_gib(whole.memory)} GiB,"
        f" {_gib(whole.dirty)} GiB dirty, {whole.pauses_per_hour:,.1f} pauses an hour"
    )
    sampled = f"rehearsed: {len(fleet.sample.rows)} of them, stratified by first stage, at {plan.scale} of their memory"
    said = Bullets(
        [
            f"{sampled}; exposure, decisions and invariants survive that, durations and chunk counts do not",
            *simulated_nodes.lines(plan),
            *(f"warning: {each}" for each in fleet.warnings),
            *fleet.assumed,
            *(f"decisions that failed at {e.weight:g} %: {_counts(e.failures)}" for e in fleet.exposures if e.failures),
        ]
    )
    return [Section(f"Your fleet: {of}", (Table(head, rows, ">>>>>>~<"), said), "by the SDK over every row (measured)")]


def _fleet_cells(fleet: UserFleet, each: StageExposure) -> tuple[str, ...]:
    of = sums(fleet.rows, each.on)
    counts = (f"{of.sandboxes:,}", _gib(of.memory), f"{of.pauses_per_hour:,.1f}", f"{of.teams:,}", f"{of.nodes:,}")
    return (*counts, _counts(each.reasons))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f}"


def _cells(found: Rehearsal, each: StageResult) -> tuple[str, ...]:
    exposed = f"{len(each.exposure.sandboxes)} of {len(found.plan.sandboxes())}"
    lost, bound = len(each.lost_by_flag), stage_bound(each)
    shown = f"{lost}, < {percent(bound)}" if bound is not None else str(lost)
    at_peak = "unknown" if each.saved is None else figures.in_gib(each.saved)
    return (*_count(each.incident), exposed, shown, at_peak)


def _count(incident: StageIncident | None) -> tuple[str, str]:
    if incident is None:
        return "-", "-"
    return count_words(incident.punched), chance_words(incident.punched)


def count_words(count: Count) -> str:
    """`12, 31`: in the middle, and at most in 99 of 100 incidents."""
    return ", ".join("unknown" if each is None else f"{each:,}" for each in (count.p50, count.p99))


def chance_words(count: Count) -> str:
    """`98.2 %`."""
    return "unknown" if count.any is None else f"{count.any * 100:.3g} %"


def stage_bound(each: StageResult) -> float | None:
    """The loss rate (0 to 1) that the distinct sandboxes which were punched in the stage rule out; None without any."""
    tried = set(each.on.punched) | set(each.lost_by_flag)
    return upper_bound(len(each.lost_by_flag), len(tried)) if tried else None


def _saved(found: Rehearsal) -> str:
    """What came back here, what the node's peak lost by that, and what it is of production's nodes: one line."""
    last = max(found.stages, key=lambda each: each.stage.weight)
    plan, (off, on) = found.plan, (each.pools.both for each in (last.off, last.on))
    said = [
        f"{figures.in_gib(last.on.punched_bytes)} came back while copies ran, all pauses added up (measured)",
        f"the node's peak was {figures.in_gib(off)} with the flag off and {figures.in_gib(on)} with it on (measured)",
        f"the {plan.pacing.at_once} largest pauses at once need {_less(last.saved)} (derived)",
    ]
    scale = plan.scale if plan.scaled is None else plan.scaled.fleet.scale
    a_node = saved(last.off, last.on, plan.pacing.at_once, scale)
    nodes = nodes_of(plan)
    if scale != 1 and found.fleet is None:
        said.append(f"at full size, {_less(a_node)} on a node (derived)")
    if found.fleet is not None:
        said += _by_table(found.fleet, last.stage.number - 1, plan.pacing.at_once)
    elif nodes > 1 and a_node is not None:
        said.append(f"on {nodes:,} nodes that each have so many at once, {_less(a_node * nodes)} (derived)")
    return f"memory at {last.stage.weight:g} %: {'; '.join(said)}"


def _by_table(fleet: UserFleet, stage: int, at_once: int) -> list[str]:
    """Of every row: what the exposed among the largest pauses of each node copy; the sample's own do not scale."""
    placed = fleet.rows.node >= 0
    if not placed.any():
        return []
    dirty, node = np.where(fleet.exposures[stage].on, fleet.rows.dirty, 0.0)[placed], fleet.rows.node[placed]
    order = np.lexsort((-dirty, node))
    starts = np.searchsorted(node[order], node[order])  # where each one's node begins
    first = np.arange(len(order)) - starts < at_once
    size, nodes = float(dirty[order][first].sum()), len(np.unique(node))
    what = f"the {at_once} largest exposed pauses of every one of your {nodes:,} nodes copy {figures.in_gib(size)}"
    return [f"{what}, which needs no room of its own with the flag on (derived)"]


def _less(size: int | None) -> str:
    if size is None:
        return "an unknown amount less"
    return f"{figures.in_gib(abs(size))} {'more' if size < 0 else 'less'}"


def _clock(found: Rehearsal) -> Section:
    """How the time until no pause punches any more is made up; of the largest stage."""
    last = max(found.stages, key=lambda each: each.stage.weight)
    if last.incident is None:
        return Section("", ())
    rows: list[tuple[Words, ...]] = [_part(each) for each in last.incident.parts]
    ends = [_span(each) for each in last.incident.obeyed]
    nodes = nodes_of(found.plan)
    rows.append((f"until the last of {nodes:,} nodes obeys" if nodes > 1 else "until it is obeyed", *ends, "derived"))
    said = []
    if last.incident.lost is not None:
        rate = found.plan.incident.loss_rate
        at = f"{rate:g} % (given)" if rate is not None else "the rate that is not ruled out (derived)"
        said = [f"of them lost at {at}: {count_words(last.incident.lost)}, any {chance_words(last.incident.lost)}"]
    title = f"Incident clock at {last.stage.weight:g} %: from the stage's first pause"
    return Section(title, (Table(("part", "p50", "p99", "known"), rows, "<>><"), Bullets(said)))


def _part(each: Part) -> tuple[Words, ...]:
    return (each.name, *(_span(each.delay.quantile(share)) for share in (0.5, 0.99)), each.known)


def _span(seconds: float | None) -> str:
    """`80m`, `95s`, `200ms`; whole seconds from one minute on."""
    if seconds is None:
        return "unknown"
    return format_duration(round(seconds) if seconds >= 60 else float(f"{seconds:.3g}")) if seconds else "0s"


def _concerns(found: Rehearsal) -> Section:
    """Those that leave no way to a go are reasons already."""
    notes = [
        f"{concern_place(found.plan, each)}{each.what}; {each.mend}"
        for each in found.concerns
        if each.severity == "note"
    ]
    return Section("Notes of the critic", (Bullets(notes),))


def summary(found: Rehearsal) -> str:
    """In Markdown, short enough for a chat message."""
    decision = toned(found.decision.upper(), _TONES[found.decision])
    head = Paragraph((decision, f" {found.plan.name}: {found.plan.flag}"))
    sections = [Section("", (head, Bullets(found.reasons))), *decision_page(found)[:2], three_arms_section(found)]
    made = markdown(sections, level=3)
    return made + "\n" if len(made) <= _CHAT else made[: made.rindex("\n", 0, _CHAT)] + "\n\n(cut)\n"
