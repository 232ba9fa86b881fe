"""The processes of this machine, as /proc lists them."""

from __future__ import annotations

import os
from collections.abc import Iterator


def with_memory() -> Iterator[str]:
    """Pids, in decimal, of the processes that may map or open something, also of those that may not be looked into.

    Most that /proc lists are the kernel's own threads: they have no executable, as those that have ended have none, and
    a look into their files costs five times as much as asking for it.
    """
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            os.readlink(f"/proc/{pid}/exe")
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:  # another user's
            pass
        yield pid
