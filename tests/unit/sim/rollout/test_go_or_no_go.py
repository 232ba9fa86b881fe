from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sim.files.plan import Plan, load_plan_text
from sim.record.fold import Fold
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.record.verdict import TIME_LIMIT
from sim.rollout import compiled as turns
from sim.rollout.analysis import MetricOutcome
from sim.rollout.compiled import compiled, has_room_for_two
from sim.rollout.rehearse import decided
from sim.rollout.results import Rehearsal, StepResult, Weakness
from sim.rollout.simulated_nodes import A_GUEST
from sim.run.judging import INCONCLUSIVE, judged

Made = Callable[..., Rehearsal]
TEXT = """\
kind: plan
name: small
node: {memory: 1GiB}
fleet: [{name: web, count: 4, memory: 64MiB}]
steps:
  - setWeight: 0
"""


@pytest.fixture
def plan() -> Plan:
    return load_plan_text(TEXT, pathlib.Path("plan.yaml"))


def test_each_weakness_that_shows_is_a_reason_of_its_own_and_a_mended_one_is_none(plan: Plan, rehearsed: Made) -> None:
    shown = Weakness("leaks", "it leaks", "invariant:no_leaks", mended=False, shown=True)
    mended = Weakness("races", "it races", "invariant:never_resumed", mended=True, shown=False)
    found = decided(replace(rehearsed(plan), weaknesses=(shown, mended)))
    assert (found.decision, found.reasons) == ("no-go", ("weakness leaks: it leaks (caught by no_leaks)",))


def test_a_flag_off_arm_that_was_cut_off_makes_no_go_of_the_comparison(plan: Plan, rehearsed: Made) -> None:
    fold = Fold()
    reason = {"sandbox": "*", "reason": "the time limit of 3 s ended the run"}
    fold.apply([Entry(1.0, judged(TIME_LIMIT, INCONCLUSIVE, 0, (1, 1), [reason]), None, None)])
    made = rehearsed(plan)
    found = decided(replace(made, off=StoredRun(made.off.path, [], fold.view())))
    assert found.decision == "inconclusive"
    assert found.reasons[0].startswith("with the flag off: time-limit: the time limit of 3 s")
    assert decided(made).decision == "go"


def ended_with(made: StoredRun, subject: str, reason: str) -> StoredRun:
    fold = Fold()
    fold.apply([Entry(1.0, judged(subject, INCONCLUSIVE, 0, (1, 1), [{"sandbox": "*", "reason": reason}]), None, None)])
    return StoredRun(made.path, [], fold.view())


FAILED = StepResult(2, "analysis", "analysis", 10.0, MetricOutcome.FAILED, "lost is 1", 0.0, 0.0, stopped="abort")


@pytest.mark.parametrize("arm", ["on", "off"])
@pytest.mark.parametrize(("subject", "decision"), [("deadline:pause", "no-go"), ("host:ENOSPC", "inconclusive")])
def test_a_metric_that_failed_is_no_go_unless_the_host_failed_a_pause_of_either_arm(
    subject: str, decision: str, arm: str, plan: Plan, rehearsed: Made
) -> None:
    made = rehearsed(plan, steps=(FAILED,))
    changed: dict[str, Any] = {arm: ended_with(made.on, subject, "why it ended")}
    found = decided(replace(made, **changed))
    assert found.decision == decision
    assert "step 3 (analysis at 10 %): lost is 1" in found.reasons


@pytest.mark.parametrize("arm", ["on", "off"])
def test_a_missed_deadline_alone_is_inconclusive_with_what_was_awaited(arm: str, plan: Plan, rehearsed: Made) -> None:
    made = rehearsed(plan)
    why = "the step's deadline passed while box-0, box-1, box-2 and 617 more had not settled"
    changed: dict[str, Any] = {arm: ended_with(made.on, "deadline:pause", why)}
    found = decided(replace(made, **changed))
    assert found.decision == "inconclusive"
    before = "" if arm == "on" else "with the flag off: "
    assert found.reasons[0] == f"{before}deadline:pause: {why}"


@pytest.mark.parametrize(("free", "room"), [((1 << 30) + 8 * A_GUEST - 1, False), ((1 << 30) + 8 * A_GUEST, True)])
def test_arms_take_turns_where_the_host_has_room_for_both(
    free: int, room: bool, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "free_memory", lambda: free)  # each arm: 4 guests of 64 MiB, and their copies
    assert has_room_for_two(compiled(plan).scenario) is room


def test_huge_pages_must_be_there_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT.replace("memory: 64MiB", "memory: 64MiB, page_size: 2MiB")
    scenario = compiled(load_plan_text(text, pathlib.Path("plan.yaml"))).scenario
    monkeypatch.setattr(turns, "free_memory", lambda: 1 << 40)
    for free, room in ((512 << 20, True), (511 << 20, False)):
        monkeypatch.setattr(turns, "host", lambda free=free: {"hugetlb_free": free})
        assert has_room_for_two(scenario) is room


@pytest.mark.parametrize(
    ("added", "decision"), [("by: team", "no-go"), ("by: team\ncontexts: all", "go"), ("by: sandbox", "go")]
)
def test_a_rollout_by_a_kind_that_no_pause_knows_is_no_go(added: str, decision: str, rehearsed: Made) -> None:
    plan = load_plan_text(TEXT.replace("name: small", f"name: small\n{added}"), pathlib.Path("plan.yaml"))
    found = decided(rehearsed(plan))
    assert found.decision == decision
    if decision == "no-go":
        assert found.reasons[0].startswith("memfd-punch-on-snapshot is rolled out by team, and no context has")
