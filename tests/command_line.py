"""The command line in the test's own process, where no process is what is tested: each imports all of it anew."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sim.cli import main
from sim.run.runner import RunOptions
from tests.forked import forked_node


def snapdrill(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As `snapdrill ARGUMENTS` would end, with what it prints."""
    line = [str(each) for each in arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line)
    return subprocess.CompletedProcess(["snapdrill", *line], code, out.getvalue(), err.getvalue())


def rehearse(plan: Path, folder: Path, *more: str) -> dict[str, Any]:
    """What `snapdrill rehearse --json` prints; its nodes, two for each arm, are forked."""
    with patch("sim.run.runner.RunOptions", partial(RunOptions, start_node=forked_node)):
        result = snapdrill("rehearse", plan, "--json", "--runs-dir", folder / "runs", *more)
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["exit_code"] == result.returncode
    return document
