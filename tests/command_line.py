"""The command line in the test's own process, where no process is what is tested: each imports all of it anew."""

from __future__ import annotations

import contextlib
import io
import subprocess

from sim.cli import main


def snapdrill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As `snapdrill ARGUMENTS` would end, with what it prints."""
    line = [str(each) for each in arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line)
    return subprocess.CompletedProcess(["snapdrill", *line], code, out.getvalue(), err.getvalue())
