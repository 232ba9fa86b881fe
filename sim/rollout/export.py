"""The folder that --export writes: checklist, patches, records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.errors import UserError
from flags.edit import Place, instruction, variation_of
from sim.files.plan import Analysis, Approve, KillSwitchDrill, Plan, PlanWait, SetWeight
from sim.report.document import write_document
from sim.report.table import WIDTH, markdown_words
from sim.rollout.analysis import MetricOutcome
from sim.rollout.gates import shown
from sim.rollout.identity import beside, named_files
from sim.rollout.outputs import rehearsal_document
from sim.rollout.results import Rehearsal
from sim.rollout.sections import duration, first_page, report
from sim.rollout.stage_flags import exported, stage_flag, variation_ids

FIRST_PAGE = "README.md"
CHECKLIST = "checklist.md"
_RECORDS = ("scenario.yaml", "events.jsonl", "report.json", "report.html", "rehearsal.html", "junit.xml")


def export(found: Rehearsal, folder: Path) -> None:
    """Write the folder; UserError where it holds something already. Patches are there for a go alone."""
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"--export: {folder} is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(found.plan.source_text, encoding="utf-8")
    for said, path in named_files(found.plan):
        shutil.copyfile(path, folder / beside(said).name)
    write_document(folder / "rehearsal.json", rehearsal_document(found))
    (folder / "rehearsal.txt").write_text(report(found, width=WIDTH) + "\n", encoding="utf-8")
    third = [] if found.three is None else [("salvage", found.three.run)]
    for name, run in (("flag-on", found.on), ("flag-off", found.off), *third):
        (folder / name).mkdir()
        for record in _RECORDS:
            if (run.folder / record).is_file():
                shutil.copyfile(run.folder / record, folder / name / record)
    if found.decision == "go":
        _write_patches(found, folder / "launchdarkly")
        (folder / CHECKLIST).write_text("\n".join(_checklist(found)) + "\n", encoding="utf-8")
    (folder / FIRST_PAGE).write_text(first_page(found), encoding="utf-8")


def _write_patches(found: Rehearsal, folder: Path) -> None:
    folder.mkdir()
    weights = [each.stage.weight for each in found.stages]
    for number, (weight, forward, back) in enumerate(stage_patches(found.plan, weights), 1):
        _write_json(folder / f"stage-{number}-{weight:g}-percent.json", forward)
        _write_json(folder / f"stage-{number}-inverse.json", back)
    _write_json(folder / "kill-switch.json", kill_patch(found.plan))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _checklist(found: Rehearsal) -> Iterator[str]:
    """What an operator does, in order, with the gate of each stage as it was rehearsed."""
    yield f"# {markdown_words(found.plan.name)}: operator's checklist"
    yield ""
    known = exported(found.plan)
    has_ids = known is not None and variation_ids(found.plan).complete(known)
    ids = "" if has_ids else " and VARIATION_ID_OF_... (the flag file has no ids beside it)"
    yield f"- [ ] replace PROJECT and ENVIRONMENT{ids} in `launchdarkly/*.json`"
    if known is None:
        yield "- [ ] the safe variation is the off variation, and listed first"
    yield "- [ ] a second person has `launchdarkly/kill-switch.json` ready to send"
    for number, stage in enumerate(found.stages, 1):
        weight = stage.stage.weight
        yield ""
        yield f"## Stage {number}: {weight:g} %"
        yield f"- [ ] send `launchdarkly/stage-{number}-{weight:g}-percent.json`"
        first = str(found.plan.safe).lower()
        order = (
            f"the default rule lists {first} first" if known is None else "the variations are in the order as before"
        )
        yield f"- [ ] {order}: in another order others are exposed than were rehearsed"
        for index in stage.stage.steps:
            step = found.plan.steps[index]
            match step:
                case PlanWait(duration=seconds):
                    yield f"- [ ] wait {duration(seconds)}"
                case Analysis():
                    yield from (f"- [ ] {markdown_words(each)}" for each in _asked(found, index))
                case Approve():
                    yield "- [ ] a person approves"
                case KillSwitchDrill():
                    yield "- [ ] throw the kill switch once, see that no sandbox is punched, and send the stage again"
        yield f"- [ ] else: send `launchdarkly/stage-{number}-inverse.json`; what was punched stays punched"


def _asked(found: Rehearsal, index: int) -> list[str]:
    result = next(each for each in found.steps if each.index == index)
    return [
        f"{each.metric.name}: {each.metric.success_condition or f'not {each.metric.failure_condition}'}"
        f" (rehearsed: {shown(each)})"
        for each in result.metrics
        if each.counts and each.outcome is MetricOutcome.SUCCESSFUL
    ]


WHOLE = 100_000


def variation_id(value: bool) -> str:
    """What stands for a variation's id, which only your LaunchDarkly environment knows."""
    return f"VARIATION_ID_OF_{str(value).upper()}"


