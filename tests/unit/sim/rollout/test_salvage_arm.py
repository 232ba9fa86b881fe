from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.errors import UserError
from flags.document import DocumentError
from flags.inline import flag_from
from sim.files.faults import failing
from sim.files.plan import Plan, load_plan, load_plan_text
from sim.files.steps import Clear, Inject, PauseStep
from sim.node.armed_faults import Fault
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report.table import text
from sim.rollout.arm_losses import ArmLoss, Salvaged, ThreeArms
from sim.rollout.compiled import compiled
from sim.rollout.identity import asked
from sim.rollout.outputs import memory, rehearsal_document, rehearsal_page
from sim.rollout.rehearsal_diff import compare_rehearsals
from sim.rollout.rehearse import decided
from sim.rollout.results import Rehearsal
from sim.rollout.salvage_arm import check_salvage_arm, with_salvage
from sim.rollout.salvage_section import three_arms_section
from sim.rollout.sections import first_page, report
from tests.story import judged

Made = Callable[..., Rehearsal]
MIB = 1 << 20
ROLLOUTS = pathlib.Path(__file__).parents[4] / "scenarios" / "rollouts"
SMALL = """\
kind: plan
name: small
salvageArm: true
fleet:
  - {name: web, count: 4, memory: 1MiB}
steps:
  - setWeight: 0
  - setWeight: 50
"""
SALVAGED = Salvaged(("web-0", "web-1"), 2, 2, ("web-0", "web-1"), 3 * MIB, 2 * MIB, 1.5, 2.25, 0, {})


def plan(written: str = SMALL) -> Plan:
    return load_plan_text(written, pathlib.Path("plan.yaml"))


WHOLE = ArmLoss(12, (), 7 * MIB)


def arms(run: StoredRun, salvage: ArmLoss = WHOLE, found: Salvaged = SALVAGED) -> ThreeArms:
    return ThreeArms(ArmLoss(12, (), 6 * MIB), ArmLoss(11, ("web-0", "web-1"), 5 * MIB), salvage, found, run)


@pytest.fixture
def made(rehearsed: Made) -> Rehearsal:
    whole = rehearsed(plan(), reasons=("why",))
    return replace(whole, three=arms(whole.on))


def test_the_section_compares_losses_and_memory_of_three_arms_at_80_columns(made: Rehearsal) -> None:
    assert text([three_arms_section(made)], width=80).splitlines() == [
        "The flag off, on, and on with salvage",
        "  measured, as far as the arm with the flag on went; injected failures are no",
        "  rate of failures",
        "  flag              pauses  sandboxes lost  node's memory at its peak",
        "  off                   12               0                    6.0 MiB",
        "  on                    11               2                    5.0 MiB",
        "  on, with salvage      12               0                    7.0 MiB",
        "  - stranded builds: 2, of which 2 were completed (2 sandboxes); 3.0 MiB of",
        "    those were in the memory of dead guests alone",
        "  - stranded memory was at most 2.0 MiB at once, and was held for 2.25 s in all,",
        "    1.5 s the longest (of this machine's time)",
        "  - sandboxes with failed copies: 2, of which 0 were lost with salvage: < 77.7 %",
        "    at 95 %, of this engine, here (derived)",
        "  - a lost sandbox holds no memory: that salvaged ones live on is a part of the",
        "    peak with salvage",
    ]


def test_what_was_not_salvaged_or_is_still_stranded_is_said(made: Rehearsal) -> None:
    found = Salvaged(("web-0", "web-1"), 1, 0, (), 0, MIB, 9.0, 9.0, 1, {"torn": 1})
    said = text([three_arms_section(replace(made, three=arms(made.on, ArmLoss(9, ("web-1",), 0), found)))], width=200)
    assert "1 still stranded as the run ended: not lost, and not completed" in said
    assert "1 discarded, because it could not be salvaged: torn" in said
    assert "sandboxes with failed copies: 2, of which 1 were lost with salvage: < 97.5 %" in said


def test_an_arm_in_which_no_copy_failed_claims_nothing(made: Rehearsal) -> None:
    nothing = Salvaged((), 0, 0, (), 0, 0, 0.0, 0.0, 0, {})
    said = text([three_arms_section(replace(made, three=arms(made.on, found=nothing)))], width=200)
    assert "nothing of salvage was exercised" in said
    assert "failed copies: " not in said


def test_after_an_approval_the_section_says_that_it_begins_there(made: Rehearsal) -> None:
    assert "since the approval" not in text([three_arms_section(made)], width=200)
    assert "since the approval" in text([three_arms_section(replace(made, continues=made.folder))], width=200)


def test_a_plan_without_the_arm_has_no_section_and_one_that_was_not_run_says_why(made: Rehearsal) -> None:
    assert "not run: the arm with the flag on was cut off" in text([three_arms_section(replace(made, three=None))])
    without = replace(made, three=None, plan=plan(SMALL.replace("salvageArm: true\n", "")))
    assert text([three_arms_section(without)]) == ""


