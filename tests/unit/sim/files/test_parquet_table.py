"""A table in Parquet says what the same table in JSON says; its places are numbers of row and column."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from typing import Any

import pytest

from flags.document import DocumentError
from sim.files import table_cells
from sim.files.fleet_table import PRODUCTION, read_table

needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="needs the extra: pip install 'snapdrill[table]'"
)
ROWS: list[dict[str, Any]] = [
    {"sandbox": "a", "team": "t", "template": "p", "memory": 1 << 29, "dirty": 0.25, "tier": 4, "paid": True},
    {"sandbox": "b", "team": "t", "template": "p", "memory": 1 << 30, "dirty": None, "tier": 5, "paid": False},
]


def written(path: pathlib.Path, rows: list[dict[str, Any]]) -> pathlib.Path:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@needs_pyarrow
def test_a_table_is_the_same_in_parquet_and_in_json(tmp_path: pathlib.Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(ROWS))
    of_parquet = read_table(written(tmp_path / "t.parquet", ROWS), PRODUCTION)
    assert of_parquet.rows == read_table(tmp_path / "t.json", PRODUCTION).rows
    assert of_parquet.rows[1].attributes.others == (("tier", 5), ("paid", False))


@needs_pyarrow
def test_a_mistake_in_parquet_is_at_its_row_and_column(tmp_path: pathlib.Path) -> None:
    rows = [*ROWS, {**ROWS[0], "sandbox": "b", "memory": -5, "team": None}, {**ROWS[0], "sandbox": "d", "tier": None}]
    with pytest.raises(DocumentError) as refused:
        read_table(written(tmp_path / "t.parquet", rows), PRODUCTION)
    assert [str(each).split("t.parquet:")[1] for each in refused.value.mistakes] == [
        '3:1: error: duplicate sandbox "b"; the first is in line 2; keep one',
        "3:1: error: no team in this row; every row needs sandbox, team, template, memory",
        '3:4: error: memory: expected a size such as 32MiB, got "-5"',
    ]


@needs_pyarrow
@pytest.mark.parametrize("cut", [5, 40, 400])
def test_parquet_that_is_broken_is_refused_in_a_sentence(tmp_path: pathlib.Path, cut: int) -> None:
    path = written(tmp_path / "t.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DocumentError, match=r"t\.parquet:1:1: error: not Parquet that can be read"):
        read_table(path, PRODUCTION)


@needs_pyarrow
def test_a_table_with_too_many_cells_is_refused_before_it_is_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_cells, "MOST_CELLS", 10)
    with pytest.raises(DocumentError, match="more than 10 cells"):
        read_table(written(tmp_path / "t.parquet", ROWS), PRODUCTION)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(DocumentError, match=r"Parquet needs the extra: pip install 'snapdrill\[table\]'"):
        read_table(path, PRODUCTION)
