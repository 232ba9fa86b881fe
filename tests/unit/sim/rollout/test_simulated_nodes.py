"""A sample over several simulated nodes: an even share of everything on each, its own budget, and what it takes."""

from __future__ import annotations

import json
import pathlib
from collections import Counter
from typing import Any

import pytest

from engine.errors import UserError
from flags.document import DocumentError
from sim.cli import main
from sim.files.plan import Plan, load_plan_text
from sim.files.scenario import load_text
from sim.files.yaml import scenario_text
from sim.record.verdict import ExitCode
from sim.rollout import simulated_nodes
from sim.rollout.compiled import compiled
from sim.rollout.simulated_nodes import A_GUEST, lines, need, sample_lack
from sim.rollout.user_fleet import of_plan
from tests.production_fleet import as_csv, flags, production_fleet

MIB = 1 << 20


def sampled(folder: pathlib.Path, **more: Any) -> Plan:
    (folder / "own.json").write_text(json.dumps(flags(safe_first=True)))
    (folder / "fleet.csv").write_text(as_csv(production_fleet(300)))
    document = {
        "kind": "plan", "name": "own", "fleet": "fleet.csv", "sample": 24, "scale": "1/256", "nodes": 3,
        "flags": {"file": "own.json"}, "steps": [{"setWeight": 0}, {"setWeight": 50}, {"wait": {"for": "10m"}}],
    }  # fmt: skip
    made, _ = of_plan(load_plan_text(scenario_text(document | more), folder / "plan.yaml"))
    return made


def test_every_node_has_its_share_of_the_sample_and_a_budget_of_its_own(tmp_path: pathlib.Path) -> None:
    made = sampled(tmp_path)
    assert Counter(each.node for each in made.sandboxes()) == {"node-1": 8, "node-2": 8, "node-3": 8}
    guests = {name: sum(e.memory for e in made.sandboxes() if e.node == name) for name in made.node.budgets}
    assert max(guests.values()) < 2 * min(guests.values())
    assert made.node.budgets == {name: max(32 * MIB, -(-2 * size >> 20) << 20) for name, size in guests.items()}
    assert made.node.memory == sum(made.node.budgets.values())
    scenario = compiled(made).scenario
    assert scenario.node_settings()["budgets"] == made.node.budgets
    assert {each.node for each in scenario.sandboxes()} == set(made.node.budgets)


def test_a_sample_takes_as_many_nodes_as_it_would_fill_in_production(tmp_path: pathlib.Path) -> None:
    in_production = len({each.node for each in production_fleet(300)})
    assert len(sampled(tmp_path, nodes=None).node.budgets) == round(24 * in_production / 300)


def test_the_plans_memory_is_each_nodes_and_guests_that_do_not_fit_are_named_before_the_start(
    tmp_path: pathlib.Path,
) -> None:
    made = sampled(tmp_path, node={"memory": "100MiB"})
    assert set(made.node.budgets.values()) == {100 * MIB}
    assert not any("does not fit" in each for each in lines(made))
    most = max(sum(e.memory for e in made.sandboxes() if e.node == name) for name in made.node.budgets)
    tight = sampled(tmp_path, node={"memory": f"{-(-most >> 20)}MiB"})
    assert "the largest pause does not fit" in lines(tight)[-1]
    with pytest.raises(UserError, match=r"plan.yaml:\d+:\d+: error: the guests of node-\d need .* node.memory is 5MiB"):
        sampled(tmp_path, node={"memory": "5MiB"})


def test_what_a_sample_takes_is_memory_and_processes_and_a_host_without_room_is_said(tmp_path: pathlib.Path) -> None:
    made = sampled(tmp_path)
    guests = sum(each.memory for each in made.sandboxes())
    assert need(made) == guests + 24 * A_GUEST
    assert sample_lack(made, guests + 24 * A_GUEST) is None
    said = sample_lack(made, (guests + 24 * A_GUEST) // 2)
    assert said is not None
    assert "at most `sample: 12`" in said
    assert f"x 24 sandboxes x 2 arms = {2 * need(made) >> 20:,} MiB" in lines(made)[1]


@pytest.mark.parametrize(
    ("node", "group", "says"),
    [
        ({"budgets": {"a": "2MiB"}}, {"node": "b"}, 'no budget of a node "b"'),
        ({"budgets": {"a": "1MiB"}}, {"node": "a"}, "its guests need 2MiB, its budget is 1MiB"),
        ({"budgets": {"a": "40MiB"}}, {"node": "a"}, "the budgets are more than the machine's 32MiB"),
    ],
)
def test_a_simulated_node_that_cannot_be_is_a_mistake_at_its_place(
    node: dict[str, Any], group: dict[str, Any], says: str
) -> None:
    document = {
        "name": "x", "node": {"memory": "32MiB", **node},
        "fleet": [{"name": "web", "count": 2, "memory": "1MiB"} | group],
        "steps": [{"tick": 1}],
    }  # fmt: skip
    with pytest.raises(DocumentError, match=f"s.yaml:\\d+:\\d+: error: .*{says}"):
        load_text(scenario_text(document), pathlib.Path("s.yaml"))


def test_a_sample_that_this_host_cannot_hold_is_refused_before_the_start(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sampled(tmp_path)
    (tmp_path / "plan.yaml").write_text(made.source_text)
    monkeypatch.setattr(simulated_nodes, "free_memory", lambda: need(made) - 1)
    code = main(["rehearse", str(tmp_path / "plan.yaml"), "--runs-dir", str(tmp_path / "runs")])
    assert code == ExitCode.UNSUPPORTED
    assert "its 24 guests need" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()