def test_terminal_markdown_html_and_json_have_the_same_figures(made: Rehearsal) -> None:
    for page in (report(made), first_page(made), rehearsal_page(made)):
        assert "on, with salvage" in page
        assert "7.0 MiB" in page
    document = json.loads(json.dumps(rehearsal_document(made)))
    assert document["salvage_arm"]["on"] == {"pauses": 11, "lost": ["web-0", "web-1"], "peak": 5 * MIB}
    assert document["salvage_arm"]["salvaged"]["bytes"] == 3 * MIB
    assert document["origins"]["salvage_arm"] == "measured"
    assert set(document["runs"]) == set(document["folders"]) == {"on", "off", "salvage"}


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (judged("bytes_exact", "violated", 1, {"sandbox": "web-0", "reason": "page 3 differs"}), "no-go"),
        (events.Judged("deadline:pause", "inconclusive", 0, [{"sandbox": "*", "reason": "late"}]), "inconclusive"),
        (judged("no_unpublished", "inconclusive", 0), "go"),  # what an arm did not exercise, the plan did not ask of it
    ],
)
def test_the_third_arm_can_prevent_a_go_and_never_makes_one(
    found: events.Judged, decision: str, made: Rehearsal
) -> None:
    run = StoredRun(made.on.path, [], replace(View(), judged=(found,)))
    with_it = decided(replace(made, three=arms(run)))
    assert with_it.decision == decision
    if decision != "go":
        assert with_it.reasons[0].startswith(
            f"with the flag on and salvage: {found.subject.removeprefix('invariant:')}: "
        )
    # what the arm with the flag on violated stays a no-go, however well the third one did
    violated = judged("never_resumed", "violated", 1, {"sandbox": "web-0", "reason": "it ran"})
    against = StoredRun(made.on.path, [], replace(View(), judged=(violated,)))
    assert decided(replace(made, on=against, three=arms(made.on))).decision == "no-go"


def test_a_go_does_not_deny_the_losses_that_its_metrics_allow(made: Rehearsal) -> None:
    stages = tuple(replace(each, lost_by_flag=("web-0",)) for each in made.stages)
    assert any(
        each.endswith("1 sandbox was lost because of the flag: the plan's metrics allow that")
        for each in (decided(replace(made, stages=stages)).reasons)
    )


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("engine: {on_copy_failure: salvage}", "engine salvages in every arm"),
        ("flags: {memfd-salvage-on-failure: true}", "is served it decides in every arm"),
        ("flag: memfd-salvage-on-failure", "is served it decides in every arm"),
        ("time: real\nflags: {source: launchdarkly}", "is followed by one arm only"),
    ],
)
def test_an_arm_that_would_show_nothing_is_a_mistake_at_its_line(added: str, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        plan(f"{added}\n{SMALL}")
    line = 4 + added.count("\n")
    assert any(
        each.startswith(f"plan.yaml:{line}:13: error: salvageArm:") and said in each
        for each in str(caught.value).splitlines()
    )
    asked_for = plan(f"{added}\n{SMALL}".replace("salvageArm: true\n", "")).model_copy(update={"salvage_arm": True})
    with pytest.raises(UserError, match=r"the salvage arm of plan\.yaml: ") as refused:
        check_salvage_arm(asked_for)
    assert said in str(refused.value)


def test_a_flag_file_that_serves_salvage_decides_in_every_arm(tmp_path: pathlib.Path) -> None:
    key = "memfd-salvage-on-failure"
    (tmp_path / "flags.json").write_text(json.dumps({"flags": {key: flag_from(key, True)}}))
    written = f"flags: {{file: flags.json}}\n{SMALL}"
    with pytest.raises(UserError, match="is served it decides in every arm"):
        check_salvage_arm(load_plan_text(written, tmp_path / "plan.yaml"))


def test_the_third_arm_differs_from_the_second_in_its_engine_alone() -> None:
    second, third = compiled(plan()).scenario, compiled(with_salvage(plan())).scenario
    assert (second.engine.on_copy_failure, third.engine.on_copy_failure) == ("discard", "salvage")
    assert (second.steps, second.flags, second.seed, second.fleet) == (
        third.steps,
        third.flags,
        third.seed,
        third.fleet,
    )


def test_the_option_is_repeated_where_the_file_does_not_say_it() -> None:
    assert "--salvage-arm" not in asked(plan())
    without = plan(SMALL.replace("salvageArm: true\n", ""))
    assert asked(without.model_copy(update={"salvage_arm": True})).endswith(" --salvage-arm")


def test_the_shipped_plan_loses_the_sandboxes_that_its_seed_draws() -> None:
    """With the flag on a sandbox is lost at the first of its pauses that is drawn while the fault is armed."""
    shipped = load_plan(ROLLOUTS / "punch-salvage.yaml")
    nth, armed, lost = 0, False, set()
    (rate,) = (each.rate for each in shipped.steps if isinstance(each, Inject))
    fault = Fault(1, "copy.write", failing("ENOSPC"), "after_condemn", "*", rate=(rate or 0) / 100, seed=shipped.seed)
    for each in compiled(shipped).scenario.steps:
        nth += isinstance(each, PauseStep)
        armed = isinstance(each, Inject) or (armed and not isinstance(each, Clear))
        if armed and isinstance(each, PauseStep):
            lost |= {sandbox.name for sandbox in shipped.sandboxes() if fault.is_drawn(sandbox.name, nth)}
    assert lost == {"box-1", "box-4", "box-14"}


def test_two_rehearsals_are_compared_by_what_each_arm_lost(made: Rehearsal) -> None:
    first = rehearsal_document(made)
    second = rehearsal_document(replace(made, three=arms(made.on, ArmLoss(12, ("web-3",), 0))))
    found = {each.name: (each.first, each.second) for each in compare_rehearsals(first, second).lines if each.differs}
    assert found == {"lost in all, flag on with salvage": ("none", "web-3")}


def test_the_memory_of_the_third_arm_is_drawn_beside_the_others(made: Rehearsal) -> None:
    sample = Entry(0.0, events.MemorySampled(5 * MIB, MIB, 0, 0, 0), None, None)
    run = StoredRun(made.on.path, [sample], made.on.view)
    third, _budget = memory(replace(made, three=arms(run)), 2)
    assert (third["name"], third["y"]) == ("flag on, with salvage", [6.0])
