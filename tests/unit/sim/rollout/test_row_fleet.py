"""The forecast of a table: its own sums, its own nodes, and what a simulation of single events says of them."""

from __future__ import annotations

import bisect
import json
import pathlib
import random
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from sim.cli import main
from sim.files.plan import Plan, load_plan_text
from sim.files.yaml import scenario_text
from sim.record.verdict import ExitCode
from sim.rollout.bench_report import Calibration, Cost
from sim.rollout.costs import Costs
from sim.rollout.forecast_source import ForecastSource
from sim.rollout.row_fleet import row_source
from sim.rollout.simulation import Load, Simulated, Simulation, _already_paused, demand
from sim.rollout.user_fleet import of_plan
from tests.node_by_events import OneNode
from tests.production_fleet import Sandbox, as_csv, flags, production_fleet

HOURS = 6


@lru_cache(1)
def fleet() -> list[Sandbox]:
    return production_fleet(800)


def plan(folder: pathlib.Path, **more: Any) -> Plan:
    """About 40 sandboxes on a node: nodes of a cluster are put together."""
    lines = [line.split(",") for line in as_csv(fleet()).split()]
    for cells in lines[1:]:
        cells[3] = f"{cells[2]}-n{int(cells[3][-3:]) % 2}"
    (folder / "fleet.csv").write_text("\n".join(",".join(cells) for cells in lines))
    (folder / "own.json").write_text(json.dumps(flags(safe_first=True)))
    document = {
        "kind": "plan", "name": "own", "fleet": "fleet.csv", "contexts": "all", "flags": {"file": "own.json"},
        "steps": [{"setWeight": 0}, {"setWeight": 25}, {"setWeight": 100}, {"wait": {"for": "10m"}}],
    }  # fmt: skip
    made = load_plan_text(scenario_text(document | more), folder / "plan.yaml")
    (folder / "plan.yaml").write_text(made.source_text)
    return made


def taking(seconds: float) -> Costs:
    """Every pause takes so long."""
    cost = {"cache": "disk", "fixed_ms": seconds * 1e3, "ms_per_gib": 1e-6, "peak_over": 4 << 20}
    made = [
        Cost.model_validate({**cost, "page_size": page, "punch": punch})
        for page in (4096, 2 << 20)
        for punch in (False, True)
    ]
    when = "2026-05-01T00:00:00+00:00"
    return Costs(Calibration(kind="calibration", made_at=when, host={}, size=1, rounds=1, costs=tuple(made)))


def simulated(start: ForecastSource, costs: Costs, seed: int = 1) -> Simulated:
    assert start.rows is not None
    of = start.rows
    return Simulation(of.fleet, start.fleet, costs, on=of.arms.on, seed=seed, stretches=(300.0,)).run(HOURS)


def test_a_table_is_forecast_by_its_own_sums_nodes_and_exposures(tmp_path: pathlib.Path) -> None:
    made = plan(tmp_path)
    start = row_source(made, None)
    assert start.rows is not None
    rows, totals = fleet(), {each.label: each.value for each in start.rows.totals}
    memory = sum(each.memory_mib for each in rows) << 20
    assert (totals["sandboxes"], totals["nodes"], totals["memory"]) == (800, 24, memory)
    assert totals["dirty"] == pytest.approx(sum((each.memory_mib << 20) * each.dirty for each in rows))
    assert totals["pauses an hour"] == pytest.approx(sum(each.pauses_per_hour for each in rows))
    _, exposed = of_plan(made)
    assert exposed is not None
    assert start.rows.arms.labels == ("off", "0 %", "25 %", "100 %")
    assert start.rows.arms.on.sum(axis=1).tolist() == [0, *(each.count for each in exposed.exposures)]
    found = simulated(start, Costs())
    assert found.pauses / HOURS == pytest.approx(totals["pauses an hour"], rel=0.06)


