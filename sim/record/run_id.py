"""How a process carries the id of the run that it belongs to: in the environment that /proc/PID/environ shows."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from engine import linux

RUN_VARIABLE = "SNAPDRILL_RUN"
"""Environment variable whose value, the run's id, every process of a run carries."""
PLACEHOLDER = "-" * 8
"""In the place of an id, and as long: such a process belongs to no run, what is forked from it will."""
_ENV_START = 50 - 3  # proc_pid_stat(5), counted from the state, which is the third field


def carry_run(run: str) -> None:
    """Have this process and what it forks carry a run's id where /proc/PID/environ shows it.

    The kernel shows what lies at `env_start` (proc_pid_stat(5)), and the process must have been executed with
    PLACEHOLDER there. Raises OSError or ValueError where that is not so.
    """
    mark = f"{RUN_VARIABLE}=".encode()
    shown = b"\0" + Path("/proc/self/environ").read_bytes()
    offset = shown.find(b"\0" + mark + PLACEHOLDER.encode() + b"\0")
    if offset < 0:
        raise ValueError(f"this process was not executed with {RUN_VARIABLE}={PLACEHOLDER}")
    start = int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[_ENV_START])
    if len(run) != len(PLACEHOLDER):
        raise ValueError(f"the run's id {run!r} does not have {len(PLACEHOLDER)} characters")
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page[: len(run)] = run.encode()
        linux.copy_memory(start + offset + len(mark), linux.address_of(page), len(run))
    os.environ[RUN_VARIABLE] = run
