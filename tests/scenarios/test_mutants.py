"""A wrong engine is caught: violated, exit 1, sandbox and reason named, and the commands of the failure block work."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from sim.mutants import NAMES
from sim.requirements import missing
from sim.scenario import load

MUTANTS = sorted((pathlib.Path(__file__).parent / "mutants").glob("*.yaml"))

CAUGHT = {
    "resume-after-punch": ("never_resumed", "web-1", "a condemned guest runs again"),
    "discard-skipped": ("failed_copy_discards", "web-1", "its guest is still there"),
    "punch-before-publish": ("no_unpublished", "web-1", "freed from the guest before they were published"),
    "scan-rearms": ("rollback_intact", "web-1", "the pause after a roll-back is not complete"),
}


def snapdrill(command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "snapdrill"
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    line = [sys.executable, "-c", "import sys; from sim.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=50, check=False, env=environment)


def test_every_mutant_has_its_scenario() -> None:
    assert {path.stem for path in MUTANTS} == NAMES == set(CAUGHT)


@pytest.mark.parametrize("path", MUTANTS, ids=lambda path: path.stem)
def test_a_wrong_engine_is_caught_and_can_be_run_again(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    if reason := missing(load(path)):
        pytest.skip(f"{path.stem}: {reason}")
    invariant, sandbox, reason = CAUGHT[path.stem]
    result = snapdrill(f"snapdrill run {shlex.quote(str(path))} --runs-dir {tmp_path}")
    assert result.returncode == 1, result.stdout + result.stderr
    block = next(b for b in result.stdout.split("\n\n") if b.startswith(f"VIOLATED {invariant}"))
    assert f"sandbox    {sandbox}" in block
    assert reason in block
    assert f"{path}:" in block
    again = re.search(r"run again +(snapdrill .*)", block)
    look = re.search(r"look at it (snapdrill .*)", block)
    assert again
    assert look
    rerun = snapdrill(again[1])
    assert rerun.returncode == 1
    assert f"VIOLATED {invariant}" in rerun.stdout
    replay = snapdrill(look[1])
    assert replay.returncode == 0
    assert sandbox in replay.stdout
