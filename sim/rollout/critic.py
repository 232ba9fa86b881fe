"""What is wrong with a plan before anything is started: each concern with how much it weighs and its mend. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from flags import lint
from flags.context import with_further
from flags.lease import HEARTBEAT
from sim.files.demand import ConcernName
from sim.files.metrics import MEASURES, Condition
from sim.files.plan import Analysis, KillSwitchDrill, Metric, Plan, PlanWait, SetWeight
from sim.files.sources import read_text
from sim.files.steps import Clear, Inject, Outage
from sim.report import words
from sim.rollout.bounds import needed, upper_bound
from sim.rollout.compiled import Compiled, Stage, seconds_of
from sim.rollout.exposure import Exposure, contexts_needed
from sim.rollout.ratio_interval import LEAST_ROUNDS
from sim.rollout.user_fleet import UserFleet

Severity = Literal["stop", "note"]
LARGEST_JUMP = 10.0
"""A stage may have so many times the weight of the one before; the first one, so many percent."""
LEAST_PAUSES = 3.0
"""Exposed pauses expected of a stage: with fewer it sees none in more than 5 % of rollouts."""
_MANY = 10
_HALF = 0.5
_BY_FAR = 1.5


@dataclass(frozen=True, slots=True)
class Concern:
    """`stop`: the plan cannot end in a go. `step` is the plan step (from 0) that it is about, None for the plan."""

    name: ConcernName
    severity: Severity
    what: str
    mend: str
    step: int | None = None


@dataclass(frozen=True, slots=True)
class _PlanCase:
    """The plan, its stages, and who they expose."""

    plan: Plan
    made: Compiled
    exposures: Sequence[Exposure]
    fleet: UserFleet | None = None

    def stages(self) -> Iterator[tuple[Stage, Exposure]]:
        return zip(self.made.stages, self.exposures, strict=True)


def critique(made: Compiled, exposures: Sequence[Exposure], fleet: UserFleet | None = None) -> list[Concern]:
    """Every concern, those that stop a go first; `exposures` are of the plan's stages, in order.

    Of a sample the whole `fleet` says who dominates a stage, and how many pauses are to be expected of it.
    """
    case = _PlanCase(made.plan, made, exposures, fleet)
    checks = (
        _lint,
        _jumps,
        _bakes,
        _nobody,
        _too_small,
        _dominated,
        _metrics,
        _conditions,
        _rounds,
        _kill_switch,
        _injects,
    )
    found = [_accepted(each, made.plan) for check in checks for each in check(case)]
    return sorted(found, key=lambda each: (each.severity != "stop", -1 if each.step is None else each.step))


def _accepted(concern: Concern, plan: Plan) -> Concern:
    """One that the plan accepts is reported with the plan's reason, and stops nothing."""
    reason = plan.accept.get(concern.name)
    if reason is None:
        return concern
    return replace(concern, severity="note", mend=f"accepted: {reason}")


def _lint(case: _PlanCase) -> Iterator[Concern]:
    """The user's flag is rehearsed as it is; what is wrong with it forbids a go all the same."""
    file = case.plan.flag_file
    if file is None:
        return
    plan, fleet = case.plan, case.fleet
    contexts = plan.known_contexts() if fleet is None else with_further(plan.contexts, fleet.further)
    for each in lint.check(read_text(file), contexts):
        if each.severity == "error":
            line, column = each.position
            what = f"{file}:{line}:{column}: {each.text}; in production: {each.production}"
            yield Concern("flag", "stop", what, each.hint)


def _jumps(case: _PlanCase) -> Iterator[Concern]:
    weights: dict[str | None, float] = {}
    shown = 0
    for stage, exposure in case.stages():
        before = weights.get(stage.rule, 0.0)
        allowed = before * LARGEST_JUMP if before else LARGEST_JUMP
        if stage.weight > allowed:
            bound = f"{words.plural(shown, 'sandbox', 'sandboxes')} exposed up to there rule out no loss rate below"
            what = f"from {before:g} % to {stage.weight:g} %: {bound} {upper_bound(0, shown) * 100:.3g} %"
            mend = f"put a stage of at most {allowed:g} % before it"
            yield Concern("jump", "stop", what, mend, stage.steps[0])
        weights[stage.rule] = stage.weight
        shown = max(shown, len(exposure.sandboxes))


