from __future__ import annotations

import pathlib
from typing import Any

import pytest

from sim.files.demand import Bound, Demand
from sim.files.figures import percent
from sim.files.plan import Plan, load_plan_text
from sim.files.yaml import scenario_text
from sim.rollout.compiled import compiled
from sim.rollout.exposure import Exposure
from sim.rollout.shown import bake, even_rates, incidents, loss_bound, needs, nodes_of, obeyed, parts

HALF = Demand(lost_because_of_the_flag=Bound(0.005, 0.95), at=50)


def plan(**more: Any) -> Plan:
    document = {
        "kind": "plan",
        "name": "small",
        "production": {"sandboxes": 20_000, "pausesPerMinute": 400},
        "fleet": [{"name": "box", "count": 4, "memory": "1MiB"}],
        "metrics": [{"name": "lost", "failureCondition": "result > 0"}],
        "steps": [{"setWeight": 0}, {"setWeight": 10}, {"wait": {"for": "10m"}}, {"analysis": {}}, {"setWeight": 50}],
    } | more
    return load_plan_text(scenario_text(document), pathlib.Path("plan.yaml"))


def exposed(weight: float, *names: str) -> Exposure:
    return Exposure(weight, names, len(names), 1000, (), ())


def test_the_bound_counts_each_sandbox_once_over_the_stages_up_to_the_demand() -> None:
    stages = [exposed(1, "a"), exposed(50, "a", "b", "c"), exposed(100, "a", "b", "c", "d")]
    found = loss_bound(HALF, stages, ["a", "b", "a", "d", "nobody"], ["c", "d"])
    assert (found.planned, found.tried, found.lost) == (3, 3, 1)
    assert loss_bound(None, stages, ["a", "d"], []).planned == 4


def test_a_demand_is_met_by_598_and_short_by_one_less() -> None:
    names = [f"s{n}" for n in range(598)]
    assert loss_bound(HALF, [exposed(50, *names)], names, []).is_met
    short = loss_bound(HALF, [exposed(50, *names)], names[1:], [])
    assert not short.is_met
    assert short.short == (
        "demand < 0.5 % at 95 %: needs 598 distinct exposed sandboxes, has 597: < 0.501 % at 95 % (597 exposed, 0 lost)"
    )
    lost = loss_bound(HALF, [exposed(50, *names)], names, names[:1])
    assert "needs 947 distinct exposed sandboxes, has 598" in lost.short


def test_without_a_demand_what_was_shown_is_said_all_the_same() -> None:
    names = [f"s{n}" for n in range(15)]
    found = loss_bound(None, [exposed(100, *names)], names, [])
    assert (found.is_met, found.short) == (True, "")
    assert found.text == "< 18.2 % at 95 % (15 exposed, 0 lost)"
    assert needs(Bound(0.005, 0.95)) == "598, 947, 1,258 with 0, 1, 2 losses"


@pytest.mark.parametrize(
    ("share", "text"), [(0.18104, "18.2 %"), (0.18, "18 %"), (0.00482, "0.482 %"), (1.0, "100 %"), (0.03, "3 %")]
)
def test_a_bound_is_rounded_up_never_down(share: float, text: str) -> None:
    assert percent(share) == text


def test_the_clock_of_a_stage_begins_with_its_bake_and_says_how_each_part_is_known() -> None:
    made = compiled(plan(incident={"detection": "2m", "decision": {"measured": ["1m", "3m"]}}))
    found = parts(made.plan, made.stages[1])
    assert [(each.name, each.known, each.per_node) for each in found] == [
        ("bake", "given", False),
        ("detection", "given", False),
        ("decision", "measured", False),
        ("OFF, common", "assumed", False),
        ("OFF, each node", "assumed", True),
        ("in flight", "assumed", False),
    ]
    assert [bake(made.plan, each) for each in made.stages] == [0, 600, 0]


def test_a_stage_of_a_given_fleet_punches_as_its_rates_and_its_clock_say() -> None:
    """1,000 of 20,000 at 5 %; a pause each 3,000 s: in 600 + 300 + 300 s one in three is punched."""
    always = {"detection": "5m", "decision": "5m", "inFlight": "1ms", "lossRate": "1%"}
    steps = [{"setWeight": 5}, {"wait": {"for": "10m"}}, {"analysis": {}}]
    made = compiled(plan(incident=always, propagation={"measured": ["1ms"]}, steps=steps))
    (found,) = incidents(made.plan, made.stages, [even_rates(made.plan, 5)], 1, 0.01)
    assert found.exposed == 1000
    assert found.punched.mean == pytest.approx(1000 * (1 - 2.718281828**-0.4), rel=1e-4)
    assert found.lost is not None
    assert found.lost.mean == pytest.approx(10 * (1 - 2.718281828**-0.4), rel=1e-4)


def test_off_is_obeyed_when_the_last_node_of_production_obeys() -> None:
    many = plan(production={"sandboxes": 9, "pausesPerMinute": 1, "nodes": 1008})
    assert (nodes_of(plan()), nodes_of(many)) == (1, 1008)
    assert obeyed(plan()).quantile(0.5) == 0.2
    assert obeyed(many).quantile(0.5) == pytest.approx(28.3, abs=0.05)
