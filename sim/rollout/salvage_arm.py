"""The third arm of a rehearsal: the steps, the seed and the faults of the one with the flag on, with salvage."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import UserError
from sim.files.checks import why_no_salvage_arm
from sim.files.plan import Plan
from sim.files.steps import Clear, Salvage, Step
from sim.record.folder import StoredRun, point_latest_at
from sim.record.verdict import is_cut_off
from sim.report import judgements
from sim.rollout.arm_losses import ThreeArms, three_arms
from sim.rollout.compiled import compiled
from sim.rollout.gates import Gates
from sim.rollout.stage_flags import file_document
from sim.run.drill import Drill
from sim.run.runner import Progress, RunOptions, run_scenario


def check_salvage_arm(plan: Plan) -> None:
    """UserError where a third arm would show nothing: of the command line's, or of a flag file that serves the flag."""
    if not plan.salvage_arm:
        return
    served = {plan.flag, *plan.flag_values, *(file_document(plan).get("flags") or {})}
    if why := why_no_salvage_arm(plan.engine.on_copy_failure, served, plan.flag_source):
        raise UserError(f"the salvage arm of {plan.path}: {why}")


def with_salvage(plan: Plan) -> Plan:
    """The same plan, whose engine salvages what a failed copy leaves."""
    return plan.model_copy(update={"engine": plan.engine.model_copy(update={"on_copy_failure": "salvage"})})


async def salvage_arm(
    gates: Gates, off: StoredRun, on: StoredRun, options: RunOptions, progress: Progress, after: int
) -> ThreeArms | None:
    """Run it as far as the arm with the flag on went, and compare all three; None where that one was cut off.

    At its end faults are cleared, and what is still stranded is copied once more. The latest run
    stays the one with the flag on.
    """
    if any(is_cut_off(each.name) for each in judgements.failed(on.view)):
        return None
    made = compiled(with_salvage(gates.compiled.plan), after=after)
    last, instead = gates.end or (len(made.scenario.steps) - 1, [])

    async def gate(index: int, _drill: Drill) -> Sequence[Step] | None:
        return [*instead, Clear(), Salvage(allow_empty=True)] if index == last else None

    def before(step: str) -> None:
        progress(f"with salvage {step}")

    run = await run_scenario(made.scenario, options, before, gate)
    point_latest_at(on.folder)
    return three_arms(made.plan.flag, off, on, run, None if gates.end is None else last)
