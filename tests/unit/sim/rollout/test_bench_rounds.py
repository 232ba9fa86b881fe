"""What a bench makes of its rounds: order, noise, what failed, and the rows that are chosen."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import statistics

import pytest

from engine.errors import EngineError
from sim.rollout import bench, bench_host, bench_report, bench_ways
from sim.rollout.bench import BenchMeasurement, BenchRow, Goal
from sim.rollout.bench_report import Report, Result, Rounds
from sim.rollout.bench_ways import Bench, BenchCase, BenchTaken
from sim.run.build_folders import SHM
from tests.descriptors import open_before

GIB = 1 << 30


def take(_bench: Bench, _case: BenchCase) -> BenchTaken:
    return BenchTaken({"value": 1.0}, noisy=False)


def fail(_bench: Bench, _case: BenchCase) -> BenchTaken:
    raise EngineError("no such thing here")


NEED = BenchMeasurement(take, BenchCase("full"))


def row(**changes: object) -> BenchRow:
    fields: dict[str, object] = {"name": "copy", "case": NEED.case, "needs": (NEED,), "figures": dict}
    return BenchRow(**{**fields, **changes})  # type: ignore[arg-type]


def taken(*values: float, noisy: tuple[int, ...] = ()) -> Rounds:
    return Rounds([{NEED: BenchTaken({"value": value}, at in noisy)} for at, value in enumerate(values)])


def result(wanted: BenchRow, measured: Rounds) -> Result:
    found = bench_report.result(wanted, measured)
    assert isinstance(found, Result)
    return found


def test_the_median_leaves_out_disturbed_rounds_and_counts_them() -> None:
    found = result(row(), taken(1, 2, 3, 99, 98, noisy=(3, 4)))
    assert (found.figures["value"], found.spread, found.dropped_rounds, found.disturbed) == (2, (1, 3), 2, False)


def test_where_every_round_was_disturbed_the_result_says_so_and_judges_nothing() -> None:
    found = result(row(goal=Goal(10.0)), taken(1, 3, noisy=(0, 1)))
    assert (found.figures["value"], found.disturbed) == (2, True)
    assert Report(GIB, 2, 1, {}, [found], []).met(found) is None


def test_what_is_not_timed_is_never_disturbed() -> None:
    found = result(row(timed=False, summary=max), taken(1, 3, noisy=(0, 1)))
    assert (found.figures["value"], found.dropped_rounds, found.disturbed) == (3, 0, False)


def test_a_ratio_is_taken_round_by_round_before_the_median() -> None:
    other = BenchMeasurement(take, BenchCase("other"))
    pairs = [(1.0, 10.0), (8.0, 2.0), (3.0, 3.0)]
    measured = Rounds(
        [{NEED: BenchTaken({"v": a}, noisy=False), other: BenchTaken({"v": b}, noisy=False)} for a, b in pairs]
    )
    wanted = row(needs=(NEED, other), figures=lambda one, two: {"value": one["v"] / two["v"]})
    assert result(wanted, measured).figures["value"] == statistics.median([0.1, 4.0, 1.0])


def test_a_measurement_that_fails_takes_its_row_out_with_the_reason() -> None:
    broken = BenchMeasurement(fail, BenchCase())
    measured = bench_report.run([row(needs=(broken, NEED))], Bench(4096), 2, seed=1, step=lambda _text: None)
    assert bench_report.result(row(needs=(broken, NEED)), measured) == "no such thing here"


def test_every_round_measures_each_need_once_however_many_rows_share_it() -> None:
    steps: list[str] = []
    measured = bench_report.run([row(), row(name="peak")], Bench(4096), 3, seed=1, step=steps.append)
    assert [len(each) for each in measured.taken] == [1, 1, 1]
    assert steps[-1] == "round 3 of 3, 1 of 1"


def test_a_round_is_shuffled_but_keeps_a_case_together() -> None:
    needs = [BenchMeasurement(how, BenchCase(f"layout-{n}")) for n in range(6) for how in (take, fail)]
    orders = [bench_report.in_order(needs, random.Random(seed)) for seed in range(5)]
    assert len({tuple(order) for order in orders}) > 1
    for order in orders:
        assert set(order) == set(needs)
        assert all(order[at].case == order[at + 1].case for at in range(0, len(order), 2))


def test_a_goal_is_judged_only_from_the_size_it_is_stated_for() -> None:
    found = result(row(goal=Goal(2.5, at_least=True, size=GIB)), taken(3, 3))
    assert Report(GIB, 2, 1, {}, [found], []).met(found) is True
    assert Report(GIB // 2, 2, 1, {}, [found], []).met(found) is None


@pytest.mark.parametrize(
    ("goal", "value", "met"), [(Goal(2.5, at_least=True), 2.4, False), (Goal(8.0), 8.0, True), (Goal(8.0), 8.1, False)]
)
def test_a_goal_is_a_least_or_a_most(goal: Goal, value: float, met: bool) -> None:
    assert goal.is_met(value) is met


@pytest.mark.parametrize(("share", "met"), [(0.7, True), (0.8, False)])
def test_where_every_round_was_disturbed_cpu_is_judged_and_else_time(share: float, met: bool) -> None:
    wanted = row(
        name="wave",
        figures=lambda one: {"value": one["value"], "cpu_ratio": share},
        goal=Goal(2.5, at_least=True, size=GIB),
        cpu_goal=Goal(0.75, size=GIB),
    )
    disturbed, quiet = result(wanted, taken(1, 9, noisy=(0, 1))), result(wanted, taken(1, 2, 9, noisy=(2,)))
    report = Report(GIB, 2, 1, {}, [disturbed, quiet], [])
    assert (report.met(disturbed), report.met(quiet)) == (met, False)
    first, second = report.document()["results"]
    assert [(each["met"], each["met_by"]) for each in (first, second)] == [(met, "cpu"), (False, "time")]
    small = Report(GIB // 2, 2, 1, {}, [disturbed], [])
    assert (small.met(disturbed), "needs 1GiB" in small.text()) == (None, True)


def test_the_load_is_that_of_every_measurement() -> None:
    rounds = Rounds([{NEED: BenchTaken({}, noisy=False, others=share)} for share in (0.0, 0.1, 0.9)])
    said = bench_report.MachineLoad.of(0.5, 2.25, rounds).sentence()
    assert "0.50 before and 2.25 after" in said
    assert "10% of the CPUs (median), at most 90%" in said


def test_every_row_has_a_label_of_its_own() -> None:
    labels = [each.label for each in bench.rows()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        ("copy", {"copy/full/4KiB/tmpfs/punch", "copy/full/2MiB/disk/no-punch", "copy/clean-90%/4KiB/disk/punch"}),
        ("copy/full/4KiB/tmpfs", {"copy/full/4KiB/tmpfs/punch", "copy/full/4KiB/tmpfs/no-punch"}),
        ("*/2MiB/tmpfs/punch", {"copy/full/2MiB/tmpfs/punch", "peak/full/2MiB/tmpfs/punch"}),
    ],
)
def test_only_takes_a_name_its_beginning_or_a_glob(only: str, chosen: set[str]) -> None:
    selected = {each.label for each in bench.rows() if each.is_selected([only])}
    assert chosen <= selected
    assert "decision" not in selected
    assert "cop" not in selected


def test_a_beginning_ends_at_a_slash() -> None:
    assert not [each for each in bench.rows() if each.is_selected(["cop"])]


def test_a_document_has_null_for_what_does_not_apply_and_a_reason_for_what_was_left_out() -> None:
    found = result(row(name="spawn", case=BenchCase(), unit="ms", goal=Goal(3.0)), taken(2.0))
    document = Report(GIB, 1, 7, {"cpus": 2}, [found], [(row(), "no disk")]).document()
    entry = document["results"][0]
    assert (document["version"], document["machine"], document["rounds"]) == (1, {"cpus": 2}, 1)
    assert (entry["value"], entry["unit"], entry["goal"], entry["goal_is"], entry["met"]) == (
        2,
        "ms",
        3,
        "at most",
        True,
    )
    assert all(entry[name] is None for name in ("layout", "dest", "punch", "gib_per_s", "ratio_to_memcpy", "peak_over"))
    assert [(each["name"], each["reason"]) for each in document["left_out"]] == [("copy", "no disk")]


def test_the_text_tells_a_missed_goal_and_why_a_row_was_left_out() -> None:
    found = result(row(name="spawn", case=BenchCase(), unit="ms", goal=Goal(3.0)), taken(4.5))
    lines = Report(GIB, 1, 7, {"cpus": 2}, [found], [(row(), "no disk")]).text().splitlines()
    assert "1GiB of guest memory, 1 rounds, 2 CPUs" in lines
    assert any(line.split()[:2] == ["spawn", "4.50"] and "NO" in line.split() for line in lines)
    assert "left out: copy/full: no disk" in lines


def test_a_few_percent_of_others_are_tolerated_and_more_are_noise() -> None:
    assert not bench_host.is_noisy(others=0.10, wall=1.0, cpus=2)
    assert bench_host.is_noisy(others=0.13, wall=1.0, cpus=2)
    assert not bench_host.is_noisy(others=0.02, wall=0.001, cpus=2)  # /proc/stat counts in 10 ms


def test_cpu_that_we_took_is_not_taken_for_that_of_others() -> None:
    before = bench_host.own_seconds()
    sum(range(3_000_000))
    assert bench_host.own_seconds() > before
    assert bench_host.cpu_seconds_of(os.getpid()) > 0


def pool(folder: pathlib.Path, total: int, free: int) -> pathlib.Path:
    (folder / "nr_hugepages").write_text(f"{total}\n")
    (folder / "free_hugepages").write_text(f"{free}\n")
    return folder


def test_a_pool_with_enough_free_pages_is_left_as_it_is(tmp_path: pathlib.Path) -> None:
    with bench_host.pool_of(4 << 20, pool(tmp_path, 8, 2)) as refusal:
        assert refusal is None
    assert (tmp_path / "nr_hugepages").read_text() == "8\n"


def test_a_pool_that_was_raised_is_put_back_whatever_happens(tmp_path: pathlib.Path) -> None:
    def interrupted() -> None:
        with bench_host.pool_of(10 << 20, pool(tmp_path, 3, 1)) as refusal:
            assert (tmp_path / "nr_hugepages").read_text() == "7"
            assert refusal == "the kernel found 1 of 5 pages of 2 MiB"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "nr_hugepages").read_text() == "3"


def test_a_host_without_a_pool_is_told_and_nothing_is_written(tmp_path: pathlib.Path) -> None:
    with bench_host.pool_of(2 << 20, tmp_path / "absent") as refusal:
        assert refusal == "no pool of 2 MiB pages: ENOENT"


def signalled(number: signal.Signals, reached: list[str]) -> None:
    with bench_host.interrupts_between() as check:
        check()
        signal.raise_signal(number)
        reached.append("after the signal")
        check()
        reached.append("after the check")


def test_an_interrupt_waits_for_the_next_check() -> None:
    before, reached = signal.getsignal(signal.SIGINT), list[str]()
    with pytest.raises(KeyboardInterrupt):
        signalled(signal.SIGINT, reached)
    assert reached == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_termination_ends_with_its_own_code() -> None:
    with pytest.raises(SystemExit) as ended:
        signalled(signal.SIGTERM, [])
    assert ended.value.code == 143


def test_rows_for_2_mib_pages_are_left_out_with_the_pools_reason() -> None:
    huge = row(case=BenchCase("full", 2 << 20, "tmpfs", punch=True))
    assert bench.reason_to_leave_out(huge, GIB, {}, "no pool") == "no pool"
    odd = bench.reason_to_leave_out(huge, (2 << 20) + 4096, {}, None)
    assert odd is not None
    assert "multiple of 2MiB" in odd


def test_a_disk_row_is_left_out_where_the_folder_is_a_tmpfs() -> None:
    disk = row(case=BenchCase("full", 4096, "disk", punch=True))
    reason = bench.reason_to_leave_out(disk, GIB, {"disk": SHM}, None)
    assert reason is not None
    assert "--cache-dir" in reason


def test_destinations_are_gone_afterwards(tmp_path: pathlib.Path) -> None:
    with bench_host.destinations(tmp_path) as folders:
        assert all(folder.is_dir() for folder in folders.values())
    assert not any(folder.exists() for folder in folders.values())
    assert list(tmp_path.iterdir()) == []


def test_memory_that_was_warmed_is_free_again(tmp_path: pathlib.Path) -> None:
    fds = open_before()
    bench_ways.warm(tmp_path, 1 << 20)
    assert len(os.listdir("/proc/self/fd")) == fds
    assert list(tmp_path.iterdir()) == []
