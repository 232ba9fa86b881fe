"""Real runs through Dask: what it executes comes to the same, and whatever dies or is interrupted leaves nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import UserError
from sim.cli import main
from sim.files.scenario import load_text
from sim.record import events
from sim.record.folder import read_record
from sim.record.ledger import EVENTS_FILE, Entry
from sim.record.leftovers import processes_of
from sim.run.cases import Unit, UnitResult
from sim.run.certificates import TLS_DIR
from sim.run.dask import open_pool
from sim.run.pool import Pool

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None, reason="needs the extra: pip install 'snapdrill[cluster]'"
    ),
    pytest.mark.timeout(120),
]
ROOT = pathlib.Path(__file__).parents[3]
SNAPDRILL = "import sys; from sim.cli import main; sys.exit(main())"
WaitUntil = Callable[..., Any]
BUDGET = 1 << 30
FAULT = """\
  - tick: 1
  - inject: {fault: copy.write, errno: EIO, at: {chunk: 1}, sandboxes: web-1}
  - pause: {}
"""
FAILING = "  - tick: 1\n  - pause: {}\n  - expect: {sandboxes: web-0, state: [running]}\n"
LONG = "  - tick: 1\n  - wait: 60s\n"


def unit_of(runs: Any, steps: str = "  - tick: 1\n", **more: Any) -> Unit:
    text = runs.scenario_text(memory="4MiB", steps=steps)
    return dataclasses.replace(Unit.of("u", load_text(text, runs.folder / "crash.yaml"), runs.runs), **more)


def same(entry: Entry) -> Entry:
    """Without its times."""
    event = entry.event
    if isinstance(event, events.PauseSettled):
        event = dataclasses.replace(
            event, copy_ms=None, blocked_ms=0.0, peak_over=None, peak_ratio=None, cpu_seconds=None
        )
    return dataclasses.replace(entry, t=0.0, event=event)


def results_of(pool: Pool, units: list[Unit]) -> dict[str, UnitResult]:
    """By name, without what differs from one run of the same to the next: times, and which sandbox was first."""
    return {
        each.name: dataclasses.replace(
            each,
            seconds=0.0,
            run_dir=None,
            entries=tuple(sorted((same(entry) for entry in each.entries), key=str)),
        )
        for each in pool.run(units)
    }


class ByHand:
    """`snapdrill worker` processes, the first of which is the scheduler too. Each has a folder of its own."""

    def __init__(self, folder: pathlib.Path, certificates: pathlib.Path | None = None) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.address = "tcp://127.0.0.1:0"
        self.tls: list[str] = []
        if certificates is not None:
            self.address, self.tls = "tls://127.0.0.1:0", ["--tls-dir", str(certificates)]
        self.address = self.start("--scheduler").split()[3].removesuffix(":")

    def start(self, *options: str) -> str:
        """Gives its first line, which it prints when it has joined."""
        runs_dir = self.runs_dir(len(self.processes))
        command = [sys.executable, "-c", SNAPDRILL, "worker", self.address, *options, *self.tls, "--jobs", "1"]
        process = subprocess.Popen(
            [*command, "--memory", "1GiB", "--runs-dir", str(runs_dir)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline()

    def runs_dir(self, number: int) -> pathlib.Path:
        return self.folder / f"worker-{number}"

    def live_runs(self, number: int) -> list[str]:
        """Ids of what a worker runs, once its guests work."""
        found = [each.parent for each in self.runs_dir(number).glob(f".unit-*/*/*/{EVENTS_FILE}")]
        begun = [each for each in found if not each.is_symlink() and '"ticked"' in (each / EVENTS_FILE).read_text()]
        return [read_record(each).run for each in begun]

    def end(self, but: int = 0) -> None:
        """All of them, or all but so many, the oldest."""
        while len(self.processes) > but:
            process = self.processes.pop()
            process.terminate()
            process.wait(60)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    made = ByHand(tmp_path_factory.mktemp("by-hand"))
    yield made
    made.end()


@pytest.fixture
def by_hand(scheduler: ByHand) -> Iterator[ByHand]:
    """The first worker, which no test of these ends, is that of all; further ones are of one test."""
    yield scheduler
    assert scheduler.processes[0].poll() is None
    scheduler.end(but=1)


def assert_nothing_is_left(folders: list[pathlib.Path], *ids: str) -> None:
    assert [pid for each in ids for pid in processes_of(each)] == []
    assert [path for each in folders for path in (*each.rglob(".unit-*"), *each.rglob(".unpacked-*"))] == []


@pytest.mark.slow
def test_whoever_executes_them_units_come_to_the_same(runs: Any, by_hand: ByHand) -> None:
    by_hand.start()
    units = [unit_of(runs, FAULT, name=f"fault-{n}", seed=n, trace=True, keep="never") for n in range(3)]
    units += [unit_of(runs, FAILING, name="failing"), unit_of(runs, name="bad", text="name: x\n")]
    with open_pool(None, 2, BUDGET) as pool:
        here = results_of(pool, units)
    with open_pool("local", 2, BUDGET) as pool:
        local = results_of(pool, units)
    with open_pool(by_hand.address, 2, BUDGET) as pool:
        there = results_of(pool, list(reversed(units)))
    assert here == local == there
    assert len({each.digest for each in here.values()}) == 5
    assert len(runs.run_dirs()) == 3  # the failing one of each
    runs.assert_nothing_is_left()
    assert_nothing_is_left([runs.folder, by_hand.folder])


def test_what_no_worker_can_run_is_reported_and_not_waited_for(runs: Any) -> None:
    large, lacking = (
        unit_of(runs, name="large", need=2 * BUDGET),
        unit_of(runs, host_needs=(("a moon", 1),), name="odd"),
    )
    with open_pool("local", 1, BUDGET) as pool:
        results = results_of(pool, [large, lacking, unit_of(runs, name="small")])
    assert results["small"].verdict == "held"
    assert results["large"].error == "no worker of the cluster offers what it needs: memory_mib 2048"
    assert results["odd"].error == "no worker of the cluster offers what it needs: a moon"


def test_what_runs_at_a_time_fits_into_the_workers_memory(runs: Any) -> None:
    """Two threads, and memory for one unit at a time: the second begins when the first is over."""
    units = [unit_of(runs, LONG, name=f"u{n}", need=BUDGET, time_limit=1.0, keep="always") for n in range(2)]
    with open_pool("local", 2, BUDGET) as pool:
        made = [each.run_dir or pathlib.Path() for each in pool.run(units)]
    spans = sorted(((each / "scenario.yaml").stat().st_mtime, (each / EVENTS_FILE).stat().st_mtime) for each in made)
    assert spans[0][1] <= spans[1][0]


@pytest.mark.slow
def test_a_killed_workers_unit_is_run_by_another_and_nothing_is_left(
    runs: Any, by_hand: ByHand, wait_until: WaitUntil
) -> None:
    by_hand.start()
    found: list[str] = []

    def kill_the_second() -> None:
        found.extend(wait_until(lambda: by_hand.live_runs(1)))
        assert processes_of(found[0])
        by_hand.processes[1].kill()

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    units = [unit_of(runs, LONG, name=f"u{n}", time_limit=4.0, keep="never") for n in range(2)]
    with open_pool(by_hand.address, 1, BUDGET) as pool:
        results = results_of(pool, units)
    killer.join()
    assert [(each, results[each].verdict) for each in sorted(results)] == [
        ("u0", "inconclusive"),
        ("u1", "inconclusive"),
    ]
    wait_until(lambda: not list(by_hand.runs_dir(1).glob(".unit-*")))
    assert_nothing_is_left([runs.folder, by_hand.folder], *found)


CLIENT = """
import pathlib, signal, sys
from sim.run.cases import Unit
from sim.run.dask import open_pool
from sim.files.scenario import load
signal.signal(signal.SIGINT, signal.default_int_handler)
path, folder, address = sys.argv[1:]
unit = Unit.of("u", load(pathlib.Path(path)), pathlib.Path(folder))
try:
    with open_pool(address, 1, 1 << 30) as pool:
        list(pool.run([unit] * 3))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_client_ends_its_runs_and_no_worker(
    runs: Any, by_hand: ByHand, wait_until: WaitUntil, number: signal.Signals
) -> None:
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(memory="4MiB", steps=LONG))
    client = runs.python(CLIENT, str(path), str(runs.runs), by_hand.address)
    (run,) = wait_until(lambda: by_hand.live_runs(0))
    client.send_signal(number)
    _, err = client.communicate(timeout=50)
    assert (client.returncode, err) == (130 if number == signal.SIGINT else -signal.SIGKILL, "")
    if number == signal.SIGKILL:
        wait_until(lambda: not list(by_hand.runs_dir(0).glob(".unit-*")))
    assert_nothing_is_left([runs.folder, by_hand.folder], run)
    with open_pool(by_hand.address, 1, BUDGET) as pool:
        assert [each.verdict for each in pool.run([unit_of(runs)])] == ["held"]


