from __future__ import annotations

import pathlib
from collections.abc import Callable
from fractions import Fraction

import pytest

from flags.document import DocumentError
from sim.files.plan import Plan, load_plan
from sim.rollout.outputs import rehearsal_document
from sim.rollout.production import production
from sim.rollout.results import Rehearsal
from sim.rollout.sections import first_page, report
from sim.rollout.stretch import Figures, PauseCost, Pools

Made = Callable[..., Rehearsal]
MIB = 1 << 20
FLEET = """\
kind: fleet
name: ours
scale: 1/64
node: {memory: 8GiB, sandboxes: 10, concurrency: 2}
groups:
  - {name: web, count: 1000, memory: 512MiB, dirty: 50%, pauses_per_hour: {median: 1, peak: 6}}
"""
PLAN = """\
kind: plan
name: ours
fleet: fleet.yaml
steps:
  - setWeight: 0
  - setWeight: 10
"""
OFF = Figures(
    asked=10, costs=(PauseCost("a", 0, 0.0, False, False, peak_over=4 * MIB),), pools=Pools(both=100 * MIB, samples=9)
)
ON = Figures(
    asked=10, punched=("a", "b"), punched_pauses=2, punched_bytes=MIB,
    costs=(PauseCost("a", 0, 0.0, True, True, peak_over=3 * MIB),), pools=Pools(both=80 * MIB, samples=9),
)  # fmt: skip


@pytest.fixture
def plan(tmp_path: pathlib.Path) -> Plan:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return load_plan(tmp_path / "plan.yaml")


def test_the_fleet_file_gives_the_plan_its_groups_its_node_its_load_and_production(plan: Plan) -> None:
    assert (len(plan.sandboxes()), plan.fleet[0].memory, plan.node.memory) == (10, 8 * MIB, 128 * MIB)
    assert (plan.pacing.concurrency, plan.pacing.pauses_per_minute) == (2, 1.0)
    assert plan.production is not None
    assert (plan.production.sandboxes, plan.production.pauses_per_minute) == (1000, 100.0)


def test_what_the_plan_says_itself_stays(plan: Plan) -> None:
    plan.path.write_text(PLAN + "pacing: {concurrency: 7}\nnode: {memory: 1GiB}\n")
    found = load_plan(plan.path)
    assert (found.pacing.concurrency, found.pacing.pauses_per_minute, found.node.memory) == (7, 1.0, 1 << 30)


def test_results_are_told_in_productions_units_with_how_each_is_known(plan: Plan, rehearsed: Made) -> None:
    made = production(rehearsed(plan, ON, OFF))
    assert made is not None
    assert made.scaled.fleet.scale == Fraction(1, 64)
    fleet, node = ({each.label: each for each in part} for part in (made.stages[1].fleet, made.stages[1].node))
    assert (fleet["exposed"].value, fleet["exposed"].known) == (100, "derived")
    assert (fleet["punched"].value, fleet["punched"].note) == (200, "measured 2 of 10 rehearsed")
    assert fleet["discarded"].note == "measured 0 of 10 rehearsed"  # a bound is of the exposed, never of the fleet
    assert (node["peak, flag off"].value, node["peak, flag on"].value) == (6400 * MIB, 5120 * MIB)
    assert (node["peak, flag on"].known, node["peak, flag on"].note) == ("derived", "measured at 1/64")
    assert node["saved at peak"].value == (4 * 64 - 3) * MIB  # what a pause that punches needs does not scale
    assert "propagation" in {each.label for each in made.assumed}


def test_terminal_page_and_document_all_tell_them(plan: Plan, rehearsed: Made) -> None:
    made = rehearsed(plan, ON, OFF)
    text, page, document = " ".join(report(made).split()), first_page(made), rehearsal_document(made)["production"]
    assert "In production: 1,000 sandboxes on 100 nodes (given); rehearsed were 10, one node's, at 1/64" in text
    assert "peak, flag on" in text
    assert "| 10 % | a node | peak, flag on | 5.0 GiB | derived | measured at 1/64 |" in page
    assert document["stages"][1]["node"]["peak, flag on"] == {
        "value": 5120 * MIB, "unit": "bytes", "known": "derived", "note": "measured at 1/64",
    }  # fmt: skip


def test_a_stage_without_a_pause_has_no_peak(plan: Plan, rehearsed: Made) -> None:
    made = production(rehearsed(plan))
    assert made is not None
    assert [each.value for each in made.stages[0].node[:2]] == [None, None]


def test_a_plan_with_a_fleet_of_its_own_has_nothing_to_scale(rehearsed: Made, tmp_path: pathlib.Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN.replace("fleet.yaml", "[{name: web, memory: 1MiB}]"))
    made = rehearsed(load_plan(tmp_path / "plan.yaml"))
    assert production(made) is None
    assert "In production:" not in report(made)


def test_a_mistake_of_the_fleet_file_is_told_at_the_plans_line_beside_the_plans_own(plan: Plan) -> None:
    (plan.path.parent / "fleet.yaml").write_text(FLEET.replace("scale: 1/64", "scale: 2"))
    plan.path.write_text(PLAN + "sed: 1\n")
    with pytest.raises(DocumentError) as error:
        load_plan(plan.path)
    fleet, own = str(error.value).splitlines()
    assert fleet.startswith(
        f"{plan.path}:3:8: error: fleet: its file is not sound: {plan.path.parent}/fleet.yaml:3:8: "
    )
    assert own == f'{plan.path}:7:1: error: sed: unknown key; did you mean "seed"?'
