"""What is recorded is told and judged on any machine: nothing of this kernel is asked for."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from engine import events as copying
from sim.record import events
from sim.record.ledger import Ledger
from sim.record.verdict import ExitCode

SCENARIOS = pathlib.Path(__file__).parents[3] / "scenarios"
ELSEWHERE = """
import builtins, importlib.abc, io, os, select, signal, sys

class Elsewhere(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {"engine.linux", "fcntl", "resource", "termios"}:
            raise ImportError(f"there is no {name} on this machine")

def refused(*args, **kwargs):
    raise OSError("this machine has no such call")

sys.meta_path.insert(0, Elsewhere())
for module, names in {
    os: ("memfd_create", "pidfd_open", "eventfd", "splice", "sendfile", "copy_file_range", "preadv", "pwritev",
         "posix_fallocate", "posix_fadvise", "sched_getaffinity", "waitid", "setsid", "fork", "mkfifo"),
    select: ("epoll", "poll"),
    signal: ("pidfd_send_signal", "SIGSTOP", "SIGCONT"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
import ctypes
ctypes.CDLL = refused
opened = builtins.open
def elsewhere(file, *args, **kwargs):
    if str(file).startswith(("/proc", "/sys", "/dev/shm")):
        raise FileNotFoundError(file)
    return opened(file, *args, **kwargs)
builtins.open = io.open = elsewhere

import json
from sim.cli import main
found = []
for line in json.loads(sys.argv[1]):
    out, sys.stdout = sys.stdout, io.StringIO()
    code = main(line)
    found.append([code, sys.stdout.getvalue()])
    sys.stdout = out
assert "engine.linux" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """A recorded run: one guest, paused with punching, never resumed."""
    folder = tmp_path / "demo" / "20260102T030405Z-42"
    folder.mkdir(parents=True)
    ledger = Ledger(folder / "events.jsonl", began=0.0)
    ledger.append(events.RunStarted(1, "0.1.0", "r1", "demo", 42, [], "2026-01-02T03:04:05Z", 0, "disk", None))
    flags = {"memfd-punch-on-snapshot": {"value": True}, "memfd-background-copy": {"value": False}}
    settled = events.PauseSettled(
        "finished", "web-0.p1", "memfd", punch=True, dirty_bytes=4096, punched_bytes=4096, peak_over=0, condemned=True,
        content_hash="aa",
    )  # fmt: skip
    for event, pause in (
        (events.SandboxCreated(8192, 4096, 4096, "base", "acme", "local"), None),
        (events.GuestSpawned("web-0.1", 20, 1, 30, 3, 4, "none", 1.0, None), None),
        (events.StateChanged("created", "running", "created"), None),
        (events.StateChanged("running", "pausing", "asked"), None),
        (events.Decided(flags), "web-0.p1"),
        (events.GuestFrozen("web-0.1", 0.1), "web-0.p1"),
        (copying.Scanned("none", 4096, 0, 8192, 0.1), "web-0.p1"),
        (copying.Planned("memfd", True, "legal", 1, 4096), "web-0.p1"),
        (copying.ChunkPublished(0, 4096, 4096, 8192, 4096), "web-0.p1"),
        (copying.Condemned("web-0.p1"), "web-0.p1"),
        (copying.ChunkPunched(0, 4096), "web-0.p1"),
        (copying.BuildFinished("web-0.p1", 4096, "aa", 1.0), "web-0.p1"),
        (settled, "web-0.p1"),
        (events.GuestEnded("web-0.1", "paused"), None),
        (events.StateChanged("pausing", "paused", "finished", "paused"), None),
    ):
        ledger.append(event, sandbox="web-0", pause=pause)
    ledger.append(events.Judged("invariant:bytes_exact", "held", 1))
    ledger.append(events.RunEnded("held", 0, {"paused": 1}, "a" * 64, 8192))
    ledger.close()
    return folder


def elsewhere(*commands: tuple[object, ...]) -> list[tuple[int, str]]:
    """The exit code of each command and what it prints, all in one process there."""
    lines = json.dumps([[str(each) for each in command] for command in commands])
    line = [sys.executable, "-c", ELSEWHERE, lines]
    done = subprocess.run(line, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [(code, text) for code, text in json.loads(done.stdout)]


def printed(code: ExitCode, *arguments: object) -> str:
    ((ended, text),) = elsewhere(arguments)
    assert ended == code
    return text


def test_what_is_blocked_is_really_blocked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.partition("from sim.cli")[0] + "import engine.memfd"],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "there is no engine.linux on this machine" in done.stderr


def test_a_recording_is_replayed(run: pathlib.Path) -> None:
    (whole, story), (at, state) = elsewhere(("replay", run), ("replay", run, "--at", 0))
    assert (whole, at) == (ExitCode.HELD, ExitCode.HELD)
    assert "web-0 condemned: point of no return" in story
    assert "state at 0.000 s" in state


def test_a_recording_is_judged_again(run: pathlib.Path) -> None:
    assert json.loads(printed(ExitCode.HELD, "check", run, "--json"))["verdict"] == "held"


def test_a_ledger_made_elsewhere_is_judged(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    kept = [line for line in (run / "events.jsonl").read_text().splitlines() if '"judged"' not in line]
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(kept))
    assert "bytes_exact inconclusive" in printed(ExitCode.INCONCLUSIVE, "check", "--trace", trace)


def test_a_report_is_printed_again(run: pathlib.Path) -> None:
    (as_text, text), (as_json, document) = elsewhere(("report", run), ("report", run, "--json"))
    assert (as_text, as_json) == (ExitCode.HELD, ExitCode.HELD)
    assert text.startswith("demo   seed 42   HELD")
    assert json.loads(document)["name"] == "demo"


def test_two_recordings_are_compared(run: pathlib.Path) -> None:
    assert "the same decisions" in printed(ExitCode.HELD, "diff", run, run / "events.jsonl")


def test_schemas_are_printed() -> None:
    found = elsewhere(*(("schema", what) for what in ("events", "scenario", "trace-names")))
    assert [(code, bool(json.loads(text))) for code, text in found] == [(ExitCode.HELD, True)] * 3


def test_flags_are_checked_and_explained() -> None:
    flags = SCENARIOS / "outages" / "flags-punch-on.json"
    explained, linted, compared = elsewhere(
        ("flags", "explain", flags, "--sandbox", "web-0"), ("flags", "lint", flags), ("flags", "cohort", flags, flags)
    )
    assert explained[0] == ExitCode.HELD
    assert "memfd-punch-on-snapshot" in explained[1]
    assert linted[0] in {ExitCode.HELD, ExitCode.VIOLATED}
    assert compared[0] == ExitCode.HELD
