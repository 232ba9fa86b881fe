"""Where the kernel refuses userfaultfd, guests note their writes themselves, and every rule holds all the same."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pathlib
import platform
import struct
import subprocess
import sys

import pytest

SCENARIO = pathlib.Path(__file__).parents[3] / "scenarios" / "first-chunk-failure.yaml"
NR_USERFAULTFD = 282 if platform.machine() == "aarch64" else 323


def refuse_userfaultfd() -> None:
    """A seccomp filter that fails userfaultfd(2) with EPERM, as container runtimes do; inherited by every child."""
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, NR_USERFAULTFD), (6, 0, 0, 0x00050000 | errno.EPERM), (6, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("<HBBI", *row) for row in rows)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(rows), ctypes.addressof(buffer)), 16)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.addressof(header), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def test_a_run_without_userfaultfd_holds_and_names_its_tracker(tmp_path: pathlib.Path) -> None:
    line = [sys.executable, "-c", "import sys; from sim.cli import main; sys.exit(main())", "run", str(SCENARIO)]
    try:
        result = subprocess.run(
            [*line, "--runs-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            preexec_fn=refuse_userfaultfd,
            env={**os.environ, "PYTHONPATH": str(SCENARIO.parents[1])},
        )
    except subprocess.SubprocessError:
        pytest.skip("this host refuses seccomp filters")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "shared-bitmap" in result.stdout
    lines = (tmp_path / "first-chunk-failure" / "latest" / "events.jsonl").read_text().splitlines()
    scanned = [each for each in map(json.loads, lines) if each["event"] == "scanned"]
    assert {each["tracker"] for each in scanned} == {"shared-bitmap"}
    born = [each for each in map(json.loads, lines) if each["event"] == "guest_spawned"]
    assert {each["tracker_refused"] for each in born} == {"EPERM"}
    assert {each["tracker_why"] for each in born} == {"userfaultfd is refused: Operation not permitted"}
    assert all(0 < each["dirty_bytes"] < 32 << 20 for each in scanned)