def _bakes(case: _PlanCase) -> Iterator[Concern]:
    plan = case.plan
    for stage, exposure in case.stages():
        if not exposure.sandboxes:
            continue
        seconds = sum(seconds_of(plan.steps[index]) for index in stage.steps)
        rate = _exposed_rate(case, stage, exposure)
        pauses = rate * seconds / 60
        if pauses >= LEAST_PAUSES:
            continue
        severity: Severity = "stop" if plan.time == "virtual" else "note"
        what = f"{stage.weight:g} % for {seconds:g} s: {pauses:.2g} exposed pauses are to be expected of it"
        least = math.ceil(LEAST_PAUSES * 60 / max(rate, 1e-9))
        mend = f"wait at least {least} s at this weight"
        if severity == "note":
            mend = "real time is this machine's: in production " + mend
        yield Concern("bake", severity, what, mend, stage.steps[0])


def _exposed_rate(case: _PlanCase, stage: Stage, exposure: Exposure) -> float:
    """Pauses a minute of the sandboxes that the stage exposes in production."""
    if case.fleet is not None:
        return float(case.fleet.rates(stage.number - 1).sum()) * 60
    rate = (case.plan.production or case.plan.pacing).pauses_per_minute
    return rate * len(exposure.sandboxes) / len(case.plan.sandboxes())


def _nobody(case: _PlanCase) -> Iterator[Concern]:
    for stage, exposure in case.stages():
        if stage.weight and not exposure.sandboxes:
            need = contexts_needed(1, stage.weight)
            what = f"{stage.weight:g} % exposes none of {len(case.plan.sandboxes())} sandboxes"
            yield Concern("nobody", "stop", what, f"rehearse about {need} of {case.plan.by}, or more", stage.steps[0])
        for index in stage.steps:
            step = case.plan.steps[index]
            asked = step.minimum_contexts if isinstance(step, PlanWait) else None
            if asked is not None and 0 < exposure.contexts < asked:
                what = f"{exposure.contexts} contexts are exposed, minimumContexts asks for {asked}"
                need = contexts_needed(asked, stage.weight)
                yield Concern(
                    "nobody", "stop", what, f"rehearse about {need} of {case.plan.by}, or ask for less", index
                )


def _too_small(case: _PlanCase) -> Iterator[Concern]:
    """A demand takes so many distinct exposed sandboxes even if none of them is lost."""
    demand = case.plan.demand
    if demand is None:
        return
    bound = demand.lost_because_of_the_flag
    need, has = needed(0, bound.share, bound.confidence), len(tried_by(case.exposures, demand.at))
    if has < need:
        what = f"the demand {bound} takes {need:,} distinct exposed sandboxes by {demand.at:g} %; the plan has {has:,}"
        yield Concern("too-small", "stop", what, "rehearse more sandboxes, or demand less")


def tried_by(exposures: Iterable[Exposure], weight: float) -> set[str]:
    """The distinct sandboxes that stages up to this weight expose."""
    return {name for each in exposures if each.weight <= weight for name in each.sandboxes}


def _dominated(case: _PlanCase) -> Iterator[Concern]:
    """More than half of a stage in one team or cluster, though the fleet is not made like that."""
    units: tuple[tuple[str, ConcernName], ...] = (("team", "one-team"), ("cluster", "one-cluster"))
    for unit, concern in units:
        whole, by_stage = _units(case, unit)
        if len(whole) == 1:
            continue
        for (stage, _), exposed in zip(case.stages(), by_stage, strict=True):
            if stage.weight in {0, 100} or exposed.total() < _MANY:
                continue
            name, most = exposed.most_common(1)[0]
            share, usual = most / exposed.total(), whole[name] / whole.total()
            if share <= _HALF:
                continue
            what = f"{unit} {name} is {share:.0%} of the exposed at {stage.weight:g} %, and {usual:.0%} of the fleet"
            severity: Severity = "stop" if share >= _BY_FAR * usual else "note"
            mend = "roll out by sandbox, or give that one a rule and stages of its own"
            yield Concern(concern, severity, what, mend, stage.steps[0])


def _units(case: _PlanCase, unit: str) -> tuple[Counter[str], list[Counter[str]]]:
    """How many sandboxes each team or cluster has, in all and in each stage."""
    if case.fleet is not None:
        of = case.fleet.units[unit]
        stages = [Counter(name for name, on in zip(of, e.on.tolist(), strict=True) if on) for e in case.fleet.exposures]
        return Counter(of), stages
    named = {each.name: str(getattr(each, unit)) for each in case.plan.sandboxes()}
    return Counter(named.values()), [Counter(named[each] for each in e.sandboxes) for _, e in case.stages()]


