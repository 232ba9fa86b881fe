"""What a rehearsal says, once, as sections; as text for a terminal, and as the first page of its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import click

from sim.files import figures
from sim.files.plan import Plan
from sim.record.view import View
from sim.report import judgements, words
from sim.report.late_failures import late_failures
from sim.report.table import Bullets, CellSpan, Paragraph, Section, Table, Words, code, facts, markdown, text, toned
from sim.report.words import Tone
from sim.rollout.analysis import MetricOutcome, MetricResult
from sim.rollout.compiled import Compiled
from sim.rollout.decision_page import decision_page
from sim.rollout.exposure import Exposure, contexts_needed
from sim.rollout.gates import label, shown, value_text
from sim.rollout.identity import identity, lease_words, seed_of
from sim.rollout.production import NOT_HERE, SHARES, SHOWN, ProductionFigures, Way, claims, production, ways
from sim.rollout.rehearse import where
from sim.rollout.results import Decision, Rehearsal, StageResult, StepResult
from sim.rollout.salvage_section import three_arms_section

TONES: dict[Decision, Tone] = {"go": "good", "no-go": "bad", "inconclusive": "warn", "waits for approval": "warn"}
_MARKS: dict[MetricOutcome, tuple[str, Tone]] = {
    MetricOutcome.SUCCESSFUL: ("ok", "good"),
    MetricOutcome.FAILED: ("FAILED", "bad"),
    MetricOutcome.ERROR: ("ERROR", "bad"),
    MetricOutcome.INCONCLUSIVE: ("INCONCLUSIVE", "warn"),
}
_COLOURS = {"good": "green", "bad": "red", "warn": "yellow"}
_STOPPED = {"abort": "; ABORTED: rolled back", "wait": "; WAITS at this weight for a person", "approve": "", None: ""}


def report(found: Rehearsal, *, width: int | None = None) -> str:
    """For a terminal, the decision first; `width` as `text` has it."""
    decision = toned(found.decision.upper(), TONES[found.decision])
    folders = facts(
        [
            ("decision", decision),
            ("run folders", f"{found.on.folder} (rehearsal.html, rehearsal.json, junit.xml)"),
            ("", f"{found.off.folder} (flag off)"),
            *([("", f"{found.three.run.folder} (flag on, with salvage)")] if found.three else []),
            *([("", f"{found.continues} (before the approval)")] if found.continues else []),
        ]
    )
    title = Paragraph((f"{found.plan.name}   seed {seed_of(found)}   ", decision))
    return text([title, *sections(found), folders], width=width)


def first_page(found: Rehearsal) -> str:
    """In Markdown, for the folder of evidence."""
    return f"# {markdown(Paragraph(f'{found.decision.upper()}: {found.plan.name}'))}\n\n{markdown(sections(found))}\n"


def sections(found: Rehearsal) -> list[Section]:
    """The decision and why, then everything that it rests on."""
    return [
        _decision(found),
        *decision_page(found),
        _steps(found),
        _stages(found),
        _arms(found),
        three_arms_section(found),
        _cohorts(found),
        _metrics(found),
        _pools(found),
        _production(found),
        _kill_switch(found),
        Section("Weaknesses", (Bullets([str(each) for each in found.weaknesses if not each.shown]),)),
        Section(
            "claims", (Table(("status", "what is claimed"), [(_status(s), said) for s, said in claims(found)], "<~"),)
        ),
        Section("Invariants", (Paragraph(invariants(found.on.view)),)),
        _conditions(found),
        _not_covered(found),
        *identity(found),
    ]


def _decision(found: Rehearsal) -> Section:
    plan, wrong, first = found.plan, found.on.view.wrong_engine, found.first_failing
    of = f"{plan.flag} by {plan.by}; {fleet_words(plan)}; {time_words(found)}; lease {lease_words(plan)}"
    failing = f"first failing step: {where(first)}, {plan.place(('steps', first.index))}" if first else ""
    engine = toned(f"ENGINE: {wrong}" if wrong else "", "bad")
    return Section("", (Paragraph(engine), Paragraph(of), Bullets(found.reasons), Paragraph(failing)))


def fleet_words(plan: Plan) -> str:
    """`15 sandboxes, 36.0 MiB of guest memory`."""
    fleet = plan.sandboxes()
    size = words.size(sum(each.memory for each in fleet))
    return f"{words.plural(len(fleet), 'sandbox', 'sandboxes')}, {size} of guest memory"


def time_words(found: Rehearsal) -> str:
    """`virtual time: 4h10s of the plan in 11.2 s, both arms in turns`."""
    arms = "both arms in turns" if found.in_turns else "the arm with the flag off first"
    arms += ", the one with salvage last" if found.three else ""
    return f"{found.plan.time} time: {duration(found.virtual)} of the plan in {found.seconds:.1f} s, {arms}"


def duration(seconds: float) -> str:
    """`4h10m`, `30m`, `12s`, `0.5s`."""
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts)


def step_line(step: StepResult) -> str:
    """One step on one line as it ends: when, what, how it ended and why."""
    word, tone = _MARKS[step.outcome]
    head = f"{step.index + 1:>2}  {duration(step.at):>8}  {step.weight:>5g} %  {step.label:<26}"
    return f"{head} {click.style(f'{word:<12}', fg=_COLOURS[tone])} {step.detail}{_STOPPED[step.stopped]}".rstrip()


def _steps(found: Rehearsal) -> Section:
    """Those that were not taken come last."""
    rows: list[tuple[Words, ...]] = [
        (
            str(each.index + 1),
            duration(each.at),
            f"{each.weight:g} %",
            each.label,
            toned(*_MARKS[each.outcome]),
            f"{each.detail}{_STOPPED[each.stopped]}",
        )
        for each in found.steps
    ]
    rows += [(str(index + 1), "", "", step, toned("not taken", "muted"), "") for index, step in _left(found)]
    return Section("Steps", (Table(("step", "at", "weight", "what", "outcome", "detail"), rows, ">>><<~"),))


def _left(found: Rehearsal) -> list[tuple[int, str]]:
    return [(index, label(step)) for index, step in enumerate(found.plan.steps)][len(found.steps) :]


def _stages(found: Rehearsal) -> Section:
    head = ("weight", "exposed", "superset", "pauses", "punched", "discarded", "lost", "lost by flag", "at risk")
    fleet = len(found.plan.sandboxes())
    rows = [_stage(each, fleet) for each in found.stages]
    note = "measured; lost by flag: lost here and not with the flag off"
    parts: tuple[Table | Paragraph, ...] = (
        Table((*head, "freed"), rows, ">"),
        *_checkpoints(found),
        *_readers(found),
        *_late(found),
    )
    return Section("Stages, of the rehearsed fleet", parts, note)


def _checkpoints(found: Rehearsal) -> list[Table]:
    """None where the load has none; those with a new guest are among the pauses."""
    if not any(each.on.checkpoints for each in found.stages):
        return []
    head = ("weight", "checkpoints", "in place", "lost at a checkpoint, flag off -> on")
    rows = [
        (
            f"{each.stage.weight:g} %",
            str(each.on.checkpoints),
            str(each.on.in_place),
            " -> ".join(str(len(arm.lost_at_checkpoint)) for arm in (each.off, each.on)),
        )
        for each in found.stages
    ]
    return [Table(head, rows, ">")]


def _readers(found: Rehearsal) -> list[Table]:
    """None where no pause is read at once."""
    if not any(each.on.read for each in found.stages):
        return []
    head = ("weight", "pauses read at once", "while copied", "a reader waited, flag off -> on", "at most")
    rows = []
    for each in found.stages:
        waits = [sorted(arm.reader_waits) for arm in (each.off, each.on)]
        times = [[words.ms(of(wait)) if wait else "-" for wait in waits] for of in (median, max)]
        counts = str(each.on.read), str(each.on.read_while_copied)
        rows.append((f"{each.stage.weight:g} %", *counts, *map(" -> ".join, times)))
    return [Table(head, rows, ">")]


def _late(found: Rehearsal) -> list[Paragraph]:
    """With the flag on; empty where no copy failed after its pause had answered."""
    known_as = found.plan.engine.profile or ""
    return [Paragraph(late_failures(sum(each.on.failed_late for each in found.stages), known_as))]


def _stage(each: StageResult, fleet: int) -> tuple[str, ...]:
    on, exposed, able = each.on, len(each.exposure.sandboxes), len(each.exposure.able)
    punch = "" if able == exposed else f", {able} can punch"
    return (
        f"{each.stage.weight:g} %{'' if each.complete else ', not completed'}",
        f"{exposed} of {fleet} ({exposed / fleet * 100:.3g} %){punch}",
        "yes" if each.exposure.is_superset else "no",
        str(on.asked),
        str(len(on.punched)),
        str(on.discarded),
        str(len(on.lost)),
        str(len(each.lost_by_flag)),
        str(on.at_risk),
        words.size(on.punched_bytes),
    )


def _arms(found: Rehearsal) -> Section:
    rows = []
    for each in found.stages:
        arms = each.off, each.on
        saved = "unknown" if each.saved is None else value_text("bytes_saved", each.saved)
        cells = (
            (f"{e.finished}/{e.asked}" for e in arms),
            (str(e.refused) for e in arms),
            (str(len(e.lost)) for e in arms),
        )
        rows.append((f"{each.stage.weight:g} %", *map(" -> ".join, cells), saved))
    head = ("weight", "pauses finished", "refused", "lost", "saved at peak")
    note = "measured; saved: what the largest pauses at once need less (derived)"
    return Section("The flag off -> on", (Table(head, rows, ">"),), note)


def _cohorts(found: Rehearsal) -> Section:
    """Who joined and left at each weight, and why the flag was decided as it was."""
    rows = []
    for each in found.stages:
        joins, leaves = len(each.exposure.joins), len(each.exposure.leaves)
        left = f"{leaves}, no superset" if leaves else "none"
        reasons = ", ".join(f"{reason} {count}" for reason, count in each.on.reasons.items())
        rows.append((f"{each.stage.weight:g} %", str(joins), left, reasons or "no decision"))
    note = "by the SDK's evaluator (derived); decisions by reason (measured)"
    return Section("Cohorts", (Table(("weight", "join", "leave", "decisions"), rows, ">><~"),), note)


def _pools(found: Rehearsal) -> Section:
    rows = []
    for each in found.stages:
        changes = (
            _change(*(getattr(arm.pools, name) if arm.pools.samples else None for arm in (each.off, each.on)))
            for name in ("hugetlb", "pages", "page_cache")
        )
        rows.append((f"{each.stage.weight:g} %", *changes))
    known = "given" if found.plan.scaled is None else "derived, from the fleet file's node"
    head = ("weight", "hugetlb", "4 KiB pages and caches", "page cache kept")
    budget = Paragraph(f"budget {words.size(found.plan.node.memory)} ({known})")
    note = "measured; the page cache is the kernel's to take"
    return Section("Node memory at the stage's peak, flag off -> on", (Table(head, rows, ">"), budget), note)


def _change(off: int | None, on: int | None) -> str:
    if off is None and on is None:
        return "not sampled"
    if not off and not on:
        return "none"
    return " -> ".join("not sampled" if each is None else words.size(each) for each in (off, on))


def _production(found: Rehearsal) -> Section:
    """Each stage in the units of the fleet file."""
    made = production(found)
    if made is None:
        return Section("", ())
    said = [
        (f"{stage.weight:g} %", of, each)
        for stage in made.stages
        for of, part in (("the fleet", stage.fleet), ("a node", stage.node))
        for each in part
    ]
    said += [("all", "assumed", each) for each in made.assumed]
    rows = [(weight, of, each.label, figures.shown(each), each.known, each.note) for weight, of, each in said]
    table = Table(("weight", "of", "figure", "value", "known", "note"), rows, "><<><~", keys=3)
    return Section(f"In production: {of_production(made)}", (table, Bullets(made.notes)))


def of_production(made: ProductionFigures) -> str:
    """Whose fleet it is, and what stood for it."""
    fleet, scale = made.scaled.fleet, made.scaled.fleet.scale
    whole = f"{fleet.count:,} sandboxes on {fleet.nodes:,} nodes (given)"
    return f"{whole}; rehearsed were {made.scaled.sandboxes}, one node's, at {scale.numerator}/{scale.denominator}"


def _kill_switch(found: Rehearsal) -> Section:
    if not found.stages:
        return Section("", ())
    rows = [(e.name, *seconds_of(e), e.known, e.note) for e in ways(found)]
    head = ("way", "p50", "p95", "p99", "most", "known", "note")
    return Section(
        "Kill switch: how long until OFF is obeyed",
        (
            Table(head, rows, "<>>>><~"),
            Paragraph(("measure these on this machine: ", code("snapdrill flags propagation"))),
        ),
        "turning the flag off undoes nothing",
    )


def seconds_of(way: Way) -> list[str]:
    """A way's percentiles; `never` where OFF is not obeyed."""
    if way.seconds is None:
        return ["never"] * len(SHARES)
    return ["unknown" if each is None else f"{each:.3g} s" for each in way.seconds]


