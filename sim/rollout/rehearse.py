"""Rehearses a plan stage by stage beside the same plan with the flag off, and compares them; a go or no-go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from flags.catalog import flag
from sim.files.plan import Plan
from sim.record.folder import StoredRun
from sim.record.verdict import Verdict, is_cut_off
from sim.report import judgements, words
from sim.rollout.analysis import MetricOutcome
from sim.rollout.approval import Approved
from sim.rollout.compiled import Turns, beginners, compiled, has_room_for_two, side_by_side
from sim.rollout.critic import concern_place, critique, stops
from sim.rollout.exposure import Exposure, FlagFollower, exposures_of
from sim.rollout.gates import Gates, Recorder, Report
from sim.rollout.identity import asked
from sim.rollout.results import Decision, Rehearsal, StageResult, StepResult
from sim.rollout.salvage_arm import salvage_arm
from sim.rollout.shown import LossBound, even_rates, incidents, loss_bound, nodes_of
from sim.rollout.stage_flags import exported
from sim.rollout.stretch import saved
from sim.rollout.told_stages import plan_began, stage_measured, step_ended
from sim.rollout.user_fleet import UserFleet
from sim.run.drill import Drill
from sim.run.judging import HOST
from sim.run.runner import Progress, RunOptions, run_scenario

WITH_SALVAGE = "with the flag on and salvage"
_VERDICTS = {
    "go": Verdict.HELD,
    "no-go": Verdict.VIOLATED,
    "inconclusive": Verdict.INCONCLUSIVE,
    "waits for approval": Verdict.INCONCLUSIVE,
}


async def rehearse(
    plan: Plan,
    options: RunOptions,
    progress: Progress = lambda _: None,
    report: Report = lambda _: None,
    fleet: UserFleet | None = None,
    since: Approved | None = None,
) -> Rehearsal:
    """Both arms on the same seed; `report` gets each step when it is over. `since`: the part before an approval.

    In virtual time they take turns, step by step, if this host has room for both; else one comes after the other.
    A third arm, with salvage, comes after both: it needs no memory beside theirs.
    """
    seed = plan.seed if options.seed is None else options.seed
    after = -1 if since is None else since.last
    on, off = compiled(plan, after=after), compiled(plan, "off", after)
    exposed = exposures_of(on)
    together = plan.time == "virtual" and has_room_for_two(on.scenario)
    turns = Turns(beginners(on.scenario.steps, seed)) if together else None
    gates = Gates(on, exposed, Recorder(off, turns), report)
    gates.tell = lambda drill, step: _tell(gates, plan, fleet, drill, step)
    if since is not None:
        since.put_into(gates)
    began = time.monotonic()
    if turns is None:
        without, result = await _one_after_the_other(gates, options, progress)
    else:
        without, result = await _in_turns(turns, gates, options, progress)
    three = await salvage_arm(gates, without, result, options, progress, after) if plan.salvage_arm else None
    stages = _stages(gates, plan)
    bound = _bound(plan, gates.exposures, stages, fleet)
    found = Rehearsal(
        plan=plan,
        decision="go",
        verdict=Verdict.HELD,
        reasons=(),
        steps=tuple(gates.results),
        stages=tuple(_with_incident(plan, each, bound, fleet) for each in stages),
        on=result,
        off=without,
        seconds=time.monotonic() - began,
        virtual=gates.clock,
        kill_switch_ms=_kill_switch_ms(result),
        in_turns=turns is not None,
        bound=bound,
        concerns=tuple(critique(on, gates.exposures, fleet)),
        fleet=fleet,
        continues=None if since is None else since.folder,
        compared=gates.compared,
        three=three,
    )
    return decided(found)


def _tell(gates: Gates, plan: Plan, fleet: UserFleet | None, drill: Drill, step: StepResult | None) -> None:
    """Its steps and, where one may have ended, its stage."""
    if step is None:
        drill.note(plan_began(gates.compiled, gates.exposures))
        for each in gates.results:  # from before an approval
            drill.note(step_ended(each))
        return
    drill.note(step_ended(step))
    stages = _stages(gates, plan)
    if stages and (step.metrics or step.stopped or step.index == stages[-1].stage.steps[-1]):
        bound = _bound(plan, gates.exposures, stages, fleet)
        drill.note(stage_measured(_with_incident(plan, stages[-1], bound, fleet), bound))


async def _in_turns(turns: Turns, gates: Gates, options: RunOptions, progress: Progress) -> tuple[StoredRun, StoredRun]:
    """The arm with the flag on starts second: its run is the latest."""
    off = gates.off

    async def without() -> StoredRun:
        try:
            return await run_scenario(off.compiled.scenario, options, gate=off.gate)
        finally:
            await turns.end("off")

    async def result() -> StoredRun:
        try:
            await turns.both_took("on", 0)
            return await run_scenario(gates.compiled.scenario, options, progress, gates.gate)
        finally:
            await turns.end("on")

    return await side_by_side(without(), result())


async def _one_after_the_other(gates: Gates, options: RunOptions, progress: Progress) -> tuple[StoredRun, StoredRun]:
    off = gates.off

    def before(step: str) -> None:
        progress(f"flag off {step}")

    without = await run_scenario(off.compiled.scenario, options, before, off.gate)
    with contextlib.ExitStack() as stack:
        plan = gates.compiled.plan
        if plan.flag_source == "launchdarkly":
            gates.follower = stack.enter_context(
                contextlib.closing(FlagFollower(plan, patience=options.time_limit / 2))
            )
        return without, await run_scenario(gates.compiled.scenario, options, progress, gates.gate)


def _kill_switch_ms(result: StoredRun) -> tuple[float, ...]:
    """Measured over loopback: what this machine does, no part of a blast radius."""
    thrown = [each for each in result.view.switches[1:] if not each.on]  # the first is the start at 0 %
    return tuple(sorted(each.took_ms for each in thrown if each.took_ms is not None))


def _stages(gates: Gates, plan: Plan) -> list[StageResult]:
    """Those that were reached."""
    done = {each.index for each in gates.results if each.stopped in {None, "approve"}}
    found = []
    for stage, exposure in zip(gates.compiled.stages, gates.exposures, strict=True):
        if stage.number not in gates.arms:
            break
        arms = gates.arms[stage.number]
        lost = tuple(name for name in arms.on.lost if name not in arms.off.lost)
        spared = saved(arms.off, arms.on, plan.pacing.at_once)
        found.append(StageResult(stage, exposure, arms.on, arms.off, lost, spared, set(stage.steps) <= done))
    return found


def _bound(
    plan: Plan, exposures: Sequence[Exposure], stages: Sequence[StageResult], fleet: UserFleet | None
) -> LossBound:
    """Of the stages that were reached, up to the one that the demand is about; of a sample by its worst stratum."""
    at = 100.0 if plan.demand is None else plan.demand.at
    by_then = [each for each in stages if each.stage.weight <= at]
    tried = {name for each in by_then for name in each.on.punched}
    lost = {name for each in by_then for name in each.lost_by_flag}
    found = loss_bound(plan.demand, exposures, tried, lost)
    if fleet is None or not by_then:
        return found
    last = max(each.stage.number for each in by_then) - 1
    return replace(found, rate=fleet.bound(last, tried | lost, lost, found.confidence), stratified=True)


def _with_incident(plan: Plan, stage: StageResult, bound: LossBound, fleet: UserFleet | None) -> StageResult:
    """Losses at the rate that the plan gives, or at the one that this rehearsal rules out."""
    given = plan.incident.loss_rate
    rate = bound.rate if given is None else given / 100
    if fleet is not None:
        rates = fleet.rates(stage.stage.number - 1)
    elif exported(plan) is None:
        rates = even_rates(plan, stage.stage.weight)
    else:  # rules of the user's flag expose sandboxes whatever the weight: the share is that of the rehearsed fleet
        rates = even_rates(plan, 100 * len(stage.exposure.sandboxes) / len(plan.sandboxes()))
    (found,) = incidents(plan, [stage.stage], [rates], nodes_of(plan), rate)
    return replace(stage, incident=found)


def decided(found: Rehearsal) -> Rehearsal:
    """With its decision: no-go where a step stopped it, a critical metric failed or a checker was violated.

    Where the host failed a pause of either arm, a metric that failed says nothing of the flag.
    """
    against, stopped, open_questions = _against(found), _stopped(found), _open(found)
    if _host_failed(found):
        open_questions += stopped
    else:
        against = stopped + against
    decision: Decision = "no-go" if against else "inconclusive" if open_questions else "go"
    reasons = against + open_questions if decision != "go" else _why_go(found)
    if decision == "go" and found.steps and found.steps[-1].stopped == "approve":
        decision, reasons = "waits for approval", _waits(found)
    conditions = tuple(_conditions(found))
    return replace(found, decision=decision, verdict=_VERDICTS[decision], reasons=tuple(reasons), conditions=conditions)


def _stopped(found: Rehearsal) -> list[str]:
    """What steps and their metrics say against it."""
    reasons: list[str] = []
    for step in found.steps:
        if step.stopped == "abort" or (step.stopped == "wait" and step.outcome is not MetricOutcome.INCONCLUSIVE):
            reasons.append(f"{where(step)}: {step.detail}")
        else:
            reasons += [f"{where(step)}: critical: {each}" for each in _critical(step)]
    return reasons


def _host_failed(found: Rehearsal) -> bool:
    failed = [*judgements.failed(found.on.view), *judgements.failed(found.off.view)]
    return any(each.name.startswith(HOST) for each in failed)


def _against(found: Rehearsal) -> list[str]:
    reasons = _by_nothing(found.plan)
    reasons += [f"weakness {each}" for each in found.weaknesses if each.shown]
    if late := _after_rollback(found):
        reasons.append(f"EXPOSED: {words.plural(late, 'pause')} punched after the rollback: it was not obeyed")
    reasons += [
        f"{each.name}: {judgements.message(each)}"
        for each in judgements.failed(found.on.view)
        if each.verdict == Verdict.VIOLATED
    ]
    return reasons + [f"{WITH_SALVAGE}: {each}" for each in _of_the_third_arm(found, Verdict.VIOLATED)]


def _of_the_third_arm(found: Rehearsal, verdict: Verdict) -> list[str]:
    """What it violated is against the plan; that it was cut off, or failed by the host, leaves it open."""
    failed = [] if found.three is None else judgements.failed(found.three.run.view)
    asked = [each for each in failed if each.verdict == verdict]
    if verdict == Verdict.INCONCLUSIVE:
        asked = [each for each in asked if is_cut_off(each.name) or each.name.startswith(HOST)]
    return [f"{each.name}: {judgements.message(each)}" for each in asked]


def _by_nothing(plan: Plan) -> list[str]:
    """A rollout by a kind that is not there when the flag is read exposes no sandbox, then all at once."""
    moment = flag(plan.flag).moments[0]
    if plan.by in plan.contexts.shapes[moment]:
        return []
    return [f"{plan.flag} is rolled out by {plan.by}, and no context has that kind at a {moment}: see contexts"]


def _after_rollback(found: Rehearsal) -> int:
    """Pauses that punched although the rollout had been aborted before they were decided."""
    switches = found.on.view.switches
    if not found.steps or found.steps[-1].stopped != "abort" or not switches or switches[-1].on:
        return 0
    return sum(each.punched_bytes > 0 and each.began > switches[-1].t for each in found.on.view.pauses)


def _critical(step: StepResult) -> list[str]:
    return [
        f"{each.metric.name}: {each.why}"
        for each in step.metrics
        if each.metric.critical and each.counts and each.outcome in {MetricOutcome.FAILED, MetricOutcome.ERROR}
    ]


def _open(found: Rehearsal) -> list[str]:
    reasons = [
        f"{where(step)}: {step.detail}"
        for step in found.steps
        if step.outcome is MetricOutcome.INCONCLUSIVE and step.stopped == "wait"
    ]
    reasons += [
        f"{each.name}: {judgements.message(each)}"
        for each in judgements.failed(found.on.view)
        if each.verdict == Verdict.INCONCLUSIVE
    ]
    off = [each for each in judgements.failed(found.off.view) if is_cut_off(each.name) or each.name.startswith(HOST)]
    reasons += [f"with the flag off: {each.name}: {judgements.message(each)}" for each in off]
    reasons += [f"{WITH_SALVAGE}: {each}" for each in _of_the_third_arm(found, Verdict.INCONCLUSIVE)]
    waits = bool(found.steps) and found.steps[-1].stopped == "approve"  # later stages add to the bound
    if found.bound is not None and not found.bound.is_met and not waits:
        reasons.append(found.bound.short)
    return reasons + [f"{concern_place(found.plan, each)}{each.what}; {each.mend}" for each in stops(found.concerns)]


def _why_go(found: Rehearsal) -> list[str]:
    stages = words.plural(len(found.stages), "stage")
    refused = max(found.stages, key=lambda each: each.off.refused - each.on.refused, default=None)
    spared = refused is not None and refused.off.refused > refused.on.refused
    punched = sum(each.on.punched_pauses for each in found.stages)
    resumed = sum(each.checked for each in judgements.invariants(found.on.view) if each.name == "bytes_exact")
    return [
        f"{stages} passed, {words.plural(len(found.steps), 'step')} successful",
        f"{words.plural(punched, 'pause')} punched, {_lost_by_flag(found)}",
        *([f"shown: {found.bound.text}: of the exposed, on this engine, here"] if found.bound is not None else []),
        f"{words.plural(resumed, 'snapshot')} and resumed guests compared byte by byte, none differs",
        *([_fits(refused)] if refused is not None and spared else []),
    ]


def _lost_by_flag(found: Rehearsal) -> str:
    lost = len({name for each in found.stages for name in each.lost_by_flag})
    if not lost:
        return "none of them lost a sandbox because of the flag"
    return (
        f"{words.plural(lost, 'sandbox was', 'sandboxes were')} lost because of the flag: the plan's metrics allow that"
    )


def _waits(found: Rehearsal) -> list[str]:
    last = found.steps[-1]
    left = words.plural(len(found.plan.steps) - len(found.steps), "step")
    how = f"snapdrill rehearse {found.plan.path} {asked(found.plan)} --continue {found.folder}"
    return [f"{where(last)}: waits for approval, {left} left; to go on: {how}", *_why_go(found)]


def _fits(stage: StageResult) -> str:
    off, on = stage.off, stage.on
    without = f"with the flag off {off.refused} of {words.plural(off.asked, 'pause')} overran the node's budget"
    return f"at {stage.stage.weight:g} % {without}; with it on {on.refused or 'none'} of {on.asked}"


def _conditions(found: Rehearsal) -> list[str]:
    """What a go rests on and this rehearsal does not close."""
    report = []
    for step in found.steps:
        report += [
            f"{each.metric.name} {each.outcome} in {where(step)} ({each.why})"
            for each in step.metrics
            if each.outcome is not MetricOutcome.SUCCESSFUL and each.counts and step.stopped is None
        ]
    return report


def where(step: StepResult) -> str:
    """`step 7 (analysis at 10 %)`."""
    return f"step {step.index + 1} ({step.label}" + (")" if step.kind == "setWeight" else f" at {step.weight:g} %)")