def _metrics(case: _PlanCase) -> Iterator[Concern]:
    plan = case.plan
    if not plan.metrics:
        mend = "add metrics: corrupted_resumes and lost_because_of_the_flag, both critical, at least"
        yield Concern("no-metrics", "stop", "the plan has no metrics: nothing can stop it", mend)
        return
    counted = [each for each in plan.metrics if not each.dry_run]
    if not counted:
        yield Concern("all-dry-run", "stop", "every metric is dryRun: none of them counts", "remove dryRun from some")
    elif not any(each.critical for each in counted):
        yield Concern("no-critical", "stop", "no metric is critical", "add `critical: true` to what no go may bear")
    for stage, exposure in case.stages():
        if exposure.sandboxes and not any(isinstance(plan.steps[index], Analysis) for index in stage.steps):
            what = f"nothing is measured at {stage.weight:g} %"
            yield Concern("unwatched", "note", what, "add `analysis: {}` to the stage", stage.steps[0])


def _conditions(case: _PlanCase) -> Iterator[Concern]:
    counts = dict(_measured(case.plan))
    for metric in case.plan.metrics:
        if metric.dry_run:
            continue
        why = _why_idle(metric, counts.get(metric.name, 0), len(case.plan.sandboxes()))
        if why:
            yield Concern("cannot-fire", "stop", f"{metric.name} cannot stop anything: {why}", "ask what can fail")
        elif why := _why_always(metric):
            mend = "ask what a sound rollout can meet"
            yield Concern("must-fire", "stop", f"{metric.name} fails whatever happens: {why}", mend)
        elif metric.on_failure == "continue" and not metric.critical:
            what = f"{metric.name} stops nothing: onFailure is continue, and it is not critical"
            yield Concern("continues", "note", what, "make it critical, or dryRun")


def _measured(plan: Plan) -> Iterator[tuple[str, int]]:
    """The most measurements of each metric in one analysis."""
    most: Counter[str] = Counter()
    for step in plan.steps:
        if isinstance(step, Analysis):
            for metric in plan.metrics:
                if step.metrics is None or metric.name in step.metrics:
                    most[metric.name] = max(most[metric.name], step.count)
    return iter(most.items())


def _why_idle(metric: Metric, measurements: int, fleet: int) -> str:
    failure, success = metric.failure_condition, metric.success_condition
    if not measurements:
        return "no analysis measures it"
    if not 0 <= metric.failure_limit < measurements:
        borne = "any number of" if metric.failure_limit < 0 else str(metric.failure_limit)
        return f"failureLimit bears {borne} failures of {words.plural(measurements, 'measurement')}"
    fails_never = failure is None or _over(metric, failure, fleet) is False
    succeeds_always = success is None or _over(metric, success, fleet) is True
    if fails_never and succeeds_always:
        return f"no result meets {failure}" if success is None else f"every result meets {success}"
    return ""


def _why_always(metric: Metric) -> str:
    failure, success = metric.failure_condition, metric.success_condition
    if failure is not None and _over(metric, failure) is True:
        return f"every result meets {failure}"
    if success is not None and _over(metric, success) is False:
        return f"no result meets {success}"
    return ""


_RANGES: Mapping[str, tuple[float, float]] = {
    "share": (0.0, 1.0),
    "count": (0.0, math.inf),
    "ratio": (5e-324, math.inf),
    "seconds": (0.0, math.inf),
    "bytes": (-math.inf, math.inf),
}
_BEYOND_ONE = {"budget_used"}
"""Shares of what can be overrun."""


_OF_SANDBOXES = {"discards", "lost", "lost_at_checkpoint", "lost_because_of_the_flag"}
"""Counts of distinct sandboxes: no more than the fleet has."""


def _over(metric: Metric, condition: Condition, fleet: float = math.inf) -> bool | None:
    """Whether all results that a measure can have meet it, or none does (False); None where it depends.

    `fleet` is the number of sandboxes that are rehearsed.
    """
    measure = MEASURES[metric.name]
    low, high = _RANGES[measure.unit]
    high = math.inf if metric.name in _BEYOND_ONE else fleet if metric.name in _OF_SANDBOXES else high
    bound = condition.bound
    if condition.operator in {"==", "!="}:
        possible = low <= bound <= high and (measure.unit != "count" or bound == int(bound))
        return None if possible else condition.operator == "!="
    ends = {condition.holds(low), condition.holds(high)}
    return ends.pop() if len(ends) == 1 else None