def weight_patch(plan: Plan, weight: float, comment: str) -> dict[str, Any]:
    """Serve the destructive variation to `weight` percent.

    A map has no order that is promised, and the order of the weighted variations draws the cohort: the checklist has it
    looked at.
    """
    share = round(weight * 1000)
    weights = {variation_id(plan.safe): WHOLE - share, variation_id(not plan.safe): share}
    instruction = {
        "kind": "updateFallthroughVariationOrRollout",
        "rolloutContextKind": plan.by,
        "rolloutWeights": weights,
    }
    return _patch([{"kind": "turnFlagOn"}, instruction], comment)


def kill_patch(plan: Plan) -> dict[str, Any]:
    """The kill switch: the safe variation for every context, whatever the off variation was before."""
    known = exported(plan)
    safe = variation_id(plan.safe)
    if known is not None:
        safe = variation_ids(plan).of(known, variation_of(known, plan.safe))
    instructions = [{"kind": "updateOffVariation", "variationId": safe}, {"kind": "turnFlagOff"}]
    return _patch(instructions, f"Kill switch of {plan.name}: what was punched stays punched")


def stage_patches(plan: Plan, weights: Sequence[float]) -> list[tuple[float, dict[str, Any], dict[str, Any]]]:
    """(weight, forward, inverse) of each stage; the inverse of the first is the kill switch."""
    if exported(plan) is not None:
        return _edits(plan, weights)
    made = []
    for number, weight in enumerate(weights):
        forward = weight_patch(plan, weight, f"{plan.name}, stage {number + 1}: {weight:g} %")
        back = kill_patch(plan)
        if number:
            before = weights[number - 1]
            back = weight_patch(plan, before, f"{plan.name}: stage {number + 1} taken back, to {before:g} %")
        made.append((weight, forward, back))
    return made


def _edits(plan: Plan, weights: Sequence[float]) -> list[tuple[float, dict[str, Any], dict[str, Any]]]:
    """The edits of the user's own flag, each with the one that takes it back."""
    known, ids = exported(plan) or {}, variation_ids(plan)
    rules = [each.rule for each in plan.steps if isinstance(each, SetWeight)]
    edits = list(zip(weights, rules, strict=False))
    made = []
    for number, (weight, rule) in enumerate(edits, 1):
        after, place = stage_flag(plan, edits[:number]), Place(rule, plan.by)
        before = stage_flag(plan, edits[: number - 1]) if number > 1 else known
        forward = [{"kind": "turnFlagOn"}] if number == 1 and plan.turn_on else []
        forward.append(instruction(after, place, ids))
        said = f"{plan.name}, stage {number}: {weight:g} % of {place}"
        back = [instruction(before, place, ids)]
        taken_back = f"{plan.name}: stage {number} taken back; what was punched stays punched"
        made.append((weight, _patch(forward, said), _patch(back, taken_back)))
    return made


def _patch(instructions: list[dict[str, Any]], comment: str) -> dict[str, Any]:
    return {"environmentKey": "ENVIRONMENT", "comment": comment, "instructions": instructions}
