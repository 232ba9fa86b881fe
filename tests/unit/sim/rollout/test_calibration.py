"""The calibration file: the line through two benches, and what is refused."""

from __future__ import annotations

import json
import pathlib
from datetime import UTC, datetime

import pytest

from engine.errors import UserError
from sim.rollout import bench_guest
from sim.rollout.bench import BenchRow
from sim.rollout.bench_report import SMALL, Calibration, Report, Result, calibration, read, write
from sim.rollout.bench_ways import BenchCase

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
GIB = 1 << 30


def report(size: int, ms: float, *, disturbed: bool = False) -> Report:
    """One in which a punching pause of so many bytes takes so many milliseconds."""
    row = BenchRow("copy", BenchCase(bench_guest.FULL, 4096, "disk", punch=True), (), dict, "gib_per_s")
    figures = {"gib_per_s": size / GIB / (ms / 1e3), "peak_over": 4.0 * 2**20}
    return Report(size, 3, 1, {"cpus": 2}, [Result(row, figures, (0, 0), 0, disturbed)], [])


def made(**changed: bool) -> Calibration:
    return calibration(report(GIB, 5 + 400), report(SMALL, 5 + 400 * SMALL / GIB, **changed), NOW)


def test_two_sizes_tell_the_fixed_part_and_what_grows() -> None:
    cost = made().cost(4096, "disk", punch=True)
    assert cost is not None
    assert cost.fixed_ms == pytest.approx(5, abs=0.02)
    assert cost.ms_per_gib == pytest.approx(400, abs=0.1)
    assert (cost.peak_over, cost.disturbed) == (4 << 20, False)


def test_a_cost_from_a_disturbed_bench_says_so() -> None:
    assert made(disturbed=True).costs[0].disturbed


def test_what_the_machine_could_not_measure_has_no_cost() -> None:
    assert made().cost(2 << 20, "disk", punch=True) is None


def test_it_is_read_as_it_was_written_and_knows_its_age(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "c.json", made())
    found = read(tmp_path / "c.json")
    assert found == made()
    assert found.age(datetime(2026, 5, 3, 12, tzinfo=UTC)) == 2 * 86_400


def test_a_bench_without_copies_calibrates_nothing() -> None:
    with pytest.raises(UserError, match="no copy was measured"):
        calibration(Report(GIB, 1, 1, {}, [], []), Report(SMALL, 1, 1, {}, [], []), NOW)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "bench"}, "kind: "),
        ({"made_at": "yesterday"}, "no calibration file"),
        ({"costs": []}, "costs: "),
        ({"speed": 1}, "speed: "),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: pathlib.Path, change: dict[str, object], told: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(made().model_dump() | change))
    with pytest.raises(UserError, match=told):
        read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"c\.json: cannot be read"):
        read(tmp_path / "c.json")
