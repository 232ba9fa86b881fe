from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from sim.files.plan import Plan, load_plan_text
from sim.record.fold import Fold
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.record.verdict import TIME_LIMIT
from sim.rollout import compiled as turns
from sim.rollout.compiled import compiled, has_room_for_two
from sim.rollout.rehearse import decided
from sim.rollout.results import Rehearsal, Weakness
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
