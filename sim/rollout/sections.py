"""What a rehearsal says on a terminal: the decision and why, steps, stages, the kill switch, claims."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sim.files import figures
from sim.files.plan import Plan
from sim.record.view import View
from sim.report import judgements, words
from sim.rollout.analysis import MetricResult, Outcome
from sim.rollout.compiled import Compiled
from sim.rollout.exposure import Exposure, contexts_needed
from sim.rollout.gates import label, shown, value_text
from sim.rollout.production import SHARES, Production, Way, claims, production, ways
from sim.rollout.rehearse import where
from sim.rollout.results import Rehearsal, StageResult, StepResult

_MARKS = {
    Outcome.SUCCESSFUL: ("ok", "green"),
    Outcome.FAILED: ("FAILED", "red"),
    Outcome.ERROR: ("ERROR", "red"),
    Outcome.INCONCLUSIVE: ("INCONCLUSIVE", "yellow"),
}
_COLOURS = {"go": "green", "no-go": "red", "inconclusive": "yellow"}


def report(found: Rehearsal) -> str:
    """The whole rehearsal, the decision first."""
    sections = (
        _head(found),
        ["steps", *(f"  {step_line(each)}" for each in found.steps), *_not_taken(found)],
        _stages(found),
        _cohorts(found),
        _metrics(found),
        _pools(found),
        _production(found),
        _kill_switch(found),
        _weaknesses(found),
        ["claims", *(f"  {status:<21} {sentence}" for status, sentence in claims(found))],
        _conditions(found),
        _foot(found),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _head(found: Rehearsal) -> list[str]:
    plan, run = found.plan, found.on.view.run
    decision = click.style(found.decision.upper(), fg=_COLOURS[found.decision], bold=True)
    lease = "none" if plan.lease is None else f"{plan.lease:g} s"
    lines = [
        f"{plan.name}   seed {run.seed if run else plan.seed}   {decision}",
        f"{plan.flag} by {plan.by}; {fleet_words(plan)}; {time_words(found)}; lease {lease}",
    ]
    if found.on.view.wrong_engine:
        lines.insert(0, click.style(f"ENGINE: {found.on.view.wrong_engine}", fg="red", bold=True))
    lines += [f"  {'why' if place == 0 else '   '}  {each}" for place, each in enumerate(found.reasons)]
    first = found.first_failing
    return lines + (
        [f"  first failing step: {where(first)}, {found.plan.place(('steps', first.index))}"] if first else []
    )


def fleet_words(plan: Plan) -> str:
    """`15 sandboxes, 36.0 MiB of guest memory`."""
    fleet = plan.sandboxes()
    size = words.size(sum(each.memory for each in fleet))
    return f"{words.plural(len(fleet), 'sandbox', 'sandboxes')}, {size} of guest memory"


def time_words(found: Rehearsal) -> str:
    """`virtual time: 4h10s of the plan in 11.2 s, both arms in turns`."""
    arms = "both arms in turns" if found.in_turns else "the arm with the flag off first"
    return f"{found.plan.time} time: {duration(found.virtual)} of the plan in {found.seconds:.1f} s, {arms}"


def step_line(step: StepResult) -> str:
    """One step on one line: when, what, how it ended and why."""
    word, colour = _MARKS[step.outcome]
    stopped = {"abort": "; ABORTED: rolled back", "wait": "; WAITS at this weight for a person", None: ""}[step.stopped]
    head = f"{step.index + 1:>2}  {duration(step.at):>8}  {step.weight:>5g} %  {step.label:<26}"
    return f"{head} {click.style(f'{word:<12}', fg=colour)} {step.detail}{stopped}".rstrip()


def _not_taken(found: Rehearsal) -> list[str]:
    left = [label(each) for each in found.plan.steps[len(found.steps) :]]
    return [f"      not taken: {', '.join(left)}"] if left else []


def duration(seconds: float) -> str:
    """`4h10m`, `30m`, `12s`, `0.5s`."""
    if seconds < 60:
        return f"{seconds:g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""]
    return "".join(parts)


def zero(count: int, tries: int) -> str:
    """A count; with none seen, what they may yet be at 95 % confidence (about 3 of n)."""
    if count or not tries:
        return str(count)
    return f"0 (< {min(100.0, 300 / tries):.3g} %)"


def _stages(found: Rehearsal) -> list[str]:
    head = (
        f"  {'weight':>7} {'exposed':>16} {'pauses':>7} {'punched':>8} {'discarded':>14} {'lost':>5} {'by flag':>14}"
        f" {'at risk':>8} {'freed':>10} {'blast p50':>10} {'p99':>9}"
    )
    title = "stages, of the rehearsed fleet (measured; with no event, the 95 % bound: 3/n; blast radius derived)"
    return [title, head] + [_stage(each, len(found.plan.sandboxes())) for each in found.stages]


def _cohorts(found: Rehearsal) -> list[str]:
    """Who joined and left at each weight, and why the flag was decided as it was."""
    lines = ["cohorts, by the SDK's evaluator (derived), and decisions by reason (measured)"]
    for each in found.stages:
        joins, leaves = len(each.exposure.joins), len(each.exposure.leaves)
        change = f"+{joins}" + (f" -{leaves}, no superset" if leaves else ", nobody leaves")
        reasons = ", ".join(f"{reason} {count}" for reason, count in each.on.reasons.items())
        lines.append(f"  {each.stage.weight:>5g} % {change:<20} {reasons or 'no decision'}")
    return lines


def _stage(each: StageResult, fleet: int) -> str:
    on, exposed = each.on, len(each.exposure.sandboxes)
    share = f"{exposed} of {fleet} ({exposed / fleet * 100:.3g} %)"
    return (
        f"  {each.stage.weight:>5g} % {share:>16} {on.asked:>7} {len(on.punched):>8} {zero(on.discarded, on.asked):>14}"
        f" {len(on.lost):>5} {zero(len(each.lost_by_flag), on.punched_pauses):>14} {on.at_risk:>8}"
        f" {words.size(on.punched_bytes):>10} {figures.number(each.blast.p50):>10} {figures.number(each.blast.p99):>9}"
        + ("" if each.complete else "  not completed")
    )


def _pools(found: Rehearsal) -> list[str]:
    head = f"  {'weight':>7} {'hugetlb':>23} {'4 KiB pages and caches':>26} {'saved':>11}"
    lines = [
        "node memory at the stage's peak, flag off -> on (measured); saved: the largest pauses at once (derived)",
        f"{head}   page cache kept, the kernel's to take",
    ]
    for each in found.stages:
        on, off = each.on.pools, each.off.pools
        saved = "unknown" if each.saved is None else value_text("bytes_saved", each.saved)
        huge, pages, cache = (
            _change(*(getattr(pools, name) if pools.samples else None for pools in (off, on)))
            for name in ("hugetlb", "pages", "page_cache")
        )
        lines.append(f"  {each.stage.weight:>5g} % {huge:>23} {pages:>26} {saved:>11}   {cache}")
    known = "given" if found.plan.scaled is None else "derived, from the fleet file's node"
    return [*lines, f"  budget {words.size(found.plan.node.memory)} ({known})"]


def _change(off: int | None, on: int | None) -> str:
    if off is None and on is None:
        return "not sampled"
    if not off and not on:
        return "none"
    return " -> ".join("not sampled" if each is None else words.size(each) for each in (off, on))


def _production(found: Rehearsal) -> list[str]:
    """Each stage in the units of the fleet file."""
    made = production(found)
    if made is None:
        return []
    lines = [f"in production: {of_production(made)}"]
    for each in made.stages:
        lines.append(f"  {each.weight:g} %, the whole fleet, then one node of it")
        lines += [f"    {line}" for line in figures.lines([*each.fleet, *each.node])]
    lines += ["  assumed", *(f"    {line}" for line in figures.lines(made.assumed))] if made.assumed else []
    return lines + [f"  note: {each}" for each in made.notes]


def of_production(made: Production) -> str:
    """Whose fleet it is, and what stood for it."""
    fleet, scale = made.scaled.fleet, made.scaled.fleet.scale
    whole = f"{fleet.count:,} sandboxes on {fleet.nodes:,} nodes (given)"
    return f"{whole}; rehearsed were {made.scaled.sandboxes}, one node's, at {scale.numerator}/{scale.denominator}"


def _kill_switch(found: Rehearsal) -> list[str]:
    if not found.stages:
        return []
    blast = max((each.blast for each in found.stages), key=lambda each: each.weight)
    fleet = "given" if found.plan.production else "the rehearsed fleet's"
    product = (
        f"{blast.sandboxes} sandboxes x {blast.weight:g} % x {blast.pauses_per_minute:g} pauses a minute x seconds"
    )
    lines = [
        "kill switch: turning the flag off undoes nothing",
        f"  {'OFF is obeyed after':<22}{'p50':>9}{'p95':>9}{'p99':>9}{'most':>9}{'reached p50':>14}{'p99':>11}",
    ]
    for way in ways(found):
        seconds = "".join(f"{each:>9}" for each in seconds_of(way))
        reach = "".join(f"{each:>{width}}" for each, width in zip(reached_of(way), (14, 11), strict=True))
        lines.append(f"  {way.name:<22}{seconds}{reach}   {way.known}: {way.note}")
    return [*lines, f"  reached: {product} ({fleet}; derived): punched before OFF is obeyed", f"  {MEASURE}"]


MEASURE = "measure these on this machine: snapdrill flags propagation"


def seconds_of(way: Way) -> list[str]:
    """A way's percentiles; `never` where OFF is not obeyed."""
    return ["never"] * len(SHARES) if way.seconds is None else [f"{each:.3g} s" for each in way.seconds]


