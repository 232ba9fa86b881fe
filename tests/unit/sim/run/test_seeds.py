"""Many seeds of one scenario: which are meant, and what they come to together."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterable, Iterator
from typing import Any, Self, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from sim.files.scenario import Scenario, load_text
from sim.record import events
from sim.record.ledger import Entry
from sim.record.verdict import ExitCode
from sim.run.batch import NEVER, NOT_HELD, Batch
from sim.run.cases import Unit, UnitResult
from sim.run.draw import as_run
from sim.run.pool import Pool
from sim.run.seeds import (
    SeedOptions,
    Seeds,
    document,
    parse_seeds,
    run_scenarios,
    run_seeds,
    seed_line,
    summary,
)

PLAIN = """\
name: plain
fleet:
  - {name: web, memory: 4MiB}
steps:
  - inject: {fault: copy.write}
"""
SWARM = PLAIN + "swarm: {}\n"
INVARIANTS = ("never_resumed", "bytes_exact")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", (7,)),
        ("1-4", (1, 2, 3, 4)),
        ("5,9,20-22", (5, 9, 20, 21, 22)),
        ("3, 1-3", (3, 1, 2)),
        ("0-0", (0,)),
    ],
)
def test_seeds_are_listed_or_ranges_each_once(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'expected seeds such as 1-200 or 5,9,20-30, got ""'),
        ("1-", 'got "1-"'),
        ("-3", 'got "-3"'),
        ("1,,2", 'got ""'),
        ("9-5", "the range 9-5 is empty; write the smaller seed first"),
        ("1-99999999", "more than 1,000,000 seeds"),
    ],
)
def test_what_are_no_seeds_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError, match="--seeds: ") as caught:
        parse_seeds(text)
    assert message in str(caught.value)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True))
def test_what_is_written_is_what_is_run(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == tuple(seeds)


# -- judged together


class FakePool:
    """Gives each seed the result that the test wrote down for it; others hold."""

    def __init__(self, results: dict[int, dict[str, Any]]) -> None:
        self._results = results
        self.units: list[Unit] = []
        self.lacking: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def lacks(self, scenario: Scenario) -> str | None:
        return self.lacking.get(scenario.name)

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        for unit in units:
            self.units.append(unit)
            given = {"verdict": "held", "entries": invariants(1, 1)} | self._results.get(int(unit.name), {})
            yield UnitResult(unit.name, **given)


def judged(subject: str, verdict: str, checked: int, **reason: object) -> Entry:
    return Entry(0.0, events.Judged(subject, verdict, checked, [reason] if reason else []), None, None)


def invariants(*checked: int) -> tuple[Entry, ...]:
    return tuple(judged(f"invariant:{n}", "held", c) for n, c in zip(INVARIANTS, checked, strict=True))


def inconclusive(subject: str, line: int = 5) -> Entry:
    return judged(subject, "inconclusive", 0, line=line, column=3, reason="it never fired")


def together(tmp_path: pathlib.Path, text: str, results: dict[int, dict[str, Any]], count: int = 3) -> Seeds:
    return run_with(FakePool(results), tmp_path, text, count)


def run_with(pool: FakePool, tmp_path: pathlib.Path, text: str, count: int = 3, *, fail_fast: bool = False) -> Seeds:
    scenario = load_text(text, tmp_path / "x.yaml")
    seeds, stops_at = Seeds(scenario, count), NOT_HELD if fail_fast else NEVER
    run_seeds(seeds, options(tmp_path, count), cast("Pool", pool), Batch(quiet=True, stops_at=stops_at))
    return seeds


def options(tmp_path: pathlib.Path, count: int) -> SeedOptions:
    return SeedOptions(tuple(range(1, count + 1)), tmp_path, 2)


@pytest.mark.parametrize("text", [PLAIN, SWARM])
def test_seeds_that_all_hold_hold(tmp_path: pathlib.Path, text: str) -> None:
    seeds = together(tmp_path, text, {})
    assert seeds.exit_code == ExitCode.HELD
    assert seeds.failing == []
    assert "plain   3 seeds   HELD" in summary(seeds)


def test_one_violation_is_told_with_its_seed_subject_and_sandbox(tmp_path: pathlib.Path) -> None:
    broken = judged("invariant:no_leaks", "violated", 1, sandbox="web-0", reason="it is still there")
    seeds = together(tmp_path, SWARM, {2: {"verdict": "violated", "entries": (broken,), "run_dir": tmp_path / "r"}})
    assert seeds.exit_code == ExitCode.VIOLATED
    assert [seed_line(each).splitlines() for each in seeds.failing] == [
        ["seed 2  VIOLATED  invariant:no_leaks  web-0: it is still there", f"  {tmp_path}/r"]
    ]
    assert f"snapdrill shrink {tmp_path}/r" in summary(seeds)
    assert document(seeds)["failing"][0]["seed"] == 2


def test_a_run_that_broke_is_an_error_of_its_seed(tmp_path: pathlib.Path) -> None:
    seeds = together(tmp_path, SWARM, {3: {"verdict": None, "entries": (), "error": "Traceback\nOSError: no"}})
    assert seeds.exit_code == ExitCode.INTERNAL
    assert seed_line(seeds.failing[0]) == "seed 3  ERROR: OSError: no"


def test_what_one_seed_did_not_show_another_one_did(tmp_path: pathlib.Path) -> None:
    unfired = {"verdict": "inconclusive", "entries": (*invariants(1, 1), inconclusive("fault:copy.write"))}
    assert together(tmp_path, PLAIN, {1: unfired, 2: unfired}).exit_code == ExitCode.HELD
    seeds = together(tmp_path, PLAIN, {1: unfired, 2: unfired, 3: unfired})
    assert seeds.exit_code == ExitCode.INCONCLUSIVE
    assert seeds.unexercised == [("fault:copy.write", "it never fired")]


def test_two_places_that_each_fail_to_show_something_are_two_things(tmp_path: pathlib.Path) -> None:
    runs = {
        seed: {"verdict": "inconclusive", "entries": (*invariants(1, 1), inconclusive("selection", line))}
        for seed, line in {1: 5, 2: 6, 3: 5}.items()
    }
    assert together(tmp_path, PLAIN, runs).exit_code == ExitCode.HELD


def test_where_seeds_draw_their_scenario_only_invariants_must_be_exercised(tmp_path: pathlib.Path) -> None:
    unfired = {"verdict": "inconclusive", "entries": (*invariants(1, 1), inconclusive("fault:copy.write"))}
    assert together(tmp_path, SWARM, dict.fromkeys((1, 2, 3), unfired)).exit_code == ExitCode.HELD
    idle = {"entries": invariants(1, 0)}
    assert together(tmp_path, SWARM, {1: idle, 2: idle}).exit_code == ExitCode.HELD
    seeds = together(tmp_path, SWARM, dict.fromkeys((1, 2, 3), idle))
    assert seeds.exit_code == ExitCode.INCONCLUSIVE
    assert seeds.unexercised == [("invariant:bytes_exact", "no seed exercised it")]


def test_a_seed_that_ran_out_of_time_is_inconclusive_whatever_others_showed(tmp_path: pathlib.Path) -> None:
    cut = {"verdict": "inconclusive", "entries": (*invariants(1, 1), inconclusive("time-limit"))}
    seeds = together(tmp_path, SWARM, {2: cut})
    assert seeds.exit_code == ExitCode.INCONCLUSIVE
    assert [each.seed for each in seeds.failing] == [2]


def test_faults_are_counted_by_point_and_kind(tmp_path: pathlib.Path) -> None:
    errors = ("EIO", "ENOSPC", "delay 5 ms")
    fired = [Entry(0.0, events.FaultFired(1, "copy.write", error, 0), "web-0", "web-0.p1") for error in errors]
    seeds = together(tmp_path, PLAIN, {1: {"entries": tuple(fired)}})
    assert seeds.fired == {("copy.write", "errno"): 2, ("copy.write", "delay"): 1}
    assert seeds.never_fired == []
    assert document(seeds)["fired"] == {"copy.write": {"errno": 2, "delay": 1}}
    assert max(map(len, summary(seeds).splitlines())) <= 80


def test_a_fault_that_never_fired_is_named(tmp_path: pathlib.Path) -> None:
    seeds = together(tmp_path, PLAIN, {})
    assert seeds.never_fired == [("copy.write", "errno")]
    assert "armed, but never fired: copy.write (errno)" in summary(seeds)


def test_fail_fast_ends_with_the_first_seed_that_does_not_hold(tmp_path: pathlib.Path) -> None:
    pool = FakePool({2: {"verdict": "violated", "entries": (judged("state:*", "violated", 1),)}})
    seeds = run_with(pool, tmp_path, PLAIN, 9, fail_fast=True)
    assert [each.seed for each in seeds.done] == [1, 2]
    assert "7 not run" in summary(seeds)


def test_a_run_that_holds_leaves_no_folder(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "plain" / "one"
    folder.mkdir(parents=True)
    (tmp_path / "plain" / "latest").symlink_to("one")
    together(tmp_path, PLAIN, {1: {"run_dir": folder}})
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_run_that_has_not_ended_is_kept_for_its_record(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "plain" / "one"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}", encoding="utf-8")
    seeds = together(tmp_path, PLAIN, {1: {"run_dir": folder}})
    assert folder.exists()
    assert [each.run_dir for each in seeds.done] == [folder, None, None]


def test_without_swarm_every_seed_runs_the_file_and_with_it_what_it_drew(tmp_path: pathlib.Path) -> None:
    pool = FakePool({})
    run_with(pool, tmp_path, PLAIN)
    assert {each.text for each in pool.units} == {PLAIN}
    assert [each.seed for each in pool.units] == [1, 2, 3]
    pool = FakePool({})
    run_with(pool, tmp_path, SWARM)
    assert len({each.text for each in pool.units}) == 3
    assert all("swarm" not in each.text for each in pool.units)


def test_a_single_run_of_a_swarm_is_what_its_seed_draws(tmp_path: pathlib.Path) -> None:
    swarm, plain = (load_text(text, tmp_path / "x.yaml") for text in (SWARM, PLAIN))
    assert as_run(plain, 5) is plain
    assert as_run(swarm, None).seed == 0
    assert as_run(swarm, 5).source_text == as_run(swarm, 5).source_text != as_run(swarm, 6).source_text


# -- several scenarios


def several(tmp_path: pathlib.Path, pool: FakePool, monkeypatch: pytest.MonkeyPatch, batch: Batch) -> Any:
    """The code and the document of three scenarios, a, b and c, with two seeds each."""
    monkeypatch.setattr("sim.run.seeds.open_pool", lambda *_: pool)
    scenarios = [load_text(PLAIN.replace("name: plain", f"name: {name}"), tmp_path / "x.yaml") for name in "abc"]
    return run_scenarios(scenarios, options(tmp_path, 2), batch)


def test_the_worst_of_the_scenarios_is_the_code(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    violated = {"verdict": "violated", "entries": (judged("state:*", "violated", 1),)}
    code, found = several(tmp_path, FakePool({2: violated}), monkeypatch, Batch(quiet=True))
    assert (code, found["exit_code"]) == (ExitCode.VIOLATED, 1)
    assert [(each["name"], each["exit_code"], each["run"]) for each in found["scenarios"]] == [
        ("a", 1, 2),
        ("b", 1, 2),
        ("c", 1, 2),
    ]
    assert found.keys() == {"version", "exit_code", "scenarios"}


def test_what_the_pool_cannot_run_is_skipped_by_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool({})
    pool.lacking = {"b": "it requires a moon"}
    code, found = several(tmp_path, pool, monkeypatch, Batch(quiet=True, strict=True))
    assert (code, found["exit_code"]) == (ExitCode.UNSUPPORTED, 4)
    assert found["skipped"] == [{"name": "b", "reason": "it requires a moon"}]
    assert [each["name"] for each in found["scenarios"]] == ["a", "c"]


def test_with_fail_fast_no_scenario_begins_behind_one_with_a_seed_that_did_not_hold(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = FakePool({1: {"verdict": "violated", "entries": (judged("state:*", "violated", 1),)}})
    code, told = several(tmp_path, pool, monkeypatch, Batch(quiet=True, stops_at=NOT_HELD))
    assert (code, len(pool.units)) == (ExitCode.VIOLATED, 1)
    assert told["not_run"] == ["b", "c"]


def test_an_interrupt_reports_the_seeds_that_have_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(FakePool):
        def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
            for result in super().run(units):
                if len(self.units) == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield result

    code, told = several(tmp_path, Interrupted({}), monkeypatch, Batch())
    assert (code, told["exit_code"]) == (ExitCode.TERMINATED, 143)
    assert [(each["name"], each["run"]) for each in told["scenarios"]] == [("a", 2), ("b", 1)]
    printed = capsys.readouterr()
    assert "1 held, 1 not run" in printed.out
    assert printed.err == "b: interrupted; everything it started was ended\n"