def _rounds(case: _PlanCase) -> Iterator[Concern]:
    """A ratio of times takes rounds in which a sandbox was exposed; fewer can only be inconclusive."""
    ratios = [each for each in case.plan.metrics if MEASURES[each.name].unit == "ratio" and not each.dry_run]
    asked = [each for each in ratios if each.inconclusive_limit >= 0]
    done = 0
    for stage, exposure in case.stages():
        for index in stage.steps:
            step = case.plan.steps[index]
            done += case.made.rounds[index] if exposure.sandboxes and not isinstance(step, KillSwitchDrill) else 0
            if not isinstance(step, Analysis) or done >= LEAST_ROUNDS:
                continue
            for metric in asked:
                if step.metrics is None or metric.name in step.metrics:
                    what = f"{metric.name} after {words.plural(done, 'exposed round')}: it takes {LEAST_ROUNDS}"
                    mend = "raise pacing.mostRounds, or bear it there with inconclusiveLimit: -1"
                    yield Concern("too-few-rounds", "stop", what, mend, index)


def _kill_switch(case: _PlanCase) -> Iterator[Concern]:
    plan = case.plan
    drilled = any(isinstance(each, KillSwitchDrill) for each in plan.steps)
    streamed = plan.flag_source in {"relay", "launchdarkly"}
    if not drilled and plan.lease is None and streamed:
        what = "a half-open connection serves the old flag for ever: no lease ends it, and no drill would show it"
        yield Concern("half-open", "stop", what, f"{_lease_mend(plan)}, or add a drill")
    elif not drilled:
        yield Concern("no-drill", "note", "the kill switch is never thrown", "add a drill where a sandbox is exposed")
    if drilled and plan.lease is None and plan.flag_source == "launchdarkly":
        what = "a half-open connection to LaunchDarkly serves the old flag for 300 s, as VALID: no heartbeat ends it"
        yield Concern("half-open", "note", what, _lease_mend(plan))
    frozen: int | None = None
    for index, step in enumerate(plan.steps):
        if isinstance(step, Outage):
            frozen = index if step.fault == "freeze" else None
        elif isinstance(step, KillSwitchDrill):
            frozen = None
    if frozen is not None and plan.lease is None and drilled:
        what = "the source goes half-open, and the kill switch is not thrown before it is back"
        yield Concern("half-open", "stop", what, "put a drill after it, or add a lease", frozen)


def _lease_mend(plan: Plan) -> str:
    """LaunchDarkly has no heartbeat of its own."""
    if plan.flag_source != "launchdarkly":
        return "add `lease: 1s`"
    return f"let your control plane change the flag {HEARTBEAT} twice a second, and add `lease: 2s`"


def _injects(case: _PlanCase) -> Iterator[Concern]:
    """A fault must be met by a pause before the next setWeight, which disarms it."""
    for index, step in enumerate(case.plan.steps):
        if isinstance(step, Inject) and not _is_met(case.plan, index):
            what = "the fault is disarmed before any sandbox pauses"
            yield Concern("disarmed", "stop", what, "put it after setWeight, with a wait after it", index)


def _is_met(plan: Plan, armed: int) -> bool:
    for step in plan.steps[armed + 1 :]:
        if isinstance(step, SetWeight | Clear):
            return False
        if isinstance(step, PlanWait | KillSwitchDrill) or (isinstance(step, Analysis) and step.count > 1):
            return True
    return False


def concern_lines(plan: Plan, concerns: Sequence[Concern]) -> list[str]:
    """Each concern with its place, its weight and its mend; or that there is none."""
    if not concerns:
        return ["critic: no concern"]
    lines = [f"critic: {words.plural(len(stops(concerns)), 'concern')} that no go can bear, {len(concerns)} in all"]
    for each in concerns:
        place = plan.place(("steps", each.step)) if each.step is not None else f"{plan.path}"
        lines.append(f"  {place}: {'stops' if each.severity == 'stop' else 'note'}: {each.name}: {each.what}")
        lines.append(f"      {each.mend}")
    return lines


def concern_place(plan: Plan, concern: Concern) -> str:
    """`plan.yaml:12:5: jump: `, or without a place where it is about the whole plan."""
    place = "" if concern.step is None else f"{plan.place(('steps', concern.step))}: "
    return f"{place}{concern.name}: "


def stops(concerns: Iterable[Concern]) -> list[Concern]:
    """Those that leave no way to a go."""
    return [each for each in concerns if each.severity == "stop"]