def reached_of(way: Way) -> list[str]:
    """Sandboxes at the median and the 99th percentile; `-` for what is in no blast radius."""
    return ["-", "-"] if way.reached is None else [figures.number(each) for each in way.reached]


def _weaknesses(found: Rehearsal) -> list[str]:
    """Those that are no reason against it."""
    rest = [f"  {each}" for each in found.weaknesses if not each.shown]
    return ["weaknesses", *rest] if rest else []


def _conditions(found: Rehearsal) -> list[str]:
    return ["conditions", *(f"  {each}" for each in found.conditions)] if found.conditions else []


def _foot(found: Rehearsal) -> list[str]:
    view = found.on.view
    return [
        f"invariants   {invariants(view)}",
        f"run folders  {found.on.run_dir} (rehearsal.html, rehearsal.json, junit.xml)",
        f"             {found.off.run_dir} (flag off)",
    ]


def _metrics(found: Rehearsal) -> list[str]:
    """A line a metric, a column an analysis."""
    head, *rows = metric_rows(found)
    if not rows:
        return []
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = ["metrics (`!` not met, `?` inconclusive; measured; ratios, with their intervals, and savings derived)"]
    for name, *cells, asked in (head, *rows):
        shown_cells = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:-1], strict=True))
        lines.append(f"  {name:<{widths[0]}}{shown_cells}   {asked}".rstrip())
    return [*lines, *(f"  ? {each}" for each in unclear(found))]