def _status(status: str) -> CellSpan:
    tones: dict[str, Tone] = {SHOWN: "good", NOT_HERE: "muted"}
    return toned(status, tones.get(status, "warn"))


def _metrics(found: Rehearsal) -> Section:
    """A line a metric, a column an analysis, then why the latest of one were inconclusive."""
    analyses = [each for each in found.steps if each.metrics]
    rows: list[tuple[Words, ...]] = []
    for metric in found.plan.metrics if analyses else ():
        results = [next((m for m in each.metrics if m.metric.name == metric.name), None) for each in analyses]
        asked = f"{metric.success_condition or f'not {metric.failure_condition}'}"
        rows.append((metric.name, *map(_cell, results), asked + (", dry run" if metric.dry_run else "")))
    head = ("metric", *(f"{each.weight:g} %" for each in analyses), "asked")
    note = "! not met, ? inconclusive; measured; ratios, with their intervals, and savings derived"
    table = Table(head, rows, "<" + ">" * len(analyses) + "~")
    return Section("Metrics", (table, Bullets(list(_unclear(found).values()))), note)


def _cell(result: MetricResult | None) -> CellSpan:
    if result is None or not result.measurements:
        return toned("-", "muted")
    match result.measurements[-1].outcome:
        case MetricOutcome.SUCCESSFUL:
            return CellSpan(shown(result))
        case MetricOutcome.INCONCLUSIVE:
            return toned(f"{shown(result)} ?", "warn")
    return toned(f"{shown(result)} !", "bad")


