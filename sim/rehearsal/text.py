"""What a rehearsal says on a terminal: the decision and why, steps, stages, the kill switch, claims."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sim.rehearsal.analysis import MetricResult, Outcome
from sim.rehearsal.claims import claims
from sim.rehearsal.cohorts import Exposure, contexts_needed
from sim.rehearsal.compiled import Compiled
from sim.rehearsal.gates import label, shown, value_text
from sim.rehearsal.rehearse import where
from sim.rehearsal.results import Rehearsal, StageResult, StepResult
from sim.report import judgements, words

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
    fleet = plan.sandboxes()
    memory = sum(each.memory for each in fleet)
    lease = "none" if plan.lease is None else f"{plan.lease:g} s"
    size = f"{words.plural(len(fleet), 'sandbox', 'sandboxes')}, {words.size(memory)} of guest memory"
    time = f"{plan.time} time: {duration(found.virtual)} of the plan in {found.seconds:.1f} s"
    lines = [
        f"{plan.name}   seed {run.seed if run else plan.seed}   {decision}",
        f"{plan.flag} by {plan.by}; {size}; {time}; lease {lease}",
    ]
    if found.on.view.wrong_engine:
        lines.insert(0, click.style(f"ENGINE: {found.on.view.wrong_engine}", fg="red", bold=True))
    lines += [f"  {'why' if place == 0 else '   '}  {each}" for place, each in enumerate(found.reasons)]
    first = found.first_failing
    return lines + (
        [f"  first failing step: {where(first)}, {found.plan.place(('steps', first.index))}"] if first else []
    )


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
        f" {'at risk':>8} {'freed':>10} {'blast p50':>10} {'p99':>7}"
    )
    return ["stages (measured; with no event, the 95 % bound: 3/n; blast radius derived)", head] + [
        _stage(each, len(found.plan.sandboxes())) for each in found.stages
    ]


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
        f" {words.size(on.punched_bytes):>10} {each.blast.p50:>10.2g} {each.blast.p99:>7.2g}"
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
        lines.append(
            f"  {each.stage.weight:>5g} % {_change(off.hugetlb, on.hugetlb):>23} {_change(off.pages, on.pages):>26}"
            f" {saved:>11}   {_change(off.page_cache, on.page_cache)}"
        )
    return [*lines, f"  budget {words.size(found.plan.node.memory)} (given)"]


def _change(off: int, on: int) -> str:
    return "none" if not off and not on else f"{words.size(off)} -> {words.size(on)}"


def _kill_switch(found: Rehearsal) -> list[str]:
    if not found.stages:
        return []
    blast, origin = found.stages[-1].blast, found.plan.propagation.origin
    fleet = "given" if found.plan.production else "the rehearsed fleet's"
    product = f"{blast.sandboxes} sandboxes x weight x {blast.pauses_per_minute:g} pauses a minute x propagation"
    spread = f"p50 {blast.p50_seconds:.3g} s, p99 {blast.p99_seconds:.3g} s ({origin}; {len(found.drawn)} draws)"
    lines = [
        "kill switch: turning the flag off undoes nothing",
        f"  propagation  {spread}",
        f"  blast radius {product} ({fleet}; derived)",
        f"               at {blast.weight:g} % {blast.p50:.2g} sandboxes, p99 {blast.p99:.2g}, before it is obeyed",
    ]
    if found.plan.time == "real" and found.kill_switch_ms:
        took = found.kill_switch_ms
        lines.append(f"  loopback     {took[0]:.1f} to {took[-1]:.1f} ms of {len(took)} (measured; in no blast radius)")
    return lines


def _weaknesses(found: Rehearsal) -> list[str]:
    """Those that are no reason against it."""
    rest = [f"  {each}" for each in found.weaknesses if not each.shown]
    return ["weaknesses", *rest] if rest else []


def _conditions(found: Rehearsal) -> list[str]:
    return ["conditions", *(f"  {each}" for each in found.conditions)] if found.conditions else []


def _foot(found: Rehearsal) -> list[str]:
    view = found.on.view
    held = sum(each.verdict == "held" for each in judgements.invariants(view))
    return [
        f"invariants   {held} held of {len(judgements.invariants(view))}",
        f"run folders  {found.on.run_dir} (rehearsal.html, rehearsal.json, junit.xml)",
        f"             {found.off.run_dir} (flag off)",
    ]


def _metrics(found: Rehearsal) -> list[str]:
    """A line a metric, a column an analysis."""
    analyses = [each for each in found.steps if each.metrics]
    if not analyses:
        return []
    head = "".join(f"{f'{each.weight:g} %':>12}" for each in analyses)
    lines = ["metrics (`!` not successful; measured, ratios and savings derived)", f"  {'':<26}{head}"]
    for metric in found.plan.metrics:
        values = [next((m for m in each.metrics if m.metric.name == metric.name), None) for each in analyses]
        cells = "".join(f"{_cell(each):>12}" for each in values)
        asked = metric.success_condition or f"not {metric.failure_condition}"
        lines.append(f"  {metric.name:<26}{cells}   {asked}{', dry run' if metric.dry_run else ''}")
    return lines


def _cell(result: MetricResult | None) -> str:
    if result is None:
        return "-"
    return shown(result) + ("" if result.outcome is Outcome.SUCCESSFUL else " !")


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
