"""Scenarios made from the one on screen: on a relay, and as the arms of its twin."""

from __future__ import annotations

import pathlib

import pytest

from engine.errors import UserError
from flags.catalog import BACKGROUND, PUNCH
from flags.inline import Rollout
from sim.files.scenario import Scenario, load_text
from sim.files.steps import FlagStep, PauseStep, Tick
from sim.tui.twin_runs import arm, on_relay

FLEET = """
name: brisk
seed: 7
node: {memory: 300MiB, cache: tmpfs}
fleet:
  - {name: web, count: 3, memory: 8MiB, workload: {dirty: 40%, pattern: scattered}}
"""
STEPS = """
steps:
  - inject: {fault: copy.write, errno: ENOSPC, at: {chunk: 1}}
  - pause: {}
expect:
  - {state: discarded}
"""
HALF = "flags: {memfd-punch-on-snapshot: {rollout: 50%, by: team}, memfd-background-copy: false}"


def made(flags: str = HALF, path: pathlib.Path = pathlib.Path("brisk.yaml")) -> Scenario:
    return load_text(FLEET + flags + STEPS, path)


@pytest.mark.parametrize("punch", [False, True])
def test_an_arm_is_the_same_fleet_and_seed_with_punching_as_asked_and_nothing_broken(punch: bool) -> None:
    scenario = made()
    twin = arm(scenario, {PUNCH: {"rollout": "50%", "by": "team"}, BACKGROUND: True}, punch=punch)
    assert (twin.seed, twin.fleet, twin.node) == (scenario.seed, scenario.fleet, scenario.node)
    assert twin.name == f"brisk-twin-{'on' if punch else 'off'}"
    assert [type(step) for step in twin.steps] == [FlagStep, Tick, PauseStep]
    assert twin.steps[0] == FlagStep(values={PUNCH: punch, BACKGROUND: True})
    assert (twin.expect, twin.flag_source) == ((), "inline")


def test_an_arm_stores_the_text_that_runs_it_again() -> None:
    twin = arm(made(), {}, punch=True)
    again = load_text(twin.source_text, twin.path)
    assert (again.steps, again.fleet, again.seed) == (twin.steps, twin.fleet, twin.seed)


def test_an_arm_of_a_flag_file_keeps_the_file_and_turns_the_one_flag(tmp_path: pathlib.Path) -> None:
    (tmp_path / "flags.json").write_text('{"flags": {}}')
    scenario = made("flags: {file: flags.json}", tmp_path / "brisk.yaml")
    twin = arm(scenario, {}, punch=True)
    assert twin.flag_file == scenario.flag_file
    assert twin.steps[0] == FlagStep(values={PUNCH: True})


def test_nobody_here_turns_launchdarklys_own_flags() -> None:
    with pytest.raises(UserError, match="LaunchDarkly serves the flags"):
        arm(made("flags: {source: launchdarkly}"), {}, punch=True)


def test_a_long_name_leaves_room_for_that_of_the_arm() -> None:
    long = load_text(FLEET.replace("brisk", "a" * 47 + "-" + "b" * 12) + HALF + STEPS, pathlib.Path("long.yaml"))
    assert arm(long, {}, punch=False).name == "a" * 47 + "-twin-off"


@pytest.mark.parametrize(("lease", "seconds"), [(None, 5.0), ("2s", 2.0)])
def test_on_a_relay_the_values_are_the_same(lease: str | None, seconds: float) -> None:
    scenario = made()
    served = on_relay(scenario, lease)
    assert served.flag_source == "relay"
    assert served.flag_values == scenario.flag_values == {PUNCH: Rollout(50, "team"), BACKGROUND: False}
    assert served.lease == seconds
    assert (served.steps, served.fleet) == (scenario.steps, scenario.fleet)


def test_a_relay_serves_no_values_that_are_not_the_scenarios_own() -> None:
    with pytest.raises(UserError, match="its flags come from launchdarkly"):
        on_relay(made("flags: {source: launchdarkly}"), None)
