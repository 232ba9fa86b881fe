"""The third arm on a rehearsal's page: what each arm lost, what was salvaged, and what that costs in memory."""

from __future__ import annotations

from sim.files.figures import percent
from sim.record.verdict import is_cut_off
from sim.report import judgements, words
from sim.report.table import Bullets, Section, Table
from sim.rollout.arm_losses import Salvaged, ThreeArms
from sim.rollout.bounds import upper_bound
from sim.rollout.results import Rehearsal


def three_arms_section(found: Rehearsal) -> Section:
    """Empty where the plan has no such arm."""
    title = "The flag off, on, and on with salvage"
    if not found.plan.salvage_arm:
        return Section("", ())
    if found.three is None:
        why = "the arm with the flag on was cut off, so there is nothing to compare one with salvage with"
        return Section(title, (Bullets([f"not run: {why}"]),))
    three = found.three
    arms = (("off", three.off), ("on", three.on), ("on, with salvage", three.salvage))
    rows = [(name, str(arm.pauses), str(len(arm.lost)), words.size(arm.peak)) for name, arm in arms]
    table = Table(("flag", "pauses", "sandboxes lost", "node's memory at its peak"), rows, "<>")
    note = "measured, as far as the arm with the flag on went; injected failures are no rate of failures"
    note = note if found.continues is None else f"{note}; since the approval"
    return Section(title, (table, Bullets([*_cut_off(three), *_salvaged(three.salvaged), *_limits(three)])), note)


def _cut_off(three: ThreeArms) -> list[str]:
    if not any(is_cut_off(each.name) for each in judgements.failed(three.run.view)):
        return []
    return ["the arm with salvage was cut off: its figures are of a part of the plan"]


def _salvaged(found: Salvaged) -> list[str]:
    """What became of the copies that failed past the point of no return."""
    if not found.failed:
        return ["no copy failed past the point of no return with salvage on: nothing of salvage was exercised"]
    whose = f"of which {found.completed} were completed ({words.plural(len(found.sandboxes), 'sandbox', 'sandboxes')})"
    alone = f"{words.size(found.bytes)} of those were in the memory of dead guests alone"
    said = [f"stranded builds: {found.stranded}, {whose}; {alone}"]
    if found.left:
        said.append(f"{found.left} still stranded as the run ended: not lost, and not completed")
    said += [
        f"{count} discarded, because it could not be salvaged: {code}" for code, count in found.not_salvaged.items()
    ]
    if found.stranded:
        times = f"{found.seconds:.3g} s in all, {found.longest:.3g} s the longest (of this machine's time)"
        said.append(f"stranded memory was at most {words.size(found.at_once)} at once, and was held for {times}")
    return said


def _limits(three: ThreeArms) -> list[str]:
    failed = three.salvaged.failed
    if not failed:
        return []
    lost = len(set(failed) & set(three.salvage.lost))
    of = f"sandboxes with failed copies: {len(failed)}, of which {lost} were lost with salvage"
    said = [f"{of}: < {percent(upper_bound(lost, len(failed)))} at 95 %, of this engine, here (derived)"]
    if len(three.on.lost) > len(three.salvage.lost):
        said.append("a lost sandbox holds no memory: that salvaged ones live on is a part of the peak with salvage")
    return said
