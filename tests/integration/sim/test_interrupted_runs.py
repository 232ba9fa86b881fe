"""An interrupt at any moment of `snapdrill run` ends in the same way: everything is torn down, and the code says so."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.errors import UserError
from sim.files.scenario import load_text
from sim.record import events
from sim.record.folder import read_record
from sim.record.leftovers import processes_of
from sim.record.run_id import RUN_VARIABLE
from sim.run import node_link
from sim.run.drill import Drill
from sim.run.node_link import NodeFailedError, NodeLink, NodeProcess, execute_node

WaitUntil = Callable[..., Any]
ROOT = pathlib.Path(__file__).parents[3]
SHM = pathlib.Path("/dev/shm")  # noqa: S108 - the mount itself is looked into

PAUSES = "\n".join(["  - tick: 1\n  - pause: {}\n  - resume: {}"] * 60)
TICKS = "  - tick: 100000"
SHORT = "  - tick: 1\n  - pause: {}"


def node_is_there(runs: Any) -> bool:
    return bool(list(runs.runs.glob("*/*/node.json")))


def told(kind: type[Any], count: int = 1) -> Callable[[Any], bool]:
    return lambda runs: len(runs.told(kind)) >= count


MOMENTS = {
    "as the node starts": (TICKS, node_is_there),
    "as guests are born": (TICKS, told(events.GuestSpawned)),
    "in a tick": (TICKS, told(events.Ticked, 3)),
    "in a pause": (PAUSES, told(events.Decided, 5)),
    "at teardown": (SHORT, told(events.StepEnded, 2)),
}


@pytest.fixture
def shm() -> None:
    """The caches of these runs lie in /dev/shm."""
    if not os.access(SHM, os.W_OK):
        pytest.skip(f"needs a writable {SHM}")


def started(runs: Any, steps: str, **options: Any) -> subprocess.Popen[str]:
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(count=4, memory="4MiB", cache="tmpfs", steps=steps, **options))
    process: subprocess.Popen[str] = runs.command("run", str(path), "--runs-dir", str(runs.runs))
    return process


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_an_interrupt_ends_in_130_with_nothing_left(runs: Any, wait_until: WaitUntil, shm: None, moment: str) -> None:
    steps, begun = MOMENTS[moment]
    command = started(runs, steps)
    wait_until(lambda: begun(runs))
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=50)
    assert (command.returncode, err) == (130, "crash: interrupted; everything it started was ended\n")
    runs.assert_nothing_is_left()
    assert [name for name in os.listdir(SHM) if runs.run_id() in name] == []


@pytest.mark.parametrize("moment", ["as guests are born", "at teardown"])
def test_impatience_does_not_break_the_teardown(runs: Any, wait_until: WaitUntil, shm: None, moment: str) -> None:
    """Ctrl-C is kept down, and its terminal sends it to the whole foreground group."""
    steps, begun = MOMENTS[moment]
    command = started(runs, steps, background=True)
    wait_until(lambda: begun(runs))

    def again() -> bool:
        os.killpg(command.pid, signal.SIGINT)
        return command.poll() is not None

    wait_until(again)
    assert command.wait() in {130, -signal.SIGINT}  # the last one may come as the interpreter goes
    runs.assert_nothing_is_left()
    assert [name for name in os.listdir(SHM) if runs.run_id() in name] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["term", "hup"])
def test_a_termination_and_a_hang_up_end_in_order_too(
    runs: Any, wait_until: WaitUntil, number: signal.Signals, code: int
) -> None:
    command = started(runs, PAUSES)
    wait_until(lambda: runs.told(events.Decided))
    os.killpg(command.pid, number)
    _, err = command.communicate(timeout=50)
    assert (command.returncode, err) == (code, "crash: interrupted; everything it started was ended\n")
    runs.assert_nothing_is_left()


MANY = {
    "seeds": (signal.SIGTERM, "run {file} --seeds 1-9 --jobs 1 --runs-dir {runs}"),
    "sweep": (signal.SIGTERM, "sweep {file} --jobs 1 --runs-dir {runs}"),
    "shrink": (signal.SIGTERM, "shrink {file} --jobs 1"),
    "self-test": (signal.SIGINT, "self-test --only punch-before-publish --jobs 1 --runs-dir {runs}"),
    "matrix": (signal.SIGHUP, "rehearse {plan} --matrix --jobs 1 --runs-dir {runs}"),
    "rehearse": (signal.SIGTERM, "rehearse {plan} --runs-dir {runs}"),
}
PLAN = """\
kind: plan
name: crash
fleet:
  - {name: web, count: 40, memory: 4MiB}
