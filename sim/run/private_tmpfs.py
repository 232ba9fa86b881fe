"""A tmpfs in namespaces of its own, tried in a child process: a namespace that is entered cannot be left."""

from __future__ import annotations

import errno
import os
import tempfile

from engine import linux


def try_out() -> None:
    """Raise OSError where the kernel refuses it."""
    with tempfile.TemporaryDirectory(prefix="snapdrill-probe-") as folder:
        child = os.fork()
        if child == 0:
            os._exit(_mount(folder))
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else f"the child was killed by signal {-code}")


def _mount(folder: str) -> int:
    """0, or the errno that stopped it."""
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.mount_tmpfs(folder, 1 << 20)
    except OSError as error:
        return error.errno or errno.EIO
    return 0