def _unclear(found: Rehearsal) -> dict[str, str]:
    why: dict[str, str] = {}
    for step in found.steps:
        for each in step.metrics:
            if each.measurements and each.measurements[-1].outcome is MetricOutcome.INCONCLUSIVE:
                said = each.measurements[-1].why or each.why
                why[each.metric.name] = f"{each.metric.name} at {step.weight:g} %: {said}"
    return why


def _conditions(found: Rehearsal) -> Section:
    """Each with the test that closes it."""
    rows: list[tuple[Words, Words]] = [(each, "mend it, and rehearse again") for each in found.conditions]
    if found.plan.propagation.origin != "measured":
        closes = "measure OFF to obeyed in production, write it as ", code("propagation: {measured: [...]}")
        rows.append((f"propagation is {found.plan.propagation.origin}", (*closes, ", rehearse again")))
    if all(each.page_size < 2 << 20 for each in found.plan.sandboxes()):
        closed = "rehearse ", code("page_size: 2MiB"), " on a host with a pool"
        rows.append(("4 KiB shmem stands for 2 MiB hugetlb", closed))
    if found.plan.flag_source != "launchdarkly":
        rows.append(("the flag is not LaunchDarkly's own", ("rehearse with ", code("flags: {source: launchdarkly}"))))
    return Section("Conditions", (Table(("condition", "closed by"), rows, "~"),))


