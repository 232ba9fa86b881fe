"""Whether one process of this host may trace another: what the fault `trace-guest` needs."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys

from engine import linux


@functools.cache
def refusal() -> str | None:
    """Why not, as the kernel says it; None where it may. Tried once, on a stopped child."""
    sleeper = [sys.executable, "-ISc", "import signal; signal.pause()"]
    with subprocess.Popen(sleeper, stdin=subprocess.DEVNULL) as child:
        try:
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED)
            with linux.running_traced([child.pid]):
                return None
        except OSError as error:
            return error.strerror or str(error)
        finally:
            child.kill()