@pytest.mark.slow
def test_an_interrupted_worker_gives_its_unit_back(runs: Any, by_hand: ByHand, wait_until: WaitUntil) -> None:
    by_hand.start()

    def interrupt_the_second() -> None:
        wait_until(lambda: by_hand.live_runs(1))
        by_hand.processes[1].send_signal(signal.SIGINT)

    interrupter = threading.Thread(target=interrupt_the_second)
    interrupter.start()
    units = [unit_of(runs, LONG, name=f"u{n}", time_limit=4.0, keep="never") for n in range(2)]
    with open_pool(by_hand.address, 1, BUDGET) as pool:
        results = results_of(pool, units)
    interrupter.join()
    assert [each.verdict for each in results.values()] == ["inconclusive", "inconclusive"]
    assert by_hand.processes[1].wait(30) == 130
    assert_nothing_is_left([runs.folder, by_hand.folder])


def test_an_address_where_nobody_answers_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.dask._CONNECT", 0.5)
    with pytest.raises(UserError, match=r"--cluster tcp://127\.0\.0\.1:1: "), open_pool("tcp://127.0.0.1:1", 1, BUDGET):
        pass


def received(connection: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: connection.recv(4096), b""))
    return b""


@pytest.mark.skipif(importlib.util.find_spec("cryptography") is None, reason="needs cryptography, of the same extra")
def test_a_run_goes_through_a_cluster_with_tls_and_nobody_without_its_certificate_is_answered(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = runs.folder / "certs", runs.folder / "others"
    assert [main(["worker", "--make-certificates", str(each)]) for each in (ours, others)] == [0, 0]
    monkeypatch.delenv(TLS_DIR, raising=False)
    cluster = ByHand(runs.folder, ours)
    try:
        assert cluster.address.startswith("tls://127.0.0.1:")
        monkeypatch.setenv(TLS_DIR, str(ours))
        with open_pool(cluster.address, 1, BUDGET) as pool:
            assert [each.verdict for each in pool.run([unit_of(runs)])] == ["held"]
        monkeypatch.setattr("sim.run.dask._CONNECT", 0.5)
        monkeypatch.setenv(TLS_DIR, str(others))
        with pytest.raises(UserError, match="--cluster tls://"), open_pool(cluster.address, 1, BUDGET):
            pass
        host, port = cluster.address.removeprefix("tls://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            plain.sendall(b"\x00" * 64)  # no handshake: the other end closes, and says nothing of its own
            assert received(plain)[:1] in {b"", b"\x15"}  # of TLS an alert at most
    finally:
        cluster.end()
    assert_nothing_is_left([runs.folder])