def _not_covered(found: Rehearsal) -> Section:
    left = [f"step {index + 1}, {step}: not taken" for index, step in _left(found)]
    fixed = ["power loss", "memory pressure from outside the node", "what uploads a finished build"]
    return Section("Not covered", (Bullets([*left, *fixed]),))


def invariants(view: View) -> str:
    """`7 held, 2 not exercised: no_unpublished, rollback_intact`."""
    names: dict[str, list[str]] = {}
    for each in judgements.invariants(view):
        names.setdefault(each.verdict, []).append(each.name)
    held = f"{len(names.pop('held', []))} held"
    return ", ".join([held, *(f"{len(each)} {verdict}: {', '.join(each)}" for verdict, each in names.items())])


def outline(made: Compiled, exposed: Sequence[Exposure], exported: Exposure | None = None) -> str:
    """What a plan will do, before anything runs; `exported` is who has the user's flag on before the first stage."""
    plan = made.plan
    clock = duration(sum(made.virtual))
    title = f"{plan.name}: {len(made.scenario.steps)} scenario steps, {clock} by its own clock; exposed by {plan.by}"
    title += "; a third arm runs with salvage" if plan.salvage_arm else ""
    rows = []
    if exported is not None:
        rows.append(("as exported", str(len(exported.sandboxes)), f"{exported.contexts} of {exported.of_contexts}", ""))
    for stage, each in zip(made.stages, exposed, strict=True):
        who = ", ".join(each.sandboxes[:4]) + (" ..." if len(each.sandboxes) > 4 else "")
        if stage.weight and not each.contexts:
            who = f"none: one takes about {contexts_needed(1, stage.weight)} {plan.by} contexts"
        contexts = f"{each.contexts} of {each.of_contexts}"
        rows.append((f"{stage.weight:g} %", str(len(each.sandboxes)), contexts, who))
    return text(Section(title, (Table(("weight", "exposed", "contexts", "which"), rows, ">>>~"),)))
