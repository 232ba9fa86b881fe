"""Real sandboxes on simulated nodes: each pause by its own node's budget, each decision as the cohort engine's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flags.catalog import PUNCH
from sim.cli import main
from sim.files.plan import load_plan
from sim.record import events
from sim.record.folder import open_run
from sim.rollout.user_fleet import of_plan
from tests.production_fleet import as_csv, flags, production_fleet

TWO_NODES = """\
name: two-nodes
node: {memory: 64MiB, budgets: {small: 9MiB, large: 40MiB}}
fleet:
  - {name: tight, count: 2, memory: 4MiB, node: small, workload: {dirty: 100%, pattern: full}}
  - {name: roomy, count: 2, memory: 4MiB, node: large, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: false}
steps:
  - tick: 1
  - pause: {concurrency: 4, allow_empty: true}
  - expect: {sandboxes: "tight-*", state: running, counts: {running: 2}}
  - expect: {sandboxes: "roomy-*", state: paused, counts: {paused: 2}}
"""


def test_a_pause_is_refused_by_its_own_nodes_budget_while_another_node_has_room(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TWO_NODES)
    assert main(["run", str(tmp_path / "s.yaml"), "--runs-dir", str(tmp_path / "runs")]) == 0
    run = open_run(tmp_path / "runs" / "two-nodes" / "latest")
    refused = [str(each.sandbox) for each in run.entries if isinstance(each.event, events.RequestRefused)]
    assert sorted(refused) == ["tight-0", "tight-1"]


@pytest.mark.timeout(120)
def test_a_rehearsal_of_a_table_decides_for_real_as_its_rows_are_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.json").write_text(json.dumps(flags(safe_first=True)))
    (tmp_path / "fleet.csv").write_text(as_csv(production_fleet(200)))
    steps: list[dict[str, Any]] = [{"setWeight": 0}, {"setWeight": 50}, {"wait": {"for": "1m"}}]
    plan = {
        "kind": "plan", "name": "own", "fleet": "fleet.csv", "sample": 10, "scale": "1/512", "nodes": 2,
        "contexts": "all", "flags": {"file": "own.json"}, "pacing": {"mostRounds": 1}, "steps": steps,
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    main(["rehearse", str(tmp_path / "plan.yaml"), "--json", "--runs-dir", str(tmp_path / "runs")])
    found = json.loads(capsys.readouterr().out)
    _, fleet = of_plan(load_plan(tmp_path / "plan.yaml"))
    assert fleet is not None
    row = {name: at for at, name in enumerate(fleet.names)}
    run = open_run(Path(found["folders"]["on"]))
    decided = {
        each.sandbox: each.event.flags[PUNCH]["value"] for each in run.entries if isinstance(each.event, events.Decided)
    }
    assert len(decided) == 10
    assert decided == {name: bool(fleet.exposures[1].on[row[name or ""]]) for name in decided}
    assert set(decided.values()) == {True, False}