def metric_rows(found: Rehearsal) -> list[list[str]]:
    """A head and a row a metric: its name, what each analysis found, and what is asked of it."""
    analyses = [each for each in found.steps if each.metrics]
    if not analyses:
        return [[""]]
    rows = [["metric", *(f"{each.weight:g} %" for each in analyses), "asked"]]
    for metric in found.plan.metrics:
        results = [next((m for m in each.metrics if m.metric.name == metric.name), None) for each in analyses]
        asked = (
            f"{metric.success_condition or f'not {metric.failure_condition}'}{', dry run' if metric.dry_run else ''}"
        )
        rows.append([metric.name, *map(_cell, results), asked])
    return rows


def unclear(found: Rehearsal) -> list[str]:
    """Why a metric's last measurements were inconclusive, once a metric: the latest."""
    why: dict[str, str] = {}
    for step in found.steps:
        for each in step.metrics:
            if each.measurements and each.measurements[-1].outcome is Outcome.INCONCLUSIVE:
                said = each.measurements[-1].why or each.why
                why[each.metric.name] = f"{each.metric.name} at {step.weight:g} %: {said}"
    return list(why.values())


def _cell(result: MetricResult | None) -> str:
    if result is None or not result.measurements:
        return "-"
    marks = {Outcome.SUCCESSFUL: "", Outcome.INCONCLUSIVE: " ?"}
    return shown(result) + marks.get(result.measurements[-1].outcome, " !")


def invariants(view: View) -> str:
    """`7 held, 2 not exercised: no_unpublished, rollback_intact`."""
    names: dict[str, list[str]] = {}
    for each in judgements.invariants(view):
        names.setdefault(each.verdict, []).append(each.name)
    held = f"{len(names.pop('held', []))} held"
    return ", ".join([held, *(f"{len(each)} {verdict}: {', '.join(each)}" for verdict, each in names.items())])


def outline(made: Compiled, exposed: Sequence[Exposure]) -> str:
    """What a plan comes to, before anything runs."""
    plan = made.plan
    lines = [f"{plan.name}: {len(made.scenario.steps)} scenario steps, {duration(sum(made.virtual))} by its own clock"]
    for stage, each in zip(made.stages, exposed, strict=True):
        names = ", ".join(each.sandboxes[:4]) + (" ..." if len(each.sandboxes) > 4 else "")
        contexts = f"({each.contexts} of {each.of_contexts} {plan.by} contexts)"
        lines.append(f"  {stage.weight:>5g} %  exposed {len(each.sandboxes):>4} {contexts}  {names}".rstrip())
        if stage.weight and not each.contexts:
            lines.append(f"           nobody: one takes about {contexts_needed(1, stage.weight)} {plan.by} contexts")
    return "\n".join(lines)
