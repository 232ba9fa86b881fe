"""A fork that is a sibling: for small servers of which a test asks processes that are to be its own children."""

from __future__ import annotations

import ctypes
import platform
import signal

_CLONE = {"x86_64": 56, "aarch64": 220}  # syscall(2)
_CLONE_PARENT = 0x8000


def clone() -> int:
    """os.fork(), but the new process is a child of this one's parent."""
    python = ctypes.PyDLL(None)
    python.PyOS_BeforeFork()
    pid: int = python.syscall(_CLONE[platform.machine()], _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError("this server cannot fork")
    return pid
