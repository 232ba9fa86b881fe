"""`snapdrill bench`, tiny and for real: what it prints and what it leaves behind; never how fast anything was."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from sim import cli
from sim.record.verdict import ExitCode

SHM = "/dev/shm"  # noqa: S108 - asked for because it is tmpfs
KEYS = {
    "name", "layout", "page_size", "dest", "punch", "gib_per_s", "ratio_to_mmap_memmove", "ratio_to_memcpy",
    "peak_over", "peak_ratio", "spread", "goal", "met",
}  # fmt: skip


def left_in_shm(pid: int) -> list[str]:
    return [name for name in os.listdir(SHM) if name.startswith(f"snapdrill-bench-{pid}-")]


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    assert left_in_shm(os.getpid()) == []
    assert list(tmp_path.iterdir()) == []


def bench(capsys: pytest.CaptureFixture[str], *only: str) -> dict[str, Any]:
    chosen = [part for each in only for part in ("--only", each)]
    assert cli.main(["bench", "--json", "--rounds", "1", "--size", "16MiB", *chosen]) == ExitCode.HELD
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_copy_is_told_with_every_field_of_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    document = bench(capsys, "copy/full/4KiB/tmpfs/punch", "peak/full/4KiB/tmpfs")
    assert (document["version"], document["rounds"]) == (1, 1)
    assert document["machine"]["cpus"] >= 1
    assert document["left_out"] == []
    copy, peak = document["results"]
    assert set(copy) >= KEYS
    assert (copy["layout"], copy["page_size"], copy["dest"], copy["punch"]) == ("full", 4096, "tmpfs", True)
    assert copy["gib_per_s"] > 0
    assert copy["ratio_to_mmap_memmove"] > 0
    assert copy["ratio_to_memcpy"] > 0
    assert copy["met"] is None  # 16 MiB say nothing about a goal for 1 GiB
    assert 0 < peak["value"] == copy["peak_over"] < 16 << 20
    assert peak["met"] is True


def test_every_layout_is_copied_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    document = bench(capsys, "copy/*/4KiB/tmpfs/punch", "scan", "background-return", "first-chunk", "dedup-compare")
    reasons = {each["reason"] for each in document["left_out"]}
    assert reasons <= {"the kernel cannot list what a guest wrote (no write-protect scan)"}
    assert len(document["results"]) + len(document["left_out"]) == 6 + 2 + 2 + 2 + 1
    assert all(each["spread"][0] <= each["spread"][1] for each in document["results"])


def test_killing_first_comparing_and_finding_holes_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    document = bench(capsys, "kill-first", "dedup-return", "holes")
    reasons = {each["reason"] for each in document["left_out"]}
    assert reasons <= {"the kernel cannot list what a guest wrote (no write-protect scan)"}
    assert len(document["results"]) + len(document["left_out"]) == 2 + 1 + 2
    assert all(each["value"] > 0 for each in document["results"])


def test_a_wave_an_adopted_build_and_huge_pages_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    only = ["wave", "adopt/full", "adopt/clean-90%", "copy/full/4KiB/huge-tmpfs/punch", "peak/*/4KiB/huge-tmpfs/punch"]
    document = bench(capsys, *only)
    absent = ("write-protect scan", "huge-page caches")
    assert [each for each in document["left_out"] if not any(what in each["reason"] for what in absent)] == []
    assert len(document["results"]) + len(document["left_out"]) == 1 + 2 + 1 + 6
    assert all(each["met"] is not False for each in document["results"])
    assert all(each["cpu_ratio"] > 0 for each in document["results"] if each["name"] != "peak")
    load = document["load"]
    assert load["before"] >= 0
    assert 0 <= load["others_median"] <= load["others_most"] <= 1


def test_latencies_are_told_with_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    spawn, decision = bench(capsys, "spawn", "decision")["results"]
    assert (spawn["unit"], decision["unit"]) == ("ms", "us p99")
    assert spawn["value"] > 0
    assert decision["p50_us"] <= decision["p99_us"] == decision["value"]


@pytest.mark.privileged
def test_2_mib_pages_are_measured_or_left_out_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["bench", "--json", "--rounds", "1", "--size", "16MiB", "--only", "copy/full/2MiB/tmpfs/punch"])
    document = json.loads(capsys.readouterr().out)
    if document["left_out"]:
        assert code == ExitCode.UNSUPPORTED
        pytest.skip(document["left_out"][0]["reason"])
    assert document["results"][0]["page_size"] == 2 << 20


def test_the_text_has_a_table_and_the_goals(capsys: pytest.CaptureFixture[str]) -> None:
    only = ["--only", "copy/full/4KiB/tmpfs/punch", "--only", "spawn"]
    assert cli.main(["bench", "--rounds", "1", "--size", "16MiB", *only]) == ExitCode.HELD
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("16MiB of guest memory, 1 rounds")
    assert any(line.split()[:4] == ["full", "4KiB", "tmpfs", "yes"] and ">= 2.50" in line for line in lines)
    assert any(line.split()[:1] == ["spawn"] and "<= 3.00" in line for line in lines)


def test_a_name_that_matches_nothing_is_told_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--only", "cpoy"]) == ExitCode.NOTHING_SELECTED
    assert "copy, adopt, source-free, peak" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["16", "1MiB", "lots"])
def test_a_size_that_cannot_be_is_a_usage_error(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--size", size]) == ExitCode.USAGE
    assert "--size" in capsys.readouterr().err


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_no_guest_and_no_file(number: signal.Signals) -> None:
    command = "import sys; from sim.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["bench", "--rounds", "1000", "--size", "16MiB", "--only", "copy/full/4KiB"]
    with subprocess.Popen([sys.executable, "-c", command, *arguments], stdout=subprocess.DEVNULL) as running:
        end = time.monotonic() + 30
        while not (guests := children(running.pid)):
            assert time.monotonic() < end, "no guest was started"
            time.sleep(0.005)
        running.send_signal(number)
        assert running.wait(30) == 128 + number
    assert left_in_shm(running.pid) == []
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in guests)
