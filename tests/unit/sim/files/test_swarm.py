"""What a seed draws: within the bounds, the same each time, and always a scenario that can be run."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flags.document import DocumentError
from sim.files.faults import CATALOGUE
from sim.files.scenario import Scenario, load, load_text
from sim.files.steps import Crash, Expect, FlagStep, Inject, Restart
from sim.run.draw import draw, stream

MIB = 1 << 20
SEEDS = st.integers(0, 10_000)
SHIPPED = pathlib.Path(__file__).parents[4] / "scenarios" / "swarm" / "fleet.yaml"
BASE = """\
name: drawn
node: {{memory: 1GiB}}
fleet:
  - {{name: web, count: 4, memory: 8MiB, workload: {{dirty: 30%}}}}
  - {{name: api, count: 2, memory: 4MiB}}
flags: {{memfd-punch-on-snapshot: true}}
steps:
  - tick: 3
  - pause: {{sandboxes: "web-*"}}
  - expect: {{state: running}}
expect:
  - {{invariant: bytes_exact}}
  - {{metric: peak_over, max: 8MiB}}
swarm: {swarm}
"""


def scenario(swarm: str = "{}") -> Scenario:
    return load_text(BASE.format(swarm=swarm), pathlib.Path("base.yaml"))


def drawn(seed: int, swarm: str = "{}", *, huge_pages: bool = True) -> Scenario:
    return draw(scenario(swarm), seed, huge_pages=huge_pages)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_without_bounds_a_seed_draws_no_more_than_the_scenario_has(seed: int) -> None:
    run = drawn(seed)
    assert run.seed == seed
    assert run.swarm is None
    assert 1 <= len(run.sandboxes()) <= 6
    assert 1 <= len(run.fleet) <= 3
    assert all(2 * MIB <= each.memory <= 8 * MIB for each in run.fleet)
    assert {each.page_size for each in run.fleet} == {4096}


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_bounds_hold(seed: int) -> None:
    swarm = """
  fleet: {count: 3-5, groups: 2, memory: 4MiB-6MiB, dirty: 10%-20%, patterns: [runs, zero], teams: 1}
  flags: {keys: [memfd-background-copy], flips: 0-1}
  steps: {count: 2-3, acts: [pause, flag], ticks: 4, returned: false}
  faults: {count: 1-2, points: [copy.write, condemn], kinds: [errno, kill-node]}"""
    run = drawn(seed, swarm)
    assert 3 <= len(run.sandboxes()) <= 5
    assert len(run.fleet) == 2
    assert all(4 * MIB <= each.memory <= 6 * MIB for each in run.fleet)
    assert all(10 <= each.workload.dirty <= 20 and each.workload.pattern in {"runs", "zero"} for each in run.fleet)
    assert {each.team for each in run.fleet} == {"team-0"}
    assert run.flag_values.keys() <= {"memfd-background-copy", "memfd-punch-on-snapshot"}
    kinds = [each.kind for each in run.steps]
    assert kinds.count("checkpoint") == kinds.count("kill") == 0
    assert sum(isinstance(each, FlagStep) for each in run.steps) <= 1
    faults = faults_of(run)
    assert len(faults) <= 2
    assert {point for point, _ in faults} <= {"copy.write", "condemn"}
    assert {kind for _, kind in faults} <= {"errno", "kill-node"}


def faults_of(run: Scenario) -> Sequence[tuple[str, str]]:
    armed = [(each.fault, each.harm.kind) for each in run.steps if isinstance(each, Inject)]
    crashes = [(each.at.fault, "kill-node") for each in run.steps if isinstance(each, Crash) and each.at]
    return [*armed, *crashes]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_fault_is_one_that_the_catalogue_has(seed: int) -> None:
    assert all(kind in CATALOGUE[point].kinds for point, kind in faults_of(drawn(seed)))  # type: ignore[index]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_node_that_dies_is_started_again_before_anything_is_asked_of_it(seed: int) -> None:
    steps = drawn(seed).steps
    for at, step in enumerate(steps):
        if isinstance(step, Crash):
            awaited = steps[at + 1 : at + (2 if step.at is None else 8)]
            assert any(isinstance(each, Restart) for each in awaited)


def test_every_seed_ends_without_faults_and_says_what_all_must_have_come_to() -> None:
    for seed in range(50):
        kinds = [each.kind for each in drawn(seed).steps[-7:]]
        assert kinds == ["clear", "resume", "tick", "pause", "resume", "tick", "expect"]


def test_only_a_corrupt_snapshot_may_stay_paused() -> None:
    for seed in range(100):
        run = drawn(seed)
        last = run.steps[-1]
        assert isinstance(last, Expect)
        corrupt = any(kind == "corrupt" for _, kind in faults_of(run))
        assert set(last.state or ()) == {"running", "discarded", "killed"} | ({"paused"} if corrupt else set())


def test_the_same_seed_draws_the_same_and_others_draw_others() -> None:
    texts = [drawn(seed).source_text for seed in range(50)]
    assert texts == [drawn(seed).source_text for seed in range(50)]
    assert len(set(texts)) == 50


def test_a_drawn_scenario_is_one_that_anybody_can_load() -> None:
    run = drawn(7)
    again = load_text(run.source_text, pathlib.Path("elsewhere.yaml"))
    assert again.model_dump() == run.model_dump()
    assert "swarm" not in run.source_text


def test_what_no_seed_has_is_not_drawn_where_the_host_cannot_do_it() -> None:
    swarm = "{fleet: {page_sizes: [4KiB, 2MiB], block_sizes: [4KiB, 2MiB]}}"
    sizes = {each.page_size for seed in range(40) for each in drawn(seed, swarm).fleet}
    assert sizes == {4096, 2 * MIB}
    assert {each.page_size for seed in range(40) for each in drawn(seed, swarm, huge_pages=False).fleet} == {4096}


def test_the_scenarios_own_steps_come_first_where_they_mean_anybody() -> None:
    for seed in range(30):
        run = drawn(seed)
        assert run.steps[0].kind == "tick"
        has_web = any(fnmatchcase(each.name, "web-*") for each in run.sandboxes())
        assert (getattr(run.steps[1], "sandboxes", None) == "web-*") is has_web
        assert all(getattr(each, "allow_empty", True) for each in run.steps if each.kind in {"pause", "resume"})


def test_metrics_are_kept_and_invariants_are_left_to_all_seeds_together() -> None:
    assert [each.model_dump(exclude_unset=True) for each in drawn(1).expect] == [
        {"metric": "peak_over", "max": 8.0 * MIB, "allow_empty": True}
    ]


def test_features_come_and_go_from_seed_to_seed() -> None:
    """Swarm testing: each of them is missing in some seeds, and there in others."""
    runs = [drawn(seed) for seed in range(100)]
    for kind in ("checkpoint", "resume", "kill", "flag", "inject", "crash"):
        having = sum(any(each.kind == kind for each in run.steps[:-7]) for run in runs)
        assert 5 < having < 95, kind
    points = {point for run in runs for point, _ in faults_of(run)}
    assert points == set(CATALOGUE)
    threads = [group.workload.threads for run in runs for group in run.fleet]
    assert set(threads) == {1, 2}
    assert 0.2 < threads.count(2) / len(threads) < 0.4


@pytest.mark.parametrize(
    ("swarm", "message"),
    [
        ("{fleet: {count: 6-1}}", 'swarm.fleet.count: the range "6-1" is empty; write the smaller end first'),
        ("{fleet: {memory: 8-9}}", 'swarm.fleet.memory: expected a size such as 32MiB, got "8"'),
        ("{fleet: {dirty: 0%}}", 'swarm.fleet.dirty: expected whole percents from 1%, got "0%"'),
        ("{fleet: {count: 1-2-3}}", 'swarm.fleet.count: expected a range such as 1-6, got "1-2-3"'),
        ("{fleet: {count: 0-3}}", "swarm.fleet.count: expected at least 1, got 0"),
        ("{faults: {kinds: [errno, bang]}}", "swarm.faults.kinds[1]: unknown value"),
        ("{speps: {}}", 'swarm.speps: unknown key; did you mean "steps"?'),
        ("{fleet: {count: 600}}", "swarm: the largest fleet would need 4800MiB"),
    ],
)
def test_bounds_that_make_no_sense_are_told_at_their_place(swarm: str, message: str) -> None:
    with pytest.raises(DocumentError, match=r"base\.yaml:14:") as caught:
        scenario(swarm)
    assert message in str(caught.value)


def test_streams_of_different_purposes_are_independent() -> None:
    values: dict[Any, float] = {(seed, what): stream(seed, what).random() for seed in range(5) for what in ("a", "b")}
    assert len(set(values.values())) == 10
    assert values[3, "a"] == stream(3, "a").random()


def test_the_shipped_swarm_stays_small() -> None:
    base = load(SHIPPED)
    for seed in range(50):
        run = draw(base, seed, huge_pages=False)
        assert len(run.sandboxes()) <= 6
        assert all(each.memory <= 8 * MIB for each in run.fleet)
