"""A table of sandboxes becomes a fleet file, or every mistake in it is told at its cell."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from sim.files.fleet_file import Fleet, Percentiles, load_text
from sim.files.fleet_table import fleet_text, rows, table

TABLE = """sandbox,memory,dirty,page_size,team,template,pauses_per_hour
a-1,512MiB,30%,4KiB,red,python,0.5
a-2,1073741824,0.4,4096,red,python,1.5
a-3,512MiB,,,blue,python,
h-1,4GiB,50%,2MiB,blue,"build, all",0
"""


def imported(text: str) -> Fleet:
    made = fleet_text(
        table(text, "t.csv"), name="imported", node_memory=48 << 30, hugetlb=8 << 30, scale="1/64", origin="t.csv"
    )
    return load_text(made, pathlib.Path("f.yaml"))


def mistakes(text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        table(text, "t.csv")
    return str(caught.value).splitlines()


def test_a_group_is_a_template_with_one_page_size() -> None:
    huge, python = imported(TABLE).groups
    assert (huge.name, huge.count, huge.page_size, huge.template) == ("build-all-0", 1, 2 << 20, "build, all")
    assert (python.count, python.pauses_per_hour.median) == (3, 1.0)
    assert isinstance(python.memory, tuple)
    assert [(each.value >> 20, each.weight) for each in python.memory] == [(512, 2), (1024, 1)]


def test_a_sandbox_that_is_never_paused_is_not_assumed_to_be_paused_as_others() -> None:
    assert imported(TABLE).groups[0].pauses_per_hour.median == pytest.approx(1e-6)


def test_many_values_become_percentiles() -> None:
    (group,) = imported("memory\n" + "\n".join(f"{size}MiB" for size in range(1, 102))).groups
    assert isinstance(group.memory, Percentiles)
    assert group.memory.p50 == 51 << 20
    assert (group.memory.min, group.memory.max) == (1 << 20, 101 << 20)


def test_what_the_table_does_not_tell_is_left_out_of_the_file() -> None:
    (group,) = imported("memory\n64MiB\n").groups
    assert not {"dirty", "resident", "team_size", "pauses_per_hour"} & group.model_fields_set


def test_sandboxes_of_a_node_are_counted_where_the_table_names_nodes() -> None:
    assert imported("memory,node\n1MiB,a\n1MiB,a\n1MiB,a\n1MiB,b\n").node.sandboxes == 2


def test_every_cell_that_cannot_be_read_is_told_at_once() -> None:
    text = 'sandbox,memory,dirty,pauses_per_hour\na,1X,30%,x\n"a\nb",,200%\na,1GiB,3,4,5\n'
    assert mistakes(text) == [
        't.csv:2:3: error: memory: expected a size such as 32MiB, got "1X"',
        't.csv:2:10: error: pauses_per_hour: expected a number of pauses an hour, got "x"',
        "t.csv:3:1: error: no memory in this row; it is required",
        't.csv:4:5: error: dirty: expected a share of at most 100%, got "200%"',
        't.csv:5:1: error: sandbox "a" is there twice; the first is in line 2',
        't.csv:5:8: error: dirty: expected a share such as 40% or 0.4, got "3"',
        "t.csv:5:12: error: a cell more than the 4 of the header",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("memory,dirt\n", 't.csv:1:8: error: unknown column "dirt"; did you mean "dirty"?'),
        ("dirty\n", "t.csv:1:1: error: no column memory; it is required"),
        ("", "t.csv:1:1: error: no sandbox; write a header with `memory` in it, and a row for each sandbox"),
        ("memory,memory\n", "t.csv:1:8: error: a second column memory; keep one"),
    ],
)
def test_a_header_that_cannot_be_read_is_told(text: str, told: str) -> None:
    assert mistakes(text) == [told]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6).map(str.strip)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4).filter(any), max_size=4))
def test_cells_come_back_whatever_is_in_them(written: list[list[str]]) -> None:
    text = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in written)
    assert [[cell.text for cell in row] for row in rows(text)] == written


def test_a_cell_knows_its_line_and_column() -> None:
    found = [[(cell.text, cell.line, cell.column) for cell in row] for row in rows('a,"b\nc",d\r\n\n e,f')]
    assert found == [[("a", 1, 1), ("b\nc", 1, 3), ("d", 2, 4)], [("e", 4, 1), ("f", 4, 4)]]