steps:
  - setWeight: 100
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """An empty TMPDIR with a name that is short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="snapdrill-test-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield pathlib.Path(folder)


@pytest.mark.parametrize("many", list(MANY))
def test_many_runs_are_ended_in_order_too(runs: Any, wait_until: WaitUntil, temporary: pathlib.Path, many: str) -> None:
    """And impatience does not break their teardown."""
    number, arguments = MANY[many]
    file, plan = runs.folder / "crash.yaml", runs.folder / "plan.yaml"
    file.write_text(runs.scenario_text(memory="4MiB", steps=TICKS))
    plan.write_text(PLAN)
    command = runs.command(*arguments.format(file=file, plan=plan, runs=runs.runs).split())
    places = [runs.folder, temporary]  # shrink makes its runs in a temporary folder
    ledger = wait_until(lambda: next((each for at in places for each in at.glob("**/events.jsonl")), None))
    wait_until(lambda: b'"guest_spawned"' in ledger.read_bytes())
    run = read_record(ledger.parent).run
    for _ in range(3):
        os.killpg(command.pid, number)
    _, err = command.communicate(timeout=50)
    name = {"self-test": many, "shrink": str(file)}.get(many, "crash")
    code = 128 + number
    assert (command.returncode, err) == (code, f"{name}: interrupted; everything it started was ended\n")
    assert processes_of(run) == []
    assert list(runs.folder.glob("**/.unit-*")) == []
    assert list(temporary.iterdir()) == []


def test_a_hang_up_that_was_ignored_at_the_start_stays_ignored(runs: Any, wait_until: WaitUntil) -> None:
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(memory="4MiB", steps="  - tick: 40"))
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from sim.cli import main; sys.exit(main())"
    )
    command = runs.python(code, "run", str(path), "--runs-dir", str(runs.runs))
    wait_until(lambda: runs.told(events.Ticked))
    os.killpg(command.pid, signal.SIGHUP)
    out, err = command.communicate(timeout=50)
    assert command.returncode == 0, out + err


async def test_a_run_cancelled_as_its_node_starts_forgets_no_process(runs: Any) -> None:
    nodes: list[NodeProcess] = []

    def start_and_cancel(*arguments: Any) -> NodeProcess:
        nodes.append(execute_node(*arguments))
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return nodes[-1]

    scenario = load_text(runs.scenario_text(), runs.folder / "crash.yaml")
    drill = Drill(scenario, runs_dir=runs.runs, start_node=start_and_cancel)
    starting = asyncio.ensure_future(drill.__aenter__())
    with pytest.raises(asyncio.CancelledError):
        await starting
    with pytest.raises(ProcessLookupError):
        os.kill(nodes[0].pid, 0)
    runs.assert_nothing_is_left()


@pytest.mark.parametrize("request_", ["pause", "checkpoint", "resume"])
async def test_an_interrupt_that_comes_just_as_a_request_ends_is_not_lost(
    runs: Any, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    async with runs.drill() as drill:
        answered = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(drill._node, "ask", lambda *_, **__: answered)
        task = asyncio.ensure_future(getattr(drill, request_)(["web-0"]))
        await asyncio.sleep(0)
        answered.set_result(None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()


async def test_a_teardown_cancelled_again_and_again_runs_to_its_end(runs: Any) -> None:
    drill = await runs.drill().__aenter__()
    await drill.tick()
    node = drill.view().node_pid
    os.kill(node, signal.SIGSTOP)  # as slow as can be
    ending = asyncio.ensure_future(drill.tear_down())
    for _ in range(20):
        await asyncio.sleep(1e-3)
        ending.cancel()
    assert not ending.done()
    os.kill(node, signal.SIGCONT)
    with pytest.raises(asyncio.CancelledError):
        await ending
    runs.assert_nothing_is_left()


async def test_what_a_terminal_sends_reaches_the_runner_alone(runs: Any) -> None:
    async with runs.drill() as drill:
        node = drill.view().node_pid
        assert os.getsid(node) == os.getpgid(node) == node


async def test_a_cancellation_while_the_node_is_reaped_is_not_swallowed(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runs.drill() as drill:
        crashing = asyncio.ensure_future(drill.crash())
        real = asyncio.wait

        async def wait_and_cancel(*arguments: Any, **options: Any) -> Any:
            crashing.cancel()
            return await real(*arguments, **options)

        monkeypatch.setattr(asyncio, "wait", wait_and_cancel)
        with pytest.raises(asyncio.CancelledError):
            await crashing
        monkeypatch.undo()
    runs.assert_nothing_is_left()


async def test_a_node_that_does_not_end_is_killed_and_its_guests_with_it(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeLink.reap, "__defaults__", (0.3,))
    async with runs.drill() as drill:
        await drill.tick()
        os.kill(drill.view().node_pid, signal.SIGSTOP)
    runs.assert_nothing_is_left()


def stray_process(run: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={**os.environ, RUN_VARIABLE: run})


async def test_what_outlives_the_teardown_keeps_the_run_open_for_clean(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_link, "_DYING", 0.1)
    async with runs.drill() as drill:
        stray = stray_process(drill.run)
    try:
        assert not read_record(drill.run_dir).ended
        assert processes_of(drill.run) == [stray.pid]
    finally:
        stray.kill()
        stray.wait()


async def test_a_line_that_the_crash_cut_short_does_not_spoil_the_ledger(runs: Any) -> None:
    async with runs.drill() as drill:
        await drill.tick()
        with (drill.run_dir / "events.jsonl").open("ab") as ledger:
            ledger.write(json.dumps({"t": 1.0, "event": "ticked", "tick": 99}).encode()[:30])
        await drill.crash()
        await drill.restart()
        await drill.tick()
        assert drill.view().tick == 2
        view = await drill.finish()
    assert view.ended.verdict == "held"


async def test_a_run_that_cannot_be_set_up_says_why_and_leaves_nothing(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(UserError, match=r"the run cannot be set up: .*/nowhere/at/all"):
        await runs.drill().__aenter__()
    monkeypatch.setattr(tempfile, "tempdir", str(runs.folder / ("long" * 30)))
    (runs.folder / ("long" * 30)).mkdir()
    with pytest.raises(UserError, match="set TMPDIR to a shorter folder"):
        await runs.drill().__aenter__()
    monkeypatch.undo()
    latest, folders = (runs.runs / "crash" / "latest").readlink(), runs.run_dirs()
    with pytest.raises(UserError, match=r"the run cannot be set up: /proc/snapdrill-.*-cache"):
        await runs.drill(cache_dir=pathlib.Path("/proc")).__aenter__()
    assert (runs.run_dirs(), (runs.runs / "crash" / "latest").readlink()) == (folders, latest)
    runs.runs = runs.folder / "a-file"
    runs.runs.write_text("")
    with pytest.raises(UserError, match=r"the run cannot be set up: .*a-file"):
        await runs.drill().__aenter__()
    assert list(runs.folder.glob("runs/*/*/*cache*")) == []


def test_too_few_open_files_are_told_before_anything_starts(runs: Any) -> None:
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(count=20, memory="4MiB"))
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))\n"
    code += "from sim.cli import main; sys.exit(main())"
    command = runs.python(code, "run", str(path), "--runs-dir", str(runs.runs))
    out, _ = command.communicate(timeout=30)
    assert command.returncode == 4
    assert "skipped: 20 guests need 224 open files and the hard limit is 120: raise ulimit -Hn\n" in out
    assert runs.told(events.NodeStarted) == []


def test_a_ledger_without_space_ends_the_run_and_hangs_nobody(runs: Any) -> None:
    """600 KiB of tmpfs in a private mount namespace hold the run folder; what was reserved is not enough."""
    path = runs.folder / "crash.yaml"
    path.write_text(runs.scenario_text(memory="512KiB", steps="  - tick: 1\n" * 2000))
    runs.runs.mkdir()
    script = 'mount -t tmpfs -o size=600k none "$1" || exit 99; "$2" -c "$3" run "$4" --runs-dir "$1"; echo $?; '
    script += 'cat "$1"/*/2*/run.json'
    main = "import sys; from sim.cli import main; sys.exit(main())"
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    ran = subprocess.run(
        [*shell, str(runs.runs), sys.executable, main, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if ran.returncode == 99 or "unshare" in ran.stderr:
        pytest.skip("needs a user and mount namespace without privileges")
    code, _, record = ran.stdout.partition("\n")
    assert (code, "Traceback" in ran.stderr) == ("3", False), ran.stderr
    assert "no space is left on the disk of" in ran.stderr
    assert processes_of(json.loads(record)["run"]) == []


async def test_a_node_that_dies_at_its_start_leaves_nothing_and_names_its_log(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    runs.start_node = execute_node
    with pytest.raises(NodeFailedError, match=r"by itself, with exit code 1: .*node\.log"):
        await runs.drill().__aenter__()
    runs.assert_nothing_is_left()
