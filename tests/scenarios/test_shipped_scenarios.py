"""Every shipped scenario holds and leaves nothing behind; twice with the same digest, but over real sockets.

The second time its guests are virtual machines where there can be some: the digest is that of the processes.
"""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from sim.files.guests import with_guests
from sim.files.scenario import Scenario, is_scenario, load_all
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.leftovers import processes_of
from sim.run.host import host
from sim.run.needs import missing
from sim.run.node_link import NodeStarter, execute_node
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

FOLDER = pathlib.Path(__file__).parents[2] / "scenarios"
SHIPPED = sorted(
    path for path in FOLDER.rglob("*.yaml") if path.parent.name not in {"self-test", "large"} and is_scenario(path)
)
EVERY = [each for path in SHIPPED for each in load_all(path)]
OVER_SOCKETS = [each for each in EVERY if each.flag_source == "relay"]
EXECUTED = {"demo", "node-crash"}  # their first nodes; all others are forked
SCENARIOS = [each for each in EVERY if each.flag_source != "relay"]


def run(
    scenario: Scenario, runs_dir: pathlib.Path, seed: int | None = None, start_node: NodeStarter = forked_node
) -> StoredRun:
    if reason := missing(scenario):
        pytest.skip(f"{scenario.title}: {reason}")
    return asyncio.run(run_scenario(scenario, RunOptions(runs_dir=runs_dir, seed=seed, start_node=start_node)))


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.name != "demo"], ids=lambda each: each.name)
def test_a_shipped_scenario_holds_twice_with_the_same_digest(scenario: Scenario, tmp_path: pathlib.Path) -> None:
    holds_twice(scenario, tmp_path)


def test_the_demo_holds_twice_with_the_same_digest_and_shows_both_peaks(tmp_path: pathlib.Path) -> None:
    for result in holds_twice(next(each for each in SCENARIOS if each.name == "demo"), tmp_path):
        pauses = result.view.pauses
        off = [each.peak_ratio for each in pauses if not each.punch and each.peak_ratio is not None]
        on = [each.peak_ratio for each in pauses if each.punch and each.peak_ratio is not None]
        assert (len(off), len(on)) == (6, 6)
        assert min(off) > 1.9
        assert max(on) < 1.3


def holds_twice(scenario: Scenario, tmp_path: pathlib.Path) -> tuple[StoredRun, StoredRun]:
    first = run(scenario, tmp_path, start_node=execute_node if scenario.name in EXECUTED else forked_node)
    second = run(with_guests(scenario, "auto"), tmp_path)
    assert kinds(second) == {"vm" if host()["kvm"] else "process"}
    for result in (first, second):
        assert_held(result)
        assert [each.subject for each in result.view.judged if each.verdict != "held"] == []
    assert first.view.ended is not None
    assert second.view.ended is not None
    assert first.view.ended.digest == second.view.ended.digest
    assert (first.view.ended.digest is not None) == (scenario.name not in {"read-races-copy", "background-settles"})
    return first, second


def kinds(result: StoredRun) -> set[str]:
    return {each.event.guest for each in result.entries if isinstance(each.event, events.GuestSpawned)}


def assert_held(result: StoredRun) -> None:
    assert result.view.ended is not None
    found = [(each.subject, each.violations) for each in result.view.judged if each.verdict != "held"]
    assert (result.view.ended.verdict, found) == ("held", found)
    assert result.view.run is not None
    assert processes_of(result.view.run.run) == []
    assert [each.name for each in result.folder.glob("*cache*")] == []


@pytest.mark.parametrize("scenario", OVER_SOCKETS, ids=lambda each: each.name)
def test_a_scenario_over_sockets_holds(scenario: Scenario, tmp_path: pathlib.Path) -> None:
    result = run(scenario, tmp_path)
    assert_held(result)
    violated = [each.subject for each in result.view.judged if each.verdict != "held"]
    assert violated == (["metric:punched_after_kill"] if scenario.name.endswith("without-lease") else [])


def test_a_scenario_over_sockets_promises_equal_outcomes(tmp_path: pathlib.Path) -> None:
    scenario = next(each for each in OVER_SOCKETS if each.name == "outage-flag-deleted")
    assert outcomes(run(scenario, tmp_path)) == outcomes(run(scenario, tmp_path))


def test_the_kill_switch_meets_a_wave_that_is_still_copying(tmp_path: pathlib.Path) -> None:
    scenario = next(each for each in OVER_SOCKETS if each.name == "outage-kill-switch-in-a-wave")
    view = run(scenario, tmp_path).view
    (thrown,) = [each.t for each in view.switches if not each.on]
    in_flight = [each for each in view.pauses if each.began < thrown < (each.settled_at or 0)]
    assert sorted(each.sandbox for each in in_flight) == ["wave-0", "wave-1", "wave-2"]
    assert all(each.punched_bytes for each in in_flight)


def outcomes(result: StoredRun) -> object:
    pauses = sorted((each.id, each.outcome, each.punch, each.content_hash) for each in result.view.pauses)
    return pauses, {name: each.state for name, each in result.view.sandboxes.items()}


def test_the_same_seed_gives_the_same_digest_and_another_one_another(tmp_path: pathlib.Path) -> None:
    scenario = next(each for each in SCENARIOS if each.name == "first-chunk-failure")
    results = [run(scenario, tmp_path, seed) for seed in (11, 11, 12)]
    assert [kinds(each) for each in results] == [{"process"}] * 3
    first, again, other = [each.view.ended.digest for each in results if each.view.ended is not None]
    assert (first == again, first == other) == (True, False)
