"""The file descriptors of the process that runs the tests."""

from __future__ import annotations

import gc
import os


def open_before() -> int:
    """How many are open, once those are closed that earlier tests have left to the collector, for some later time."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