@pytest.mark.parametrize("seconds", [10.0, 60.0, 600.0])
def test_the_worst_moments_are_those_of_the_same_requests_event_by_event(
    tmp_path: pathlib.Path, seconds: float
) -> None:
    start, costs = row_source(plan(tmp_path), None, paused_for=seconds), taking(seconds)
    assert start.rows is not None
    virtual, on = start.rows.fleet, start.rows.arms.on
    found = simulated(start, costs)
    asks = Load(virtual, None, 1).asked(0.0, HOURS * 3600.0)
    back = _already_paused(virtual, seconds, 1)
    peaks, most, began = [], [], []
    for number in range(virtual.nodes):
        members = np.flatnonzero(virtual.node == number)
        mine = np.isin(asks.who, members)
        asked = list(zip(asks.who[mine].tolist(), asks.at[mine].tolist(), asks.pause[mine].tolist(), strict=True))
        away = {who: float(back[who]) for who in members.tolist() if np.isfinite(back[who])}
        alone = OneNode(demand(virtual, costs, "disk"), False, start.fleet.node.at_once, seconds, HOURS * 3600.0)
        alone.run(members.tolist(), asked, away)
        peaks.append(alone.peak)
        most.append(alone.most)
        began += alone.began
    assert found.peak[0] == pytest.approx(np.array(peaks))
    assert found.most_at_once.tolist() == most
    assert found.pauses == len(began)
    times = sorted([(at, 1) for _, at, _ in began] + [(end, -1) for _, _, end in began])
    assert found.fleet_at_once == max(np.cumsum([step for _, step in times]))
    mine_on = sorted(at for who, at, _ in began if on[-1][who])
    worst = max(bisect.bisect_left(mine_on, at + 300) - n for n, at in enumerate(mine_on))
    assert found.worst[300.0].sandboxes[-1] == worst


@pytest.mark.parametrize("seconds", [10.0, 60.0, 600.0])
def test_a_forecast_is_within_5_percent_of_a_simulation_with_draws_of_its_own(
    tmp_path: pathlib.Path, seconds: float
) -> None:
    start, costs = row_source(plan(tmp_path), None, paused_for=seconds), taking(seconds / 10)
    assert start.rows is not None
    virtual = start.rows.fleet
    found = simulated(start, costs)
    draw, asks = random.Random(5), demand(virtual, costs, "disk")
    nodes = []
    for number in range(virtual.nodes):
        members = np.flatnonzero(virtual.node == number).tolist()
        asked = []
        for who in members:
            at = draw.expovariate(virtual.rates[who] / 3600)
            while at < HOURS * 3600:
                asked.append((who, at, True))
                at += draw.expovariate(virtual.rates[who] / 3600)
        away = {}
        for who in members:
            share = virtual.rates[who] * seconds / 3600
            if draw.random() < share / (1 + share):
                away[who] = draw.random() * seconds
        node = OneNode(asks, False, start.fleet.node.at_once, seconds, HOURS * 3600.0)
        nodes.append(node.run(members, asked, away))
    assert found.pauses == pytest.approx(sum(len(each.began) for each in nodes), rel=0.05)
    assert found.peak[0].sum() == pytest.approx(sum(each.peak for each in nodes), rel=0.05)
    in_flight = sum(end - at for each in nodes for _, at, end in each.began)
    assert found.pauses * seconds / 10 == pytest.approx(in_flight, rel=0.05)


def test_rows_that_name_no_node_are_dealt_to_nodes_and_that_is_said(tmp_path: pathlib.Path) -> None:
    made = plan(tmp_path)
    text = (tmp_path / "fleet.csv").read_text().replace(",node,", ",region2,", 1)
    (tmp_path / "fleet.csv").write_text(text)
    start = row_source(load_plan_text(made.source_text, tmp_path / "plan.yaml"), [10.0], node_memory=64 << 30)
    assert start.rows is not None
    assert start.rows.fleet.nodes == 800 // 40
    assert start.rows.totals[1].note == "800 rows name none, dealt (assumed)"
    assert (start.rows.arms.labels, start.fleet.node.memory) == (("off", "10 %"), 64 << 30)


def test_the_command_forecasts_the_table_of_a_plan_and_says_what_it_does_not_know(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(tmp_path)
    asked = ["forecast", str(tmp_path / "plan.yaml"), "--hours", "1"]
    assert main([*asked, "--json"]) == ExitCode.HELD
    found = json.loads(capsys.readouterr().out)
    assert [each["label"] for each in found["weights"]] == ["off", "0 %", "25 %", "100 %"]
    assert (found["weights"][3]["over_memory"], found["weights"][3]["fit"]) == (None, None)
    assert 0 < found["weights"][1]["exposed"] < 60
    assert not any("the day is a wave" in each for each in found["model"])
    assert "reads team.name (segment regulated-teams); the table has no such column" in " ".join(found["model"])
    assert main([*asked, "--node-memory", "128GiB", "--paused-for", "60"]) == ExitCode.HELD
    said = " ".join(capsys.readouterr().out.split())
    assert "paused_for" not in said.split("What it rests on")[1].split("assumed")[0]
    assert "unknown" not in said
    assert main([*asked, "--sandboxes", "10"]) == ExitCode.USAGE
    assert main(["forecast", "scenarios/fleets/example.yaml", "--node-memory", "1GiB"]) == ExitCode.USAGE
