"""Where a plan looks at its run: each gate measures, judges its step, and says whether the rollout goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sim.files.plan import Analysis, Approve, Assert, KillSwitch, Metric, PlanStep, PlanWait, SetWeight
from sim.files.plan import KillSwitchDrill as DrillStep
from sim.files.steps import Clear, FlagStep, Inject, Outage, PauseStep, Resume, Step, Tick
from sim.files.units import format_duration
from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report import words
from sim.rollout.analysis import Arms, Measurement, MetricOutcome, MetricResult, Pair, concluded, measure, pairs, worst
from sim.rollout.compiled import Compiled, Gate, Stage, Turns
from sim.rollout.exposure import Exposure, FlagFollower, contexts_needed
from sim.rollout.results import StepResult
from sim.rollout.shown import nodes_of, obeyed
from sim.rollout.stretch import Figures, KillSwitchUse, PauseCost, Window, costs, figures
from sim.run.drill import Drill

Report = Callable[[StepResult], None]
Tell = Callable[[Drill, StepResult | None], None]
"""Records a step that was concluded in the run of this drill; None as it begins."""
CORRUPTION = frozenset({"bytes_exact", "never_resumed", "no_unpublished"})


@dataclass
class Recorder:
    """The flag-off arm: keeps what each gate saw, so that the other arm can be compared there.

    With `turns` the arms go step by step, and this one stops where the other has.
    """

    compiled: Compiled
    turns: Turns | None = None
    seen: dict[tuple[int, str, int], Figures] = field(default_factory=dict)
    costs: tuple[PauseCost, ...] = ()

    async def gate(self, index: int, drill: Drill) -> Sequence[Step] | None:
        """After a scenario step."""
        for number, gate in enumerate(self.compiled.gates.get(index, ())):
            stage = self.compiled.stage_of(gate.step)
            window = Window(began(drill.entries, stage.first), drill.view().t + 1e-6)
            self.seen[(index, gate.act, number)] = figures(self.compiled.plan.flag, drill.entries, drill.view(), window)
        if self.turns is None:
            return None
        self.costs = tuple(costs(self.compiled.plan.flag, drill.view().pauses, drill.began))
        await self.turns.took("off", index)
        await self.turns.next("off", index)
        return [] if self.turns.has_ended("on") else None


def began(entries: Sequence[Entry], step: int) -> float:
    """When a scenario step began, in seconds since the run did."""
    return next((e.t for e in entries if isinstance(e.event, events.StepStarted) and e.event.index == step), 0.0)


def corruptions(drill: Drill) -> int:
    """Wrong bytes, and punched memory that lives, as the rules have found up to now."""
    return sum(len(finding.violations) for name, finding in drill.findings.items() if name in CORRUPTION)


@dataclass
class Gates:
    """The arm that the plan is about. `results` grows by one a step; what the view says is asked anew at each gate.

    `earlier` are the pauses of both arms from before the approval after which this run goes on. `end` is the scenario
    step after which it stopped, and the steps that it took then; None where it went to the end.
    """

    compiled: Compiled
    exposures: list[Exposure]
    off: Recorder
    report: Report = lambda _result: None
    follower: FlagFollower | None = None
    tell: Tell = lambda _drill, _result: None
    results: list[StepResult] = field(default_factory=list)
    arms: dict[int, Arms] = field(default_factory=dict)
    kills: list[KillSwitchUse] = field(default_factory=list)
    clock: float = 0.0
    earlier: tuple[Pair, ...] = ()
    compared: tuple[Pair, ...] = ()
    end: tuple[int, Sequence[Step]] | None = None
    _measured: dict[str, list[Measurement]] = field(default_factory=dict)
    _corrupted_before: dict[int, int] = field(default_factory=dict)

    async def gate(self, index: int, drill: Drill) -> Sequence[Step] | None:
        """After a scenario step, which the other arm has taken too: look at it; a rollback where the plan aborts."""
        turns = self.off.turns
        if index == 0:
            self.tell(drill, None)
        if turns is not None:
            await turns.took("on", index)
            await turns.both_took("on", index)
        instead = await self._look(index, drill)
        if instead is not None:
            self.end = index, instead
        if turns is not None and instead is not None:
            await turns.end("on")
        elif turns is not None:
            await turns.next("on", index)
        return instead

    async def _look(self, index: int, drill: Drill) -> Sequence[Step] | None:
        """Measure, or conclude a plan step."""
        for number, gate in enumerate(self.compiled.gates.get(index, ())):
            step, key = self.compiled.plan.steps[gate.step], (index, gate.act, number)
            if key not in self.off.seen:  # without the other arm nothing can be compared
                self._give_up(gate.step, step, "the run with the flag off ended before this step did")
                return []
            if gate.act == "measure":
                self._measure(gate, step, self._arms(gate, key, drill))
                continue
            if self.follower is not None and isinstance(step, SetWeight):
                try:
                    await self._follow(self.follower, self.compiled.stage_of(gate.step))
                except TimeoutError as error:
                    self._give_up(gate.step, step, str(error))
                    self.tell(drill, self.results[-1])
                    return []
            result = self._conclude(gate.step, step, drill, self._arms(gate, key, drill))
            self.results.append(result)
            self.report(result)
            self.tell(drill, result)
            if result.stopped is not None:
                return self._instead(result)
        return None

    def _give_up(self, index: int, step: PlanStep, why: str) -> None:
        """What the step was to show cannot be known."""
        weight = self.compiled.stage_of(index).weight
        unclear = StepResult(index, step.kind, label(step), weight, MetricOutcome.INCONCLUSIVE, why, self.clock, 0.0)
        self.results.append(replace(unclear, stopped="wait"))
        self.report(self.results[-1])

    async def _follow(self, follower: FlagFollower, stage: Stage) -> None:
        """Until the operator has turned the flag, whose own salt and rules then say who is exposed."""
        await follower.until(stage.weight)
        before = self.exposures[stage.number - 2].sandboxes if stage.number > 1 else ()
        self.exposures[stage.number - 1] = follower.exposure(stage.weight, before)

    def _instead(self, result: StepResult) -> list[Step]:
        """Aborted: the safe variation for all, and one round that shows it; waiting: as it is."""
        if result.stopped in {"wait", "approve"} or self.compiled.plan.flag_source == "launchdarkly":
            return []
        plan = self.compiled.plan
        again = PauseStep(concurrency=plan.pacing.at_once, allow_empty=True)
        return [FlagStep(values={plan.flag: plan.safe}), Tick(ticks=1), again, Resume(allow_empty=True)]

    def _arms(self, gate: Gate, key: tuple[int, str, int], drill: Drill) -> Arms:
        stage, view = self.compiled.stage_of(gate.step), drill.view()
        self._see_kills(drill.entries, view)
        found = corruptions(drill)
        before = self._corrupted_before.setdefault(stage.number, found)
        window = Window(began(drill.entries, stage.first), view.t + 1e-6)
        on = figures(self.compiled.plan.flag, drill.entries, view, window, self.kills, found - before)
        plan = self.compiled.plan
        compared = None
        if self.off.turns is not None:
            compared = self.compared = (
                *self.earlier,
                *pairs(costs(plan.flag, view.pauses, drill.began), self.off.costs),
            )
        arms = Arms(on, self.off.seen[key], plan.node.memory, plan.pacing.at_once, compared)
        self.arms[stage.number] = arms
        return arms

    def _see_kills(self, entries: Sequence[Entry], view: View) -> None:
        """Each kill switch, from its change at the source until the weight was set again."""
        plan = self.compiled.plan
        drills = [each.kill_switch.max_propagation for each in plan.steps if isinstance(each, DrillStep)]
        allowed = [0.0] if plan.time == "virtual" or not drills else drills
        self.kills = kills(plan.flag, plan.safe, entries, view.t + 1.0, allowed)

    def _measure(self, gate: Gate, step: PlanStep, arms: Arms) -> None:
        if isinstance(step, Analysis):
            for metric in self._metrics(step):
                self._measured.setdefault(f"{gate.step}:{metric.name}", []).append(measure(metric, arms))

    def _metrics(self, step: Analysis) -> list[Metric]:
        metrics = self.compiled.plan.metrics
        return [each for each in metrics if step.metrics is None or each.name in step.metrics]

    def _conclude(self, index: int, step: PlanStep, drill: Drill, arms: Arms) -> StepResult:
        stage = self.compiled.stage_of(index)
        took, at = self.compiled.virtual[index], self.clock
        self.clock += took
        blank = StepResult(index, step.kind, label(step), stage.weight, MetricOutcome.SUCCESSFUL, "", at, took)
        match step:
            case SetWeight():
                return self._weighed(blank, stage)
            case PlanWait():
                return self._waited(blank, step, stage, arms)
            case Analysis():
                return self._analysed(blank, step)
            case DrillStep():
                return self._drilled(blank, step, arms, drill.view())
            case Assert():
                return asserted(blank, step, drill)
            case Approve():
                return replace(blank, detail="stops here until a person approves", stopped="approve")
            case Outage(fault=fault):
                return replace(blank, detail="the flag source is back" if fault == "recover" else "in force")
            case Inject() | Clear():
                return replace(blank, detail="armed" if isinstance(step, Inject) else "disarmed")

    def _weighed(self, blank: StepResult, stage: Stage) -> StepResult:
        exposure = self.exposures[stage.number - 1]
        fleet = len(self.compiled.plan.sandboxes())
        detail = f"{len(exposure.sandboxes)} of {words.plural(fleet, 'sandbox', 'sandboxes')} exposed"
        earlier = [each for each in self.compiled.stages[: stage.number - 1] if each.rule == stage.rule]
        before = earlier[-1].weight if earlier else 0.0
        if not stage.weight and exposure.sandboxes:
            detail += f", by {_by(exposure)}: a weight of 0 % does not reach them"
        if stage.weight < before:
            gone = words.plural(len(exposure.leaves), "sandbox leaves", "sandboxes leave")
            return replace(blank, detail=f"{detail}; a rollback: {gone}, what was punched stays punched")
        if not exposure.is_superset:
            gone = words.plural(len(exposure.leaves), "sandbox leaves", "sandboxes leave")
            return replace(
                blank, outcome=MetricOutcome.FAILED, detail=f"{detail}; no superset: {gone}", stopped="abort"
            )
        return replace(blank, detail=detail)

    def _waited(self, blank: StepResult, step: PlanWait, stage: Stage, arms: Arms) -> StepResult:
        exposure, asked = self.exposures[stage.number - 1], step.minimum_contexts
        wanted = (1 if stage.weight else 0) if asked is None else asked
        rounds = self.compiled.rounds[blank.index]
        detail = f"{words.plural(arms.on.asked, 'pause')} in the stage, {words.plural(rounds, 'round')} of this wait"
        if exposure.contexts >= wanted:
            return replace(blank, detail=detail)
        by, need = self.compiled.plan.by, contexts_needed(wanted, stage.weight)
        lack = (
            f"{exposure.contexts} of {exposure.of_contexts} {by} contexts exposed, {wanted} asked for: "
            f"at {stage.weight:g} % that takes about {need} of them"
        )
        return replace(blank, outcome=MetricOutcome.INCONCLUSIVE, detail=lack, stopped="wait")

    def _analysed(self, blank: StepResult, step: Analysis) -> StepResult:
        results = tuple(
            concluded(each, self._measured.pop(f"{blank.index}:{each.name}", [])) for each in self._metrics(step)
        )
        counted = [each for each in results if each.counts]
        bad = [each for each in counted if each.outcome is not MetricOutcome.SUCCESSFUL]
        detail = "; ".join(f"{each.metric.name} is {shown(each)}: {each.why}" for each in bad)
        detail = detail or f"{words.plural(len(counted), 'metric')} successful"
        outcome = worst([each.outcome for each in counted])
        return replace(blank, outcome=outcome, detail=detail, metrics=results, stopped=_stop(bad))

    def _drilled(self, blank: StepResult, step: DrillStep, arms: Arms, view: View) -> StepResult:
        drill = step.kill_switch
        if self.compiled.plan.flag_source == "launchdarkly":
            return replace(blank, outcome=MetricOutcome.INCONCLUSIVE, detail="not thrown: this flag is its operator's")
        if arms.on.late:
            detail = f"{words.plural(arms.on.late, 'pause')} punched after the kill switch had had its time: EXPOSED"
            if self.compiled.plan.lease is None and self.compiled.plan.flag_source in {"file", "relay"}:
                detail += "; a lease would stop them: --lease 1s"
            return replace(blank, outcome=MetricOutcome.FAILED, detail=detail, stopped="abort")
        if self.compiled.plan.time == "real":
            took = [each.took_ms for each in view.switches if not each.on][-1]
            known = took is not None
            detail = f"obeyed after {took:.1f} ms over loopback (measured)" if known else "not awaited in the outage"
            return replace(blank, detail=f"{detail}; no pause punched after it")
        return self._obeyed_in_time(blank, drill)

    def _obeyed_in_time(self, blank: StepResult, drill: KillSwitch) -> StepResult:
        """By the given distribution, computed: of the last node where the plan says how many there are."""
        plan, limit = self.compiled.plan, drill.max_propagation
        seconds, nodes, origin = obeyed(plan).quantile(drill.percentile / 100), nodes_of(plan), plan.propagation.origin
        of = "propagation" if nodes == 1 else f"propagation to the last of {nodes:,} nodes"
        if seconds is None:
            detail = f"p{drill.percentile:g} of {of} is unknown: give propagation.most"
            return replace(blank, outcome=MetricOutcome.INCONCLUSIVE, detail=detail, stopped="wait")
        detail = f"p{drill.percentile:g} of {of} {seconds:.3g} s ({origin}), {format_duration(limit)} allowed"
        if seconds > limit:
            return replace(blank, outcome=MetricOutcome.FAILED, detail=detail, stopped="abort")
        return replace(blank, detail=f"{detail}; no pause punched once it was obeyed")


def _by(exposure: Exposure) -> str:
    """`rule 8a52a8b4-0002 477, target 1`."""
    return ", ".join(f"{part} {count}" for part, count in exposure.reasons.items())


def _stop(bad: Sequence[MetricResult]) -> Literal["abort", "wait"] | None:
    """The strongest of what the metrics ask for; an inconclusive one never aborts: it waits, as in Argo Rollouts."""
    asked = {
        "wait"
        if each.outcome is MetricOutcome.INCONCLUSIVE and each.metric.on_failure == "abort"
        else each.metric.on_failure
        for each in bad
    }
    return "abort" if "abort" in asked else "wait" if "wait" in asked else None


def kills(flag: str, safe: bool, entries: Sequence[Entry], now: float, allowed: Sequence[float]) -> list[KillSwitchUse]:
    """Every time a flag was turned to its safe value for all; `allowed` seconds in order, the last for the rest."""
    changes = [(each.t, each.event) for each in entries if isinstance(each.event, events.FlagSet)]
    sets = [(t, change.value) for t, change in changes if change.flag == flag]
    ends = [t for t, _ in sets[1:]] + [now]
    thrown = [(t, end) for (t, value), end in zip(sets, ends, strict=False) if value is safe]
    return [KillSwitchUse(t, end, allowed[min(place, len(allowed) - 1)]) for place, (t, end) in enumerate(thrown)]


def asserted(blank: StepResult, step: Assert, drill: Drill) -> StepResult:
    """The invariant as its rule has seen it up to now."""
    finding = drill.findings[step.invariant]
    if finding.violations:
        reason = finding.violations[0]
        detail = f"{step.invariant} is violated: {reason['sandbox']}: {reason['reason']}"
        return replace(blank, outcome=MetricOutcome.FAILED, detail=detail, stopped="abort")
    if not finding.checked:
        detail = f"nothing exercised {step.invariant} yet; it is judged at the end"
        return replace(blank, detail=detail)
    return replace(blank, detail=f"{step.invariant} held, checked {words.times(finding.checked)}")


def label(step: PlanStep) -> str:
    """A step as the plan says it, in few words."""
    match step:
        case SetWeight(weight=weight):
            return f"setWeight {weight:g} %"
        case PlanWait(duration=seconds):
            return f"wait {format_duration(seconds)}"
        case Analysis(count=count):
            return "analysis" if count == 1 else f"analysis, {count} times"
        case DrillStep():
            return "drill killSwitch"
        case Assert(invariant=invariant):
            return f"assert {invariant}"
    return step.kind if step.kind in {"approve", "clear"} else f"{step.kind} {getattr(step, 'fault', '')}"


def shown(result: MetricResult) -> str:
    """A metric's last value with its unit, and its interval where it has one."""
    last = result.measurements[-1] if result.measurements else None
    text = value_text(result.metric.name, result.value)
    return text if last is None or last.low is None else f"{text} ({last.low:.2f}-{last.high:.2f})"


def value_text(name: str, value: float | None) -> str:
    """`99.2 %`, `1.3x`, `3`, `12.0 MiB`, `0.4 s`."""
    from sim.files.metrics import MEASURES

    if value is None:
        return "unknown"
    match MEASURES[name].unit:
        case "share":
            return f"{value * 100:.4g} %"
        case "ratio":
            return f"{value:.2f}x"
        case "bytes":
            return ("-" if value < 0 else "") + words.size(abs(int(value)))
        case "seconds":
            return f"{value:.3g} s"
    return f"{value:g}"
