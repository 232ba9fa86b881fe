"""The append-only record: whole lines from any number of processes, read back as they were written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.events import Condemned, Event
from sim.record import events
from sim.record.ledger import EVENT_TYPES, Entry, Follower, Ledger, LedgerError, parse, read

SAMPLES: dict[Any, Any] = {
    str: 'web-0 \u2192 "x"\n',
    int: 7,
    float: 1.5,
    bool: True,
    dict[str, Any]: {"a": [1, None]},
    dict[str, int]: {"paused": 2},
    dict[str, list[int]]: {"4711": [3, 1200]},
    dict[str, dict[str, Any]]: {"memfd-background-copy": {"value": True}},
    list[str]: ["web-0"],
    list[float | None]: [1.5, None],
    list[int | None]: [3, None],
    list[dict[str, Any]]: [{"sandbox": "web-0", "page": 3}],
    Any: {"rollout": "50%"},
}


def sample(kind: type[Event]) -> Event:
    """An event of this kind with a value of the right type in each field."""
    hints = typing.get_type_hints(kind)
    wanted = {name: next((t for t in typing.get_args(hint) if t in SAMPLES), hint) for name, hint in hints.items()}
    return kind(**{name: SAMPLES[hints[name] if hints[name] in SAMPLES else hint] for name, hint in wanted.items()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    made = Ledger(path, 0.0)
    yield made
    made.close()


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES.keys())
def test_every_event_is_read_back_as_it_was_written(ledger: Ledger, path: Path, kind: type[Event]) -> None:
    ledger.append(sample(kind), sandbox="web-0", pause="web-0.p1")
    (entry,) = read(path)
    assert (entry.event, entry.sandbox, entry.pause) == (sample(kind), "web-0", "web-0.p1")
    assert EVENT_TYPES[entry.name] is kind


def test_a_fact_of_the_run_belongs_to_no_sandbox_and_no_pause(ledger: Ledger, path: Path) -> None:
    ledger.append(events.Ticked(3))
    assert json.loads(path.read_text()) == {"t": pytest.approx(0, abs=1e9), "event": "ticked", "tick": 3}
    assert read(path)[0].sandbox is read(path)[0].pause is None


def test_time_counts_from_the_runs_beginning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.record.ledger.time.monotonic", lambda: 1002.25)
    ledger = Ledger(path, 1000.0)
    ledger.append(events.Ticked(1))
    ledger.close()
    assert read(path)[0].t == 2.25


def test_a_line_is_one_write_and_is_the_kernels_at_once(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        written.append(data)
        return write(fd, data)

    monkeypatch.setattr("sim.record.ledger.os.write", counted)
    ledger.append(events.Judged("invariant:bytes_exact", "violated", 1, [{"found": "x" * 100_000}]), sandbox="web-0")
    assert [path.read_bytes()] == written
    assert written[0].count(b"\n") == 1
    assert written[0].endswith(b"\n")


def test_a_ledger_goes_on_where_another_stopped_and_is_closed_as_often_as_one_likes(path: Path) -> None:
    for tick in (1, 2):
        ledger = Ledger(path, 0.0)
        ledger.append(events.Ticked(tick))
        ledger.close()
        ledger.close()
    assert [each.event for each in read(path)] == [events.Ticked(1), events.Ticked(2)]


# -- reading


def test_a_follower_gives_each_entry_once(ledger: Ledger, path: Path) -> None:
    follower = Follower(path)
    ledger.append(events.Ticked(1))
    assert [each.event for each in follower.new_entries()] == [events.Ticked(1)]
    assert list(follower.new_entries()) == []
    ledger.append(events.Ticked(2))
    ledger.append(events.Ticked(3))
    assert [each.event for each in follower.new_entries()] == [events.Ticked(2), events.Ticked(3)]


def test_a_follower_may_come_before_the_file(path: Path) -> None:
    follower = Follower(path)
    assert list(follower.new_entries()) == []
    Ledger(path, 0.0).append(events.Ticked(1))
    assert len(list(follower.new_entries())) == 1


def test_only_a_ledger_of_ones_own_may_be_of_any_size(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.record.ledger.MOST_LEDGER_BYTES", 100)
    followers = [Follower(path), Follower(path, is_own=True)]
    ledger.append(events.Ticked(1))
    assert [len(list(each.new_entries())) for each in followers] == [1, 1]
    for tick in range(10):
        ledger.append(events.Ticked(tick))
    assert len(list(followers[1].new_entries())) == 10
    assert len(read(path, is_own=True)) == 11
    for stranger in (followers[0], Follower(path)):
        with pytest.raises(OSError, match="it is larger than") as raised:
            list(stranger.new_entries())
        assert raised.value.errno == errno.EFBIG


def test_a_line_that_is_not_whole_is_waited_for_wherever_it_was_cut(path: Path) -> None:
    line = b'{"t":0.5,"event":"condemned","sandbox":"web-0","pause":"web-0.p1","build":"web-0.p1"}\n'
    for cut in range(len(line)):
        path.write_bytes(line + line[:cut])
        follower = Follower(path)
        assert len(list(follower.new_entries())) == 1
        with path.open("ab") as file:
            file.write(line[cut:])
        assert list(follower.new_entries()) == [Entry(0.5, Condemned("web-0.p1"), "web-0", "web-0.p1")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"t":0,"event":"teleported"}', "teleported"),
        (b'{"t":0}', "event"),
        (b'{"event":"ticked","tick":1}', "'t'"),
        (b'{"t":0,"event":"ticked","tock":1}', "tock"),
        (b'{"t":0,"event":"ticked"}', "tick"),
        (b"[]", ""),
        (b"null", ""),
        (b"half a li", "Expecting value"),
        (b"\x80 ", "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_a_line_that_is_not_an_event_of_ours_is_named_with_the_reason(path: Path, line: bytes, why: str) -> None:
    path.write_bytes(b'{"t":0,"event":"ticked","tick":1}\n' * 2 + line + b"\n")
    with pytest.raises(LedgerError, match=f"line 3 is not an event of this version: .*{why}"):
        read(path)


def test_what_comes_before_a_broken_line_is_given_first(path: Path) -> None:
    path.write_bytes(b'{"t":0,"event":"ticked","tick":1}\nbroken\n')
    entries = Follower(path).new_entries()
    assert next(entries).event == events.Ticked(1)
    with pytest.raises(LedgerError, match="line 2"):
        next(entries)


def test_a_line_is_parsed_without_a_file() -> None:
    line = b'{"t":1.5,"event":"condemned","sandbox":"web-0","pause":"web-0.p1","build":"web-0.p1"}'
    assert parse(line, 1) == Entry(1.5, Condemned("web-0.p1"), "web-0", "web-0.p1")


# -- other processes

APPENDS = """
import os, pathlib, signal, sys
from sim.record import events
from sim.record.ledger import Ledger
path, name, count, end = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
ledger = Ledger(path, 0.0)
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    ledger.append(events.RequestRefused(str(number), name * 3000), sandbox=name)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def appender(path: Path, name: str, count: int, end: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDS, str(path), name, str(count), end]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_that_append_at_once_keep_every_line_whole_and_in_their_own_order(path: Path) -> None:
    processes = [appender(path, name, 400) for name in ("a", "b")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    for process in processes:
        process.communicate(timeout=30)
        assert process.returncode == 0
    entries = read(path)
    for name in ("a", "b"):
        mine = [each.event for each in entries if each.sandbox == name]
        assert mine == [events.RequestRefused(str(number), name * 3000) for number in range(400)]
    assert len(entries) == 800


def test_what_was_appended_survives_a_sigkill_of_its_writer(path: Path) -> None:
    process = appender(path, "a", 5, "killed")
    go(process)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert len(read(path)) == 5
