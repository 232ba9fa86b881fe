"""A plan over a user's own flag: every stage edits it, and the patches make what was rehearsed."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from engine.errors import UserError
from flags.catalog import FLAGS
from flags.document import DocumentError
from flags.inline import Share
from flags.launchdarkly import make_context
from sim.files.plan import Plan, load_plan_text
from sim.files.scenario import load_text
from sim.files.yaml import scenario_text
from sim.rollout.compiled import compiled
from sim.rollout.export import kill_patch, stage_patches
from sim.rollout.exposure import as_exported, exposures_of
from sim.rollout.matrix import cell_scenario, faults_for, sample
from sim.rollout.row_exposure import stage_exposures
from sim.rollout.stage_flags import exported, stage_flag
from tests.production_fleet import KEY, flags, production_fleet

BROWSERS = "8a52a8b4-0002"
WAIT: dict[str, Any] = {"wait": {"for": "10m"}}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "own.json").write_text(json.dumps(flags(safe_first=True)))
    return tmp_path


def plan(folder: pathlib.Path, *steps: dict[str, Any], **more: Any) -> Plan:
    document = {
        "kind": "plan",
        "name": "own",
        "fleet": [
            {"name": "box", "count": 60, "memory": "1MiB", "template": "python"},
            {"name": "web", "count": 40, "memory": "1MiB", "template": "browser"},
        ],
        "contexts": "all",
        "flags": {"file": "own.json"},
        "steps": list(steps or [{"setWeight": 0}, WAIT, {"setWeight": 25}, WAIT, {"setWeight": 100}, WAIT]),
    } | more
    return load_plan_text(scenario_text(document), folder / "plan.yaml")


def test_a_stage_is_an_edit_of_the_flag_and_its_rules_and_salt_stay(folder: pathlib.Path) -> None:
    known = exported(plan(folder))
    assert known is not None
    made = stage_flag(plan(folder), [(25, None)])
    assert made["fallthrough"]["rollout"]["variations"] == [
        {"variation": 1, "weight": 75_000},
        {"variation": 0, "weight": 25_000},
    ]
    del made["fallthrough"], known["fallthrough"]
    assert made == known


def test_what_other_rules_serve_is_exposed_at_every_weight_0_included(folder: pathlib.Path) -> None:
    found = exposures_of(compiled(plan(folder)))
    assert found[0].reasons == {f"rule {BROWSERS}": len(found[0].sandboxes)}
    assert all(name.startswith("web-") for name in found[0].sandboxes)
    assert 0 < len(found[0].sandboxes) < 40
    assert found[2].reasons[f"rule {BROWSERS}"] == len(found[0].sandboxes)
    assert found[2].reasons["default rule"] == 60
    assert [each.is_superset for each in found] == [True] * 3


def test_before_the_first_stage_stands_who_has_the_flag_on_as_it_was_exported(folder: pathlib.Path) -> None:
    found = as_exported(plan(folder))
    assert found is not None
    assert found.weight == 5
    assert found.reasons[f"rule {BROWSERS}"] == len(exposures_of(compiled(plan(folder)))[0].sandboxes)
    assert as_exported(plan(folder, flags={})) is None


def test_a_stage_may_edit_a_rule_and_later_stages_leave_it_as_it_then_is(folder: pathlib.Path) -> None:
    steps: list[dict[str, Any]] = [
        {"setWeight": 0}, {"setWeight": {"weight": 100, "rule": BROWSERS}}, {"setWeight": 10}
    ]  # fmt: skip
    nobody, browsers, more = exposures_of(compiled(plan(folder, *steps)))
    assert len(browsers.sandboxes) == 40 > len(nobody.sandboxes)
    assert more.is_superset
    assert more.reasons[f"rule {BROWSERS}"] == 40


def test_the_scenario_of_a_plan_edits_the_flag_and_the_other_arm_turns_it_off(folder: pathlib.Path) -> None:
    made = plan(folder, {"setWeight": 0}, {"setWeight": {"weight": 5, "rule": BROWSERS}}, WAIT)
    on = [each.values for each in compiled(made).scenario.steps if each.kind == "flag"]
    off = [each.values for each in compiled(made, "off").scenario.steps if each.kind == "flag"]
    assert [each[KEY] for each in on] == [Share(0, "sandbox"), Share(5, "sandbox", BROWSERS)]
    assert off == [{KEY: False}] * 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"on": False}, "is off: no stage exposes a sandbox; add `turnOn: true`"),
        ({"prerequisites": [{"key": "punch-allowed", "variation": 1}]}, "a prerequisite of .* fails for every sandbox"),
        ({"variations": ["a", "b"]}, "has no variation true"),
    ],
)
def test_a_flag_of_which_no_stage_exposes_anybody_is_refused(
    folder: pathlib.Path, changes: dict[str, Any], says: str
) -> None:
    document = flags(safe_first=True)
    document["flags"][KEY] |= changes
    (folder / "own.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=says):
        exposures_of(compiled(plan(folder)))


def test_a_flag_that_is_off_is_rehearsed_on_where_the_plan_says_so(folder: pathlib.Path) -> None:
    document = flags(safe_first=True)
    document["flags"][KEY]["on"] = False
    (folder / "own.json").write_text(json.dumps(document))
    turned = plan(folder, turnOn=True)
    assert len(exposures_of(compiled(turned))[2].sandboxes) > 60
    assert stage_patches(turned, [0])[0][1]["instructions"][0] == {"kind": "turnFlagOn"}


def test_a_rule_that_is_not_there_is_named_before_the_start(folder: pathlib.Path) -> None:
    with pytest.raises(UserError, match=f'has no rule "browsers"; it has "8a52a8b4-0001", "{BROWSERS}"'):
        exposures_of(compiled(plan(folder, {"setWeight": 0}, {"setWeight": {"weight": 5, "rule": "browsers"}})))


@pytest.mark.parametrize("text", ["{", "[]", '{"flags": {"memfd-punch-on-snapshot": {"variations": 5}}}'])
def test_a_flag_file_that_no_sdk_could_take_is_a_mistake_of_that_file(folder: pathlib.Path, text: str) -> None:
    (folder / "own.json").write_text(text)
    with pytest.raises(DocumentError, match=r"own\.json:1:"):
        plan(folder)


def applied(flag: Mapping[str, Any], patch: Mapping[str, Any], ids: list[str]) -> dict[str, Any]:
    """What LaunchDarkly makes of a semantic patch; weighted variations keep the order that they had."""
    made = deepcopy(dict(flag))
    for each in patch["instructions"]:
        if each["kind"] in {"turnFlagOn", "turnFlagOff"}:
            made["on"] = each["kind"] == "turnFlagOn"
            continue
        if each["kind"] == "updateOffVariation":
            made["offVariation"] = ids.index(each["variationId"])
            continue
        rule = each.get("ruleId")
        served = made["fallthrough"] if rule is None else next(e for e in made["rules"] if e["id"] == rule)
        before = served.pop("rollout", None)
        if "variationId" in each:
            served["variation"] = ids.index(each["variationId"])
            continue
        served.pop("variation", None)
        order = [e["variation"] for e in before["variations"]] if before else range(len(ids))
        entries = [{"variation": at, "weight": each["rolloutWeights"][ids[at]]} for at in order]
        served["rollout"] = {"contextKind": each["rolloutContextKind"], "variations": entries}
    return made


def test_patches_applied_to_the_export_make_each_stages_cohort_and_their_inverses_the_export(
    folder: pathlib.Path,
) -> None:
    ids = ["f1a0", "f1a1"]
    (folder / "own.ids.json").write_text(json.dumps({KEY: ids}))
    edits: list[tuple[float, str | None]] = [(0, None), (5, None), (50, BROWSERS), (25, None)]
    steps = [{"setWeight": weight if rule is None else {"weight": weight, "rule": rule}} for weight, rule in edits]
    own = plan(folder, *steps)
    patches = stage_patches(own, [weight for weight, _ in edits])
    document = flags(safe_first=True)
    now = document["flags"][KEY]
    fleet = production_fleet(2000)
    contexts = [
        make_context({"kind": "multi", **{k: {"key": getattr(e, k)} for k in ("sandbox", "team", "template")}})
        for e in fleet
    ]

    def exposed(flag: Mapping[str, Any]) -> list[bool]:
        sections = ({**document["flags"], KEY: flag}, document["segments"])
        (found,) = stage_exposures([(0, sections)], FLAGS[KEY], contexts)
        whom: list[bool] = found.on.tolist()
        return whom

    states = [now]
    for number, (_, forward, _) in enumerate(patches, 1):
        now = applied(now, forward, ids)
        states.append(now)
        assert exposed(now) == exposed(stage_flag(own, edits[:number]))
    for (_, _, back), before in zip(reversed(patches), reversed(states[:-1]), strict=True):
        now = applied(now, back, ids)
        assert exposed(now) == exposed(before)
    assert now == states[0]
    assert kill_patch(own)["instructions"][0]["variationId"] == "f1a1"
    assert sum(exposed(applied(now, kill_patch(own), ids))) == 0


def test_a_cell_of_the_matrix_has_the_users_flag_with_the_edits_up_to_its_step(folder: pathlib.Path) -> None:
    known = plan(folder, {"setWeight": {"weight": 5, "rule": BROWSERS}}, WAIT, {"setWeight": 25}, WAIT)
    for fault in faults_for(known):
        assert (fault.where, fault.name) != ("source", "down")
        made = cell_scenario(known, 3, 25.0, fault, sample(known, 3))
        assert made["flags"]["file"] == "own.json"
        values = [each["flag"][KEY] for each in made["steps"] if "flag" in each]
        assert values == [
            {"share": "5%", "by": "sandbox", "rule": BROWSERS},
            {"share": "25%", "by": "sandbox"},
        ]
        assert load_text(scenario_text(made), known.path).name == "own"
