from __future__ import annotations

import pathlib

import pytest

from flags.document import DocumentError
from flags.launchdarkly_fleet import bucket_of
from sim.files.plan import changed, load_plan, load_plan_text
from sim.files.scenario import discover, load_text
from sim.files.steps import Checkpoint, FlagStep, Inject, Outage, PauseStep
from sim.files.yaml import scenario_text
from sim.rollout.compiled import compiled, rounds
from sim.rollout.exposure import contexts_needed, exposures
from sim.rollout.forecast_source import of_plan
from sim.rollout.matrix import FAULTS, cell_scenario, rows, sample
from sim.rollout.shown import even_rates

APPROVED = """\
kind: plan
name: approved
fleet: [{name: web, count: 4, memory: 1MiB}]
steps:
  - setWeight: 50
  - wait: {for: 1m}
  - approve: {}
  - setWeight: 100
  - wait: {for: 1m}
"""
ROLLOUTS = pathlib.Path(__file__).parents[4] / "scenarios" / "rollouts"
TEXT = """\
kind: plan
name: small
pacing: {pausesPerMinute: 10, mostRounds: 3}
fleet:
  - {name: code, count: 24, memory: 1MiB}
metrics:
  - {name: discards, failureCondition: result > 0}
steps:
  - setWeight: 0
  - wait: {for: 4m}
  - setWeight: 10
  - inject: {fault: copy.write, at: first}
  - analysis: {count: 2, interval: 1h}
  - setWeight: 100
  - drill: {killSwitch: {}}
"""


def plan_of(text: str = TEXT):  # type: ignore[no-untyped-def] # noqa: ANN201
    return load_plan_text(text, pathlib.Path("plan.yaml"))


def kinds(steps: object) -> list[str]:
    return [each.kind for each in steps]  # type: ignore[attr-defined]


def test_a_plan_comes_to_steps_of_a_scenario() -> None:
    made = compiled(plan_of())
    assert kinds(made.scenario.steps) == [
        *("tick", "flag"),
        *("tick", "pause", "resume", "tick", "pause", "resume"),  # 40 pauses of 24 sandboxes: two rounds
        *("flag", "inject"),
        *("tick", "pause", "resume") * 3,  # an hour asks for 25 rounds; three are rehearsed
        *("clear", "flag"),
        *("flag", "tick", "pause", "resume", "flag"),
    ]
    assert made.virtual == (0.0, 240.0, 0.0, 0.0, 3600.0, 0.0, 5.0)


def test_with_the_flag_off_only_the_weights_differ() -> None:
    on, off = compiled(plan_of()), compiled(plan_of(), "off")
    assert kinds(on.scenario.steps) == kinds(off.scenario.steps)
    values = [step.values for step in off.scenario.steps if isinstance(step, FlagStep)]
    assert {getattr(each["memfd-punch-on-snapshot"], "percent", 0.0) for each in values} == {0.0}
    assert on.gates == off.gates


def test_every_step_stands_where_the_plan_has_it() -> None:
    made = compiled(plan_of())
    index = next(i for i, each in enumerate(made.scenario.steps) if isinstance(each, Inject))
    assert made.scenario.where(("steps", index)) == (12, 5)


def test_the_text_of_what_a_plan_came_to_is_a_sound_scenario() -> None:
    made = compiled(load_plan(ROLLOUTS / "punch-under-outage.yaml"))
    again = load_text(made.scenario.source_text, ROLLOUTS / "x.yaml")
    assert again.steps == made.scenario.steps
    assert any(isinstance(each, Outage) for each in again.steps)


def test_a_stretch_of_time_is_at_least_one_round() -> None:
    assert (rounds(plan_of(), 1.0), rounds(plan_of(), 240.0), rounds(plan_of(), 1e6)) == (1, 2, 3)


def test_stages_begin_at_each_weight() -> None:
    made = compiled(plan_of())
    assert [(each.weight, list(each.steps)) for each in made.stages] == [(0, [0, 1]), (10, [2, 3, 4]), (100, [5, 6])]
    assert made.stage_of(4).number == 2


def test_cohorts_are_those_of_launchdarklys_own_bucketing() -> None:
    found = exposures(plan_of(), [0.0, 1.0, 10.0, 100.0])
    assert [each.sandboxes for each in found[:3]] == [(), ("code-0",), ("code-0", "code-21", "code-22")]
    assert len(found[3].sandboxes) == 24
    assert all(each.is_superset for each in found)


def test_going_back_is_no_superset() -> None:
    assert exposures(plan_of(), [10.0, 1.0])[1].leaves == ("code-21", "code-22")


def test_a_team_is_exposed_whole() -> None:
    found = exposures(plan_of(TEXT.replace("name: small", "name: small\nby: team")), [50.0])[0]
    assert found.of_contexts == 1
    assert len(found.sandboxes) in {0, 24}


def test_how_many_contexts_a_stage_needs() -> None:
    assert (contexts_needed(1, 1.0), contexts_needed(3, 10.0), contexts_needed(3, 0.0)) == (100, 30, 0)


def test_every_cell_of_the_matrix_is_a_sound_scenario() -> None:
    plan = load_plan(ROLLOUTS / "punch.yaml")
    for index, weight in rows(plan):
        for fault in FAULTS:
            made = cell_scenario(plan, index, weight, fault, sample(plan, index))
            assert load_text(scenario_text(made), plan.path).name == "punch"


