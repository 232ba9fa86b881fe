"""Runs of two PID namespaces in one folder, as containers have them, with a `clean` beside them."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sim.record.folder import read_record

WaitUntil = Callable[..., Any]
SCENARIO = """
version: 1
name: {name}
fleet: [{{name: web, count: 1, memory: 4MiB}}]
steps: [{{tick: 1}}, {{pause: {{}}}}, {{resume: {{}}}}, {{wait: 2s}}, {{tick: 1}}, {{pause: {{}}}}]
"""
SNAPDRILL = [sys.executable, "-c", "import sys; from sim.cli import main; sys.exit(main())"]
IN_A_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.privileged
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="PID namespaces need root and unshare(1)"
)
def test_a_clean_beside_the_runs_of_two_namespaces_touches_neither(runs: Any, wait_until: WaitUntil) -> None:
    running = []
    for name in ("one", "two"):
        path: pathlib.Path = runs.folder / f"{name}.yaml"
        path.write_text(SCENARIO.format(name=name))
        command = [*IN_A_NAMESPACE, *SNAPDRILL, "run", str(path), "--runs-dir", str(runs.runs)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    wait_until(
        lambda: sum(read_record(each.parent).node_pid is not None for each in runs.runs.glob("[ot]*/2*/run.json")) == 2
    )
    for prefix in ([], IN_A_NAMESPACE):
        command = [*prefix, *SNAPDRILL, "clean", "--runs-dir", str(runs.runs)]
        cleaning = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (cleaning.returncode, cleaning.stdout) == (0, f"nothing to clean in {runs.runs}\n")
    for each in running:
        out, _ = each.communicate(timeout=60)
        assert each.returncode == 0, out
