"""The screen on a real terminal, run as a program: raw bytes, signals, sizes."""

from __future__ import annotations

import json
import pathlib
import random
import signal
import time

import pytest

from tests.tui.real_terminal import RealTerminal

SCENARIO = """\
name: real
seed: 3
fleet:
  - {name: web, count: 2, memory: 4MiB, workload: {dirty: 100%, pattern: full}}
steps:
  - tick: 1
  - pause: {}
expect:
  - {invariant: bytes_exact}
  - {metric: peak_ratio, min: 1.9}
"""
ODD = (
    b"\xff",
    b"\xc3",
    b"\x80\xfe",
    b"\x1b[1;2:3P",
    b"\x1b[999999999999P",
    b"\x1b[48;0;0;0;0t",
    b"\x1b[48;99999;99999;0;0t",
)
OPENING = "qRd?/ C\r" + "\x03\x10\x11\x1a\x1b"
"""Keys that end, stop or begin something, or open what then takes the keys."""


@pytest.fixture
def scenario(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "real.yaml"
    path.write_text(SCENARIO)
    return str(path)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_byte_on_stdin_ends_the_screen(seed: int, tmp_path: pathlib.Path, scenario: str) -> None:
    chance = random.Random(seed)
    harmless = [byte for byte in range(256) if chr(byte) not in OPENING]
    with RealTerminal("tui", scenario, cwd=tmp_path) as terminal:
        terminal.until("running")
        for odd in ODD:
            terminal.send(odd)
        chance.shuffle(harmless)
        terminal.send(bytes(harmless))
        terminal.send(b"q")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.drawn
        assert "run folder" in terminal.drawn[-2000:]


def test_leaving_at_once_holds_and_says_where_the_run_is_and_what_shows_it(
    tmp_path: pathlib.Path, scenario: str
) -> None:
    with RealTerminal("tui", scenario, cwd=tmp_path) as terminal:
        terminal.until("running")
        terminal.send(b"q")
        assert terminal.wait() == 0, "what the steps would have shown is not judged: nobody played them"
        said = terminal.drawn[-2000:]
    (run,) = [path for path in (tmp_path / "runs" / "real").iterdir() if not path.is_symlink()]
    assert "HELD  real  seed 3" in said
    assert f"run folder: {run}" in said
    assert f"snapdrill replay {run} --tui" in said
    assert f"snapdrill check {run}" in said


def test_ctrl_z_stops_it_and_it_goes_on_where_it_was(tmp_path: pathlib.Path, scenario: str) -> None:
    with RealTerminal("tui", scenario, cwd=tmp_path) as terminal:
        terminal.until("running")
        terminal.send(b"\x1a")
        terminal.until("\x1b[?1049l")
        deadline = time.monotonic() + 20
        while state_of(terminal.process.pid) != "T":
            assert time.monotonic() < deadline, "it was never stopped"
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until("\x1b[?1049h")
        terminal.until("running")
        terminal.send(b"q")
        assert terminal.wait() == 0


def state_of(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_recording_follows_the_size_of_the_terminal(tmp_path: pathlib.Path, scenario: str) -> None:
    with RealTerminal("tui", scenario, "--record", "talk.cast", cwd=tmp_path) as terminal:
        terminal.until("running")
        terminal.resize(120, 40)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.until("\x1b[40;1H")  # a line that it had not before
        terminal.send(b"q")
        assert terminal.wait() == 0
    header, *drawn = map(json.loads, (tmp_path / "talk.cast").read_text().splitlines())
    assert (header["width"], header["height"]) == (100, 30)
    assert [data for _, kind, data in drawn if kind == "r"] == ["120x40"]


def test_what_the_host_lacks_is_one_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "much.yaml"
    path.write_text(
        "name: much\nnode: {memory: 900GiB}\nfleet: [{name: web, count: 9, memory: 90GiB}]\nsteps: [{tick: 1}]\n"
    )
    with RealTerminal("tui", str(path), cwd=tmp_path) as terminal:
        assert terminal.wait() == 4
        (said,) = terminal.drawn.strip().splitlines()
    assert said.startswith(f"snapdrill: {path} cannot be run here: it needs ")


@pytest.mark.parametrize("how", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "", "LANG": "C"}, {"TERM": "linux"}])
def test_where_locale_or_terminal_has_no_more_it_is_drawn_in_ascii(
    how: dict[str, str], tmp_path: pathlib.Path, scenario: str
) -> None:
    with RealTerminal("tui", scenario, cwd=tmp_path, env=how) as terminal:
        terminal.until("running")
        terminal.send(b"q")
        terminal.wait()
    assert terminal.drawn.isascii()
    assert "* running" in terminal.drawn
