"""A plan over a table of production's sandboxes: every row's exposure, the sample of it, bounds of the whole."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flags.document import DocumentError
from sim.files.guests import plan_with_guests
from sim.files.plan import Plan, load_plan_text, table_of
from sim.files.yaml import scenario_text
from sim.node.config import NodeConfig
from sim.node.flags import NodeFlags
from sim.report.table import text
from sim.rollout.compiled import compiled
from sim.rollout.critic import critique
from sim.rollout.decision_page import fleet_sections
from sim.rollout.exposure import exposures_of
from sim.rollout.outputs import rehearsal_document
from sim.rollout.results import Rehearsal
from sim.rollout.stage_flags import stage_sections
from sim.rollout.user_fleet import of_plan
from sim.run.node_start import sandbox_configs
from tests.production_fleet import KEY, as_csv, flags, production_fleet

WAIT: dict[str, Any] = {"wait": {"for": "10m"}}
FRESH = NodeConfig(
    run="ab12", run_dir="/nowhere", builds="/nowhere", socket_dir="/nowhere", seed=1, began=0.0, budget=1 << 30,
    grace=1.0, cgroup=None, mutant=None, sandboxes=[],
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "own.json").write_text(json.dumps(flags(safe_first=True)))
    (tmp_path / "fleet.csv").write_text(as_csv(production_fleet(1000)))
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
    table = table_of(made)
    assert table is not None
    rows = table.rows
    assert len(rows) == 1000
    assert made.production is not None
    assert (made.production.sandboxes, made.production.nodes) == (1000, len({each.node for each in rows}))
    assert made.production.pauses_per_minute == pytest.approx(sum(each.pauses_per_hour or 0 for each in rows) / 60)
    assert made.fleet_file == "fleet.csv"


def test_the_sample_is_of_real_rows_under_their_names_and_each_stage_exposes_some_of_it(folder: pathlib.Path) -> None:
    made, fleet = of_plan(plan_with_guests(plan(folder), "vm"))
    assert fleet is not None
    assert {each.guest for each in made.fleet} == {"vm"}
    table = table_of(made)
    assert table is not None
    rows = {each.attributes.sandbox: each for each in table.rows}
    sandboxes = made.sandboxes()
    assert len(sandboxes) == 60
    for one in sandboxes:
        assert (one.team, one.template) == (rows[one.name].attributes.team, rows[one.name].attributes.template)
        assert one.memory == max(64 << 10, round((rows[one.name].memory or 0) / 256 / 4096) * 4096)
    exposed = exposures_of(compiled(made))
    assert all(each.sandboxes for each in exposed)
    for stage, each in enumerate(exposed):  # whom the whole table says, the sample has too
        on = {name for name, is_on in zip(fleet.names, fleet.exposures[stage].on.tolist(), strict=True) if is_on}
        assert set(each.sandboxes) == on & {e.name for e in sandboxes}


def test_a_sandbox_whose_name_can_be_no_file_is_decided_by_its_name_all_the_same(folder: pathlib.Path) -> None:
    path = folder / "fleet.csv"
    path.write_text(path.read_text().replace("sbx-", "i/SBX_"))
    made, fleet = of_plan(plan(folder))
    assert fleet is not None
    assert all(
        each.name.startswith("x-") and each.attributes().sandbox.startswith("i/SBX_") for each in made.sandboxes()
    )
    on = {name for name, is_on in zip(fleet.names, fleet.exposures[1].on.tolist(), strict=True) if is_on}
    assert set(exposures_of(compiled(made))[1].sandboxes) == on & {each.name for each in made.sandboxes()}
    (config, *_) = sandbox_configs(compiled(made).scenario, (), 0.0)
    assert config.attributes() == made.sandboxes()[0].attributes()
    with pytest.raises(DocumentError, match="a key is that of one sandbox; add exact: true"):
        plan(folder, fleet=[{"name": "web", "count": 2, "key": "A", "memory": "1MiB"}])


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
    assert "Your fleet: 1,000 sandboxes of" in said
    assert "as exported" in said
    assert "rehearsed: 60 of them, stratified by first stage, at 1/256 of their memory" in said
    assert f"rule 8a52a8b4-0002 {fleet.exposures[0].count}" in said


def test_who_dominates_a_stage_is_said_of_the_whole_fleet_and_not_of_the_sample(folder: pathlib.Path) -> None:
    made, fleet = of_plan(plan(folder))
    found = critique(compiled(made), exposures_of(compiled(made)), fleet)
    assert "one-team" not in {each.name for each in found}


def test_a_mistake_of_the_table_is_at_its_cell_also_for_the_plan_that_names_it(folder: pathlib.Path) -> None:
    (folder / "few.csv").write_text("sandbox,team,template,memory\na,t,python,512MB\n")
    with pytest.raises(DocumentError, match=r"few\.csv:2:12: error: memory: expected a size"):
        plan(folder, fleet="few.csv")


def test_a_table_without_a_row_is_refused(folder: pathlib.Path) -> None:
    (folder / "none.csv").write_text("sandbox,team,template,memory\n")
    with pytest.raises(DocumentError, match="no sandbox"):
        plan(folder, fleet="none.csv")


FURTHER = {"id": "tiers", "variation": 0, "clauses": [
    {"contextKind": "sandbox", "attribute": "tier", "op": "in", "values": ["gold"]},
    {"contextKind": "team", "attribute": "name", "op": "startsWith", "values": ["acme"]},
    {"contextKind": "sandbox", "attribute": "firecracker-version", "op": "semVerGreaterThan", "values": ["1.13.0"]},
    {"contextKind": "orchestrator", "attribute": "key", "op": "endsWith", "values": ["1", "3", "5", "7", "9"]},
]}  # fmt: skip


def further(folder: pathlib.Path) -> None:
    """The same fleet with columns of its own, some of them empty, and a flag that reads them."""
    head, *rows = (folder / "fleet.csv").read_text().split()
    added = [("gold" if n % 2 else "", "acme-1" if n % 3 else "other", ("1.12.1", "1.14.1", "")[n % 5 % 3])
             for n in range(len(rows))]  # fmt: skip
    lines = [",".join((row, *each)) for row, each in zip(rows, added, strict=True)]
    (folder / "fleet.csv").write_text("\n".join([f"{head},tier,team.name,firecracker-version", *lines]))
    document = flags(safe_first=True)
    document["flags"][KEY]["rules"].insert(0, FURTHER | {"variation": 1})
    (folder / "own.json").write_text(json.dumps(document))


@pytest.mark.parametrize("contexts", ["all", {"pause": ["sandbox.template-id", "team", "orchestrator"]}, "original"])
def test_a_sandbox_that_runs_for_real_is_decided_as_its_row_is(folder: pathlib.Path, contexts: Any) -> None:
    """By what its node gets: its config file, read again, and the flags of the stage in a file."""
    further(folder)
    made, fleet = of_plan(plan(folder, contexts=contexts))
    assert fleet is not None
    scenario = compiled(made).scenario
    config = replace(FRESH, sandboxes=sandbox_configs(scenario, (), 0.0), contexts=scenario.contexts.written)
    config.write(folder / "node.json")
    node = NodeConfig.read(folder / "node.json")
    row = {name: at for at, name in enumerate(fleet.names)}
    for stage, edits in ((1, [(0, None), (5, None)]), (3, [(100, None)])):
        served, segments = stage_sections(made, [(float(weight), rule) for weight, rule in edits])
        (folder / "stage.json").write_text(json.dumps({"flags": served, "segments": segments}))
        known = NodeFlags(replace(node, flag_file=str(folder / "stage.json"), obey_unsafe=True))
        try:
            decided = {each.name: known.client.decide(each.attributes(), "pause").is_on(KEY) for each in node.sandboxes}
        finally:
            known.close()
        assert decided == {name: bool(fleet.exposures[stage].on[row[name]]) for name in decided}
        assert len(set(decided.values())) == 2 or stage == 3
    assert len(node.sandboxes) == 60


def test_the_critic_finds_a_flag_sound_that_reads_what_only_the_table_has(folder: pathlib.Path) -> None:
    def unknown() -> list[str]:
        made, fleet = of_plan(plan(folder))
        concerns = critique(compiled(made), exposures_of(compiled(made)), fleet)
        return [each.what for each in concerns if "has no such attribute" in each.what]

    assert 'unknown attribute "name": kind "team" has no such attribute' in unknown()[0]
    further(folder)
    assert unknown() == []


def test_what_the_flag_reads_and_the_table_lacks_is_said_and_numbers_are_printed(
    folder: pathlib.Path, rehearsed: Callable[..., Rehearsal]
) -> None:
    made, fleet = of_plan(plan(folder))
    assert fleet is not None
    assert fleet.warnings == (
        f"{KEY} reads team.name (segment regulated-teams); the table has no such column: absent everywhere",
    )
    assert f"warning: {fleet.warnings[0]}" in " ".join(text(fleet_sections(made, fleet), width=200).split())
    assert rehearsal_document(rehearsed(made, fleet=fleet))["warnings"] == list(fleet.warnings)
    assert rehearsal_document(rehearsed(made))["warnings"] == []
    assert fleet.exposures[3].count > 0
