"""A plan over a table of production's sandboxes: every row's exposure, the sample of it, bounds of the whole."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from flags.document import DocumentError
from sim.files.guests import plan_with_guests
from sim.files.plan import Plan, load_plan_text, table_of
from sim.files.user_table import read_user_table
from sim.files.yaml import scenario_text
from sim.report.table import text
from sim.rollout.compiled import compiled
from sim.rollout.critic import critique
from sim.rollout.decision_page import fleet_sections
from sim.rollout.exposure import exposures_of
from sim.rollout.user_fleet import of_plan
from tests.production_fleet import as_csv, flags, production_fleet

WAIT: dict[str, Any] = {"wait": {"for": "10m"}}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "own.json").write_text(json.dumps(flags(safe_first=True)))
    (tmp_path / "fleet.csv").write_text(as_csv(production_fleet(3000)))
    return tmp_path


def plan(folder: pathlib.Path, **more: Any) -> Plan:
    steps = [{"setWeight": 0}, WAIT, {"setWeight": 5}, WAIT, {"setWeight": 50}, WAIT, {"setWeight": 100}, WAIT]
    document = {
        "kind": "plan", "name": "own", "fleet": "fleet.csv", "sample": 60, "scale": "1/256",
        "contexts": "all", "flags": {"file": "own.json"}, "steps": steps,
    }  # fmt: skip
    return load_plan_text(scenario_text(document | more), folder / "plan.yaml")


def test_a_plan_over_a_table_knows_its_production_before_anybody_is_chosen(folder: pathlib.Path) -> None:
    made = plan(folder)
    rows = table_of(made)
    assert rows is not None
    assert len(rows) == 3000
    assert made.production is not None
    assert (made.production.sandboxes, made.production.nodes) == (3000, len({each.node for each in rows}))
    assert made.production.pauses_per_minute == pytest.approx(sum(each.pauses_per_hour for each in rows) / 60)
    assert made.fleet_file == "fleet.csv"


def test_the_sample_is_of_real_rows_under_their_names_and_each_stage_exposes_some_of_it(folder: pathlib.Path) -> None:
    made, fleet = of_plan(plan_with_guests(plan(folder), "vm"))
    assert fleet is not None
    assert {each.guest for each in made.fleet} == {"vm"}
    rows = {each.attributes.sandbox: each for each in table_of(plan(folder)) or []}
    sandboxes = made.sandboxes()
    assert len(sandboxes) == 60
    for one in sandboxes:
        assert (one.team, one.template) == (rows[one.name].attributes.team, rows[one.name].attributes.template)
        assert one.memory == max(64 << 10, round(rows[one.name].memory / 256 / 4096) * 4096)
    exposed = exposures_of(compiled(made))
    assert all(each.sandboxes for each in exposed)
    for stage, each in enumerate(exposed):  # whom the whole table says, the sample has too
        on = {name for name, is_on in zip(fleet.names, fleet.exposures[stage].on.tolist(), strict=True) if is_on}
        assert set(each.sandboxes) == on & {e.name for e in sandboxes}


def test_the_rows_of_a_stage_pause_at_their_own_rates(folder: pathlib.Path) -> None:
    _, fleet = of_plan(plan(folder))
    assert fleet is not None
    assert len(fleet.rates(3)) == fleet.exposures[3].count
    assert fleet.rates(3).sum() * 3600 == pytest.approx(fleet.rows.pauses_per_hour[fleet.exposures[3].on].sum())


def test_a_bound_of_the_fleet_is_that_of_the_worst_stratum_of_the_sample(folder: pathlib.Path) -> None:
    _, fleet = of_plan(plan(folder))
    assert fleet is not None
    sampled = [fleet.names[row] for row in fleet.sample.rows[fleet.sample.strata >= 0]]
    exposed = fleet.exposures[3].count
    worst = max(
        (fleet.first == stratum).sum() / exposed / np.count_nonzero(fleet.sample.strata == stratum)
        for stratum in range(4)
    )
    assert fleet.bound(3, sampled, []) == pytest.approx(-np.log(0.05) * worst)
    assert fleet.bound(3, sampled, sampled[:1]) == pytest.approx(4.7439 * worst, rel=1e-4)
    assert fleet.bound(3, sampled[:1], []) > 0.4


def test_the_page_of_a_fleet_says_sums_of_every_stage_and_what_is_only_a_sample(folder: pathlib.Path) -> None:
    made, fleet = of_plan(plan(folder))
    assert fleet is not None
    said = text(fleet_sections(made, fleet), width=200)
    assert "Your fleet: 3,000 sandboxes of" in said
    assert "as exported" in said
    assert "rehearsed: 60 of them, stratified by first stage, at 1/256 of their memory" in said
    assert f"rule 8a52a8b4-0002 {fleet.exposures[0].count}" in said


def test_who_dominates_a_stage_is_said_of_the_whole_fleet_and_not_of_the_sample(folder: pathlib.Path) -> None:
    made, fleet = of_plan(plan(folder))
    found = critique(compiled(made), exposures_of(compiled(made)), fleet)
    assert "one-team" not in {each.name for each in found}


def test_unknown_columns_are_attributes_and_mistakes_are_told_at_their_cells(folder: pathlib.Path) -> None:
    path = folder / "few.csv"
    path.write_text("sandbox,team,template,memory,tier,dirty\na,t,python,512MiB,gold,40%\n")
    (row,) = read_user_table(path)
    assert (row.others, row.dirty, row.memory) == ({"tier": "gold"}, 40.0, 512 << 20)
    path.write_text("sandbox,team,template,memory\na,t,python,512MB\n")
    with pytest.raises(DocumentError, match=r"few\.csv:2:12: error: memory: expected a size"):
        read_user_table(path)
    with pytest.raises(DocumentError, match="the table has a mistake"):
        plan(folder, fleet="few.csv")


def test_a_table_without_a_row_is_refused(folder: pathlib.Path) -> None:
    (folder / "none.csv").write_text("sandbox,team,template,memory\n")
    with pytest.raises(DocumentError, match="no sandbox"):
        plan(folder, fleet="none.csv")
