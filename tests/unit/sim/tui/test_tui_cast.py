from __future__ import annotations

import io
import json
import os
import pathlib
from typing import Any

import pytest
from textual.drivers._writer_thread import WriterThread

from engine.errors import UserError
from sim.tui.terminal import Cast, terminal


def test_a_cast_is_a_header_and_then_what_was_drawn_when(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "talk.cast"
    cast = Cast(path, os.terminal_size((80, 24)), "talk")
    cast.wrote("\x1b[1m●", 100.0)
    cast.wrote("x", 100.25)
    cast.close()
    cast.wrote("too late", 101.0)
    header, *drawn = map(json.loads, path.read_text().splitlines())
    assert (header["version"], header["width"], header["height"], header["title"]) == (2, 80, 24, "talk")
    assert drawn == [[0.0, "o", "\x1b[1m●"], [0.25, "o", "x"]]


def test_a_cast_that_cannot_be_written_is_one_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"no/talk\.cast: cannot be written: No such file"):
        Cast(tmp_path / "no" / "talk.cast", os.terminal_size((80, 24)), "talk")


def test_the_cast_has_what_the_terminal_got(tmp_path: pathlib.Path) -> None:
    path, drawn = tmp_path / "talk.cast", io.StringIO()
    cast = Cast(path, os.terminal_size((80, 24)), "talk")
    made = terminal(ascii_only=True, cast=cast)
    driver = made.__new__(made)
    thread = driver._writer_thread = WriterThread(drawn)
    thread.start()
    driver.write("● running")
    thread.stop()
    cast.close()
    assert drawn.getvalue() == "* running"
    assert json.loads(path.read_text().splitlines()[1])[2] == "* running"


def test_a_size_that_comes_in_the_middle_of_a_write_is_not_lost(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = Cast(tmp_path / "x.cast", os.terminal_size((100, 30)), "x")
    dumps = json.dumps

    def interrupted(value: object, **how: Any) -> str:
        cast.resized(120, 40, 2.0)  # as a signal handler would
        return dumps(value, **how)

    cast.wrote("a", 1.0)
    with monkeypatch.context() as patched:
        patched.setattr("sim.tui.terminal.json.dumps", interrupted)
        cast.wrote("b", 2.0)
    cast.wrote("c", 3.0)
    cast.close()
    drawn = [json.loads(line) for line in (tmp_path / "x.cast").read_text().splitlines()[1:]]
    assert [(kind, data) for _, kind, data in drawn] == [("o", "a"), ("o", "b"), ("r", "120x40"), ("o", "c")]
