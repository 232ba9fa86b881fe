"""`run --events`: the ledger's lines, whole and in order, while they are being written."""

from __future__ import annotations

import io
import json
import os
import pathlib
import threading

import pytest

from engine.errors import UserError
from sim.record.ledger import STDOUT, following, open_sink


def fail(error: OSError) -> None:
    raise AssertionError(error)


def test_lines_come_while_the_run_still_writes(tmp_path: pathlib.Path) -> None:
    ledger = tmp_path / "events.jsonl"
    ledger.write_bytes(b'{"t":0}\n')
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as come, os.fdopen(writer, "wb") as sink, following(sink, fail) as follow:
        follow(ledger)
        assert come.readline() == b'{"t":0}\n'
        with ledger.open("ab") as file:
            file.write(b'{"t":1}\n')
        assert come.readline() == b'{"t":1}\n'


def test_everything_has_been_handed_on_in_the_end_however_late_it_came(tmp_path: pathlib.Path) -> None:
    ledger, sink = tmp_path / "events.jsonl", io.BytesIO()
    ledger.touch()
    lines = b"".join(json.dumps({"t": number}).encode() + b"\n" for number in range(10_000))
    with following(sink, fail) as follow:
        follow(ledger)
        ledger.write_bytes(lines)
    assert sink.getvalue() == lines


def test_a_line_that_is_not_whole_is_not_handed_on(tmp_path: pathlib.Path) -> None:
    ledger, sink = tmp_path / "events.jsonl", io.BytesIO()
    ledger.write_bytes(b'{"t":0}\n{"t":')
    with following(sink, fail) as follow:
        follow(ledger)
    assert sink.getvalue() == b'{"t":0}\n'


def test_a_reader_that_went_away_is_reported_at_the_end_and_ends_nothing(tmp_path: pathlib.Path) -> None:
    ledger = tmp_path / "events.jsonl"
    ledger.write_bytes(b'{"t":0}\n')
    reader, writer = os.pipe()
    os.close(reader)
    sink = os.fdopen(writer, "wb", buffering=0)
    lost: list[OSError] = []
    with sink, following(sink, lost.append) as follow:
        follow(ledger)
    assert [type(each) for each in lost] == [BrokenPipeError]


def test_without_a_sink_nothing_is_followed(tmp_path: pathlib.Path) -> None:
    before = threading.active_count()
    with following(None, fail) as follow:
        follow(tmp_path / "nothing")
        assert threading.active_count() == before


def test_a_file_is_emptied_and_standard_output_is_a_dash(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("old\n")
    with open_sink(path) as sink:
        assert sink is not None
        sink.write(b"new\n")
    assert path.read_text() == "new\n"
    with open_sink(None) as sink:
        assert sink is None
    with pytest.raises(UserError, match=r"cannot be written: No such file"), open_sink(tmp_path / "no" / "file"):
        pass
    assert pathlib.Path("-") == STDOUT