def test_a_cell_runs_the_plans_engine_with_what_was_mended() -> None:
    plan = changed(load_plan(ROLLOUTS / "pr-2902-as-written.yaml"), mend=["not-gated"])
    made = cell_scenario(plan, 0, 0.0, FAULTS[0], sample(plan, 0))
    assert made["engine"] == {"profile": "pr-2902", "mended": ["not-gated"]}
    assert "engine" not in cell_scenario(plan_of(), 0, 0.0, FAULTS[0], sample(plan_of(), 0))


def test_a_folder_of_plans_holds_no_scenario() -> None:
    assert discover([ROLLOUTS]) == []


def with_checkpoints(pacing: str) -> str:
    return TEXT.replace("pacing: {pausesPerMinute: 10, mostRounds: 3}", f"pacing: {{mostRounds: 1, {pacing}}}")


def checkpointed(text: str) -> list[str]:
    return [each.sandboxes for each in compiled(plan_of(text)).scenario.steps if isinstance(each, Checkpoint)]


def test_a_round_has_as_many_checkpoints_for_each_pause_as_the_pacing_says() -> None:
    text = with_checkpoints("pausesPerMinute: 10, checkpointsPerMinute: 25")
    rounds_made = kinds(compiled(plan_of(text)).scenario.steps).count("pause")
    found = checkpointed(text)
    assert found.count("*") == 2 * rounds_made  # each twice, and half of them once more
    named = len(found) - 2 * rounds_made
    assert 0.3 < named / (24 * rounds_made) < 0.7
    assert found == checkpointed(text)
    assert found != checkpointed(text.replace("name: small", "name: small\nseed: 9"))


def test_no_checkpoint_is_made_where_none_is_asked_for() -> None:
    assert checkpointed(TEXT) == []
    assert checkpointed(with_checkpoints("pausesPerMinute: 10, checkpointsPerMinute: 0")) == []


def test_a_plan_without_a_rate_of_checkpoints_takes_that_of_production() -> None:
    production = "production: {sandboxes: 100, pausesPerMinute: 10, checkpointsPerMinute: 10}\n"
    assert set(checkpointed(TEXT + production)) == {"*"}


OLD = TEXT.replace(
    "memory: 1MiB}", "memory: 1MiB}\n  - {name: old, count: 8, memory: 1MiB, firecracker_version: 1.13.0}"
)


def test_sandboxes_below_firecracker_1_14_are_exposed_and_cannot_punch() -> None:
    plan = plan_of(OLD)
    (everyone,) = exposures(plan, [100.0])
    assert (len(everyone.sandboxes), len(everyone.able)) == (32, 24)
    assert not [name for name in everyone.able if name.startswith("old")]
    rates = even_rates(plan, 100.0)
    assert (len(rates), int((rates > 0).sum())) == (32, 24)


HALF = sum(bucket_of("use-memfd", "use-memfd", f"code-{number}") < 0.5 for number in range(24))


@pytest.mark.parametrize(("flags", "able"), [("use-memfd: false", 0), ("use-memfd: {rollout: 50%, by: sandbox}", HALF)])
def test_sandboxes_that_are_resumed_with_use_memfd_off_are_exposed_and_cannot_punch(flags: str, able: int) -> None:
    plan = plan_of(TEXT.replace("metrics:", f"flags: {{{flags}}}\nmetrics:"))
    (everyone,) = exposures(plan, [100.0])
    assert (len(everyone.sandboxes), len(everyone.able)) == (24, able)
    fleet = of_plan(plan).fleet
    assert [each.use_memfd for each in fleet.groups] == [pytest.approx(100 * able / 24)]


def test_checkpoints_are_punched_before_a_kill_switch_is_obeyed_too() -> None:
    with_them = with_checkpoints("pausesPerMinute: 10, checkpointsPerMinute: 10")
    assert even_rates(plan_of(with_them), 100.0).sum() == pytest.approx(2 * even_rates(plan_of(), 100.0).sum())


def test_a_burst_is_as_many_pauses_in_flight_in_rehearsal_and_forecast_alike() -> None:
    plan = plan_of(TEXT.replace("mostRounds: 3", "mostRounds: 3, burst: 200"))
    paused = {each.at_once for each in compiled(plan).scenario.steps if isinstance(each, PauseStep)}
    assert (paused, of_plan(plan).fleet.node.at_once) == ({200}, 200)


def test_after_an_approval_the_earlier_stages_only_set_the_flag() -> None:
    plan = load_plan_text(APPROVED, pathlib.Path("plan.yaml"))
    whole, rest = compiled(plan), compiled(plan, after=2)
    assert [(each.act, each.step) for gates in rest.gates.values() for each in gates] == [("end", 3), ("end", 4)]
    assert rest.rounds == (0, 0, 0, 0, 2)
    sets = [each.values for each in rest.scenario.steps if isinstance(each, FlagStep)]
    assert sets == [each.values for each in whole.scenario.steps if isinstance(each, FlagStep)]
    assert [each.weight for each in rest.stages] == [50, 100]


@pytest.mark.parametrize("after", ["", "  - wait: {for: 1m}\n"])
def test_an_approval_must_end_a_stage(after: str) -> None:
    text = APPROVED.partition("  - setWeight: 100")[0] + after
    with pytest.raises(DocumentError, match=r"plan.yaml:7:5: error: .*approve ends a stage; put the next setWeight"):
        load_plan_text(text, pathlib.Path("plan.yaml"))
