"""`snapdrill bench --against PROGRAM`: a small program as the other side, and what is said of those that do not."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import pytest

from sim import cli
from sim.record.verdict import ExitCode

PROGRAM = """#!{python}
import ctypes, json, os, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
PUNCH_AND_KEEP_SIZE, MOST = 3, 1 << 20

asked = json.loads(sys.stdin.readline())
print("ready", flush=True)
sys.stdin.readline()
with open(asked["destination"], "xb", buffering=0) as file:
    for offset, length in asked["ranges"]:
        for at in range(offset, offset + length, MOST):
            file.write(os.pread(asked["fd"], min(MOST, offset + length - at), at))
        if asked["punch"]:
            libc.fallocate(asked["fd"], PUNCH_AND_KEEP_SIZE, offset, length)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program(tmp_path: pathlib.Path) -> Any:
    """Writes the program, with a text of it replaced by another."""

    def write(old: str = "", new: str = "") -> str:
        path = tmp_path / "copy"
        text = PROGRAM.replace("{python}", sys.executable)
        path.write_text(text.replace(old, new) if old else text)
        path.chmod(0o700)
        return str(path)

    return write


def bench(program: str, only: str, capsys: pytest.CaptureFixture[str], code: ExitCode = ExitCode.HELD) -> Any:
    arguments = ["bench", "--json", "--rounds", "1", "--size", "4MiB", "--only", only, "--against", program]
    assert cli.main(arguments) == code
    return json.loads(capsys.readouterr().out)


def test_another_programs_copy_is_measured_beside_ours(program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    document = bench(program(), "against/*/4KiB/tmpfs/*", capsys)
    results = document["results"]
    assert {(each["layout"], each["punch"]) for each in results} >= {("full", True), ("full", False)}
    for each in results:
        assert (each["unit"], each["met"]) == ("x its speed", None)
        assert each["value"] > 0
        assert each["until_free_ratio"] > 0
        assert each["cpu_ratio"] > 0


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"ready"', '"steady"', "was to say `ready`, and said `steady"),
        ("at))", "at)[:-1] + b'!')", "did not copy"),
        ("file.write", "len", "did not copy: 0 of 4194304 bytes"),
        ('if asked["punch"]', "if False", "was to punch, and left 4194304 of 4194304 bytes"),
        ("sys.stdin.read()", "sys.exit(3)", "ended with exit code 3"),
        ("asked = ", "sys.exit(0)\nasked = ", "`ready`"),
    ],
)
def test_a_program_that_does_not_copy_is_left_out_with_the_reason(
    program: Any, old: str, new: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = bench(program(old, new), "against/full/4KiB/tmpfs/punch", capsys, ExitCode.UNSUPPORTED)
    (reason,) = [each["reason"] for each in document["left_out"]]
    assert why in reason


def test_a_program_that_cannot_be_run_is_a_usage_error(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    assert cli.main(["bench", "--against", str(plain)]) == ExitCode.USAGE
    assert "not executable" in capsys.readouterr().err
