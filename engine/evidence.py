"""What the threads of a stopped process did: time slices and run time, which only running can change."""

from __future__ import annotations

import os
from collections.abc import Mapping

Threads = Mapping[int, tuple[int, int]]
"""Of each thread: (time slices, run time in ns) of schedstat; (voluntary, other) context switches where it is off."""

_STOPPED = "Tt"


def as_json(threads: Threads | None) -> dict[str, list[int]] | None:
    """As a ledger keeps it."""
    return None if threads is None else {str(tid): list(did) for tid, did in threads.items()}


def from_json(threads: Mapping[str, list[int]] | None) -> Threads | None:
    """Read back from a ledger."""
    return None if threads is None else {int(tid): (did[0], did[1]) for tid, did in threads.items()}


def open_process(pid: int) -> int:
    """A fd of /proc/PID that keeps naming this process even if its pid is reused; -1 if there is none."""
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def threads_of(process: int) -> Threads:
    """Every thread of the process behind a /proc/PID fd; raises OSError where it is gone, ValueError for nonsense."""
    return {tid: _ran(process, tid) for tid in _tids(process)}


def are_stopped(process: int) -> bool:
    """True where every thread of the process is stopped by a signal; False where it is gone."""
    try:
        states = [_state(process, tid) for tid in _tids(process)]
    except OSError:
        return False
    return bool(states) and all(state in _STOPPED for state in states)


def children_of(process: int) -> list[int]:
    """Pids that its threads have forked and that live; raises OSError if the kernel has no such list (CONFIG)."""
    return [int(pid) for tid in _tids(process) for pid in _read(process, f"task/{tid}/children").split()]


def _tids(process: int) -> list[int]:
    folder = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process)
    try:
        return sorted(map(int, os.listdir(folder)))
    finally:
        os.close(folder)


def _ran(process: int, tid: int) -> tuple[int, int]:
    run_time, waited, slices = map(int, _read(process, f"task/{tid}/schedstat").split()[:3])
    if run_time or waited or slices:
        return slices, run_time
    lines = [line.split() for line in _read(process, f"task/{tid}/status").splitlines()]  # no schedstat is kept
    found = {line[0]: int(line[1]) for line in lines if line and line[0].endswith(b"voluntary_ctxt_switches:")}
    return found[b"voluntary_ctxt_switches:"], found[b"nonvoluntary_ctxt_switches:"]


def _state(process: int, tid: int) -> str:
    text = _read(process, f"task/{tid}/stat").decode("utf-8", "replace")
    return text[text.rindex(")") + 2]


def _read(process: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)
