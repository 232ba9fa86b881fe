from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable

import pytest

from engine.errors import UserError
from sim.files.guests import plan_with_guests
from sim.files.plan import changed, load_plan
from sim.rollout.export import export
from sim.rollout.identity import reproduce
from sim.rollout.results import Rehearsal

Made = Callable[..., Rehearsal]
FLEET = """\
kind: fleet
name: ours
node: {memory: 1GiB, sandboxes: 4}
groups: [{name: web, count: 4, memory: 1MiB}]
"""
PLAN = """\
kind: plan
name: ours
fleet: ../fleets/ours.yaml
steps:
  - setWeight: 0
  - setWeight: 12.5
"""
ROLLOUTS = pathlib.Path(__file__).parents[4] / "scenarios" / "rollouts"


@pytest.fixture
def plan(tmp_path: pathlib.Path) -> pathlib.Path:
    for folder, name, text in (("fleets", "ours.yaml", FLEET), ("plans", "plan.yaml", PLAN)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    return tmp_path / "plans" / "plan.yaml"


def test_a_go_hands_over_each_stage_as_instructions_that_launchdarkly_documents(
    plan: pathlib.Path, rehearsed: Made, tmp_path: pathlib.Path
) -> None:
    export(rehearsed(load_plan(plan)), tmp_path / "evidence")
    folder = tmp_path / "evidence" / "launchdarkly"
    stage = json.loads((folder / "stage-2-12.5-percent.json").read_text())
    assert stage["environmentKey"] == "ENVIRONMENT"
    assert stage["instructions"] == [
        {"kind": "turnFlagOn"},
        {
            "kind": "updateFallthroughVariationOrRollout",
            "rolloutContextKind": "sandbox",
            "rolloutWeights": {"VARIATION_ID_OF_FALSE": 87_500, "VARIATION_ID_OF_TRUE": 12_500},
        },
    ]
    back = json.loads((folder / "stage-2-inverse.json").read_text())
    assert back["instructions"][1]["rolloutWeights"] == {"VARIATION_ID_OF_FALSE": 100_000, "VARIATION_ID_OF_TRUE": 0}
    assert json.loads((folder / "kill-switch.json").read_text())["instructions"] == [
        {"kind": "updateOffVariation", "variationId": "VARIATION_ID_OF_FALSE"},
        {"kind": "turnFlagOff"},
    ]


def test_a_no_go_hands_over_no_instructions(plan: pathlib.Path, rehearsed: Made, tmp_path: pathlib.Path) -> None:
    export(rehearsed(load_plan(plan), decision="no-go"), tmp_path / "evidence")
    assert not (tmp_path / "evidence" / "launchdarkly").exists()
    assert (tmp_path / "evidence" / "README.md").read_text().startswith("# NO-GO: ours\n")


def test_what_the_plan_names_lies_beside_it_with_its_hash(
    plan: pathlib.Path, rehearsed: Made, tmp_path: pathlib.Path
) -> None:
    export(rehearsed(load_plan(plan)), tmp_path / "evidence")
    assert (tmp_path / "evidence" / "ours.yaml").read_text() == FLEET
    named = f"- file `ours.yaml`, SHA-256 `{hashlib.sha256(FLEET.encode()).hexdigest()[:16]}`"
    assert f"{named}; the plan looks for it as `../fleets/ours.yaml`" in (tmp_path / "evidence/README.md").read_text()


def test_evidence_is_never_written_over(plan: pathlib.Path, rehearsed: Made, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not empty"):
        export(rehearsed(load_plan(plan)), tmp_path)


def test_the_command_that_reproduces_it_mends_what_was_mended(rehearsed: Made) -> None:
    plan = changed(load_plan(ROLLOUTS / "pr-2902-as-written.yaml"), mend=["not-gated"])
    assert reproduce(rehearsed(plan)) == "snapdrill rehearse plan.yaml --seed 3 --lease none --mend not-gated"
    machines = plan_with_guests(plan, "vm")
    assert "--lease none --guest vm --mend not-gated" in reproduce(rehearsed(machines))
