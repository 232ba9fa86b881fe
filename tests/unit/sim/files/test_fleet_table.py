"""One table of sandboxes for every command; every mistake in it is reported at its cell."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UserError
from flags.cohort import Member
from flags.context import ALL, ORIGINAL, SandboxAttributes
from flags.document import DocumentError
from sim.files.fleet_file import Fleet, Percentiles, load_text
from sim.files.fleet_table import COHORT, PRODUCTION, READERS, SandboxTable, read_table
from sim.files.imported_fleet import NEEDED, fleet_text
from sim.files.table_cells import Columns, cells_in, cells_of

MEMBERS_CSV = """sandbox,team,template,cluster,memory,firecracker-version
web-0,acme,python,east,512MiB,1.13.0
web-1,apex,node,,1073741824,
"""
MEMBERS_JSON = [
    {"sandbox": "web-0", "team": "acme", "template": "python", "cluster": "east", "memory": 512 << 20,
     "firecracker-version": "1.13.0"},
    {"sandbox": "web-1", "team": "apex", "template": "node", "memory": "1GiB", "cluster": None},
]  # fmt: skip
UNKNOWN = ("deployment", "service", "sandbox_type", "kernel_version")
LAST = ("envd_version", "orchestrator", "commit")
MEMBERS = [
    Member(
        SandboxAttributes("web-0", "python", "acme", "east", firecracker_version="1.13.0", absent=(*UNKNOWN, *LAST)),
        512 << 20,
    ),
    Member(
        SandboxAttributes("web-1", "node", "apex", absent=("cluster", *UNKNOWN, "firecracker_version", *LAST)), 1 << 30
    ),
]
SANDBOXES = """sandbox,memory,dirty,page_size,team,template,pauses_per_hour
a-1,512MiB,30%,4KiB,red,python,0.5
a-2,1073741824,0.4,4096,red,python,1.5
a-3,512MiB,,,blue,python,
h-1,4GiB,50%,2MiB,blue,"build, all",0
"""


@pytest.fixture
def table(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "t"


def imported(table: pathlib.Path, text: str) -> Fleet:
    table.write_text(text)
    made = fleet_text(
        read_table(table, NEEDED).rows, name="imported", node_memory=48 << 30, hugetlb=8 << 30, scale="1/64", origin="t"
    )
    return load_text(made, pathlib.Path("f.yaml"))


NEEDS = {"import": NEEDED, "cohort": COHORT, "rehearse": PRODUCTION}


def read(table: pathlib.Path, text: str, of: str = "cohort") -> SandboxTable:
    table.write_text(text)
    return read_table(table, NEEDS[of])


def mistakes(table: pathlib.Path, text: str, *, of: str = "import") -> list[str]:
    """Of a table that one of the commands reads."""
    with pytest.raises(UserError) as refused:
        read(table, text, of)
    return [line.removeprefix(f"{table}:").replace(" error:", "", 1) for line in str(refused.value).splitlines()]


# -- what is made of the rows


@pytest.mark.parametrize("text", [MEMBERS_CSV, "\ufeff" + MEMBERS_CSV, json.dumps(MEMBERS_JSON, indent=1)])
def test_members_of_a_fleet_are_read_from_csv_or_json(table: pathlib.Path, text: str) -> None:
    assert read(table, text).members() == MEMBERS


def test_memory_of_a_member_may_be_unknown(table: pathlib.Path) -> None:
    assert [each.memory for each in read(table, "sandbox,team,template\nweb-0,acme,python\n").rows] == [None]


def test_unknown_columns_are_attributes_and_keep_the_types_of_json(table: pathlib.Path) -> None:
    (row,) = read(table, "sandbox,team,template,tier,team.name,region\na,t,p,4,bank,eu\n").rows
    assert row.attributes.others == (("tier", "4"), ("team.name", "bank"), ("region", "eu"))
    context = ALL.context(row.attributes, "pause")
    assert (context["sandbox"]["tier"], context["team"]) == ("4", {"key": "t", "name": "bank"})
    (row,) = read(table, '[{"sandbox": "a", "team": "t", "template": "p", "tier": 4, "paid": true}]').rows
    assert row.attributes.others == (("tier", 4), ("paid", True))
    (row,) = read(table, '[{"sandbox": "a", "team": "t", "template": "p", "tier": 4.0, "load": 0.5}]').rows
    assert [(name, type(value)) for name, value in row.attributes.others] == [("tier", int), ("load", float)]


def test_what_a_row_does_not_say_is_in_no_context_and_its_node_is_the_orchestrators_key(table: pathlib.Path) -> None:
    bare, placed = read(table, "sandbox,team,template,node\na,t,p,\nb,t,p,n-7\n").rows
    assert ALL.context(bare.attributes, "pause") == {
        "kind": "multi",
        "sandbox": {"key": "a", "template-id": "p"},
        "team": {"key": "t"},
        "template": {"key": "p"},
    }
    assert ORIGINAL.context(bare.attributes, "in-place") == {"kind": "multi"}
    assert ORIGINAL.context(placed.attributes, "in-place") == {"kind": "multi", "orchestrator": {"key": "n-7"}}


def test_a_dash_is_as_good_as_an_underscore_and_a_slip_of_the_pen_is_named(table: pathlib.Path) -> None:
    text = "sandbox,team,template,firecracker_version,pauses-per-hour,memroy\na,t,p,1.12.1,3,1GiB\n"
    found = read(table, text)
    assert (found.rows[0].attributes.firecracker_version, found.rows[0].pauses_per_hour) == ("1.12.1", 3.0)
    (note,) = found.notes
    assert (note.severity, note.hint) == ("warning", 'did you mean "memory"?')
    assert (
        mistakes(table, "memory,page_size,page-size\n1MiB,4KiB,4KiB\n")[0]
        == "1:18: duplicate column page_size; keep one"
    )


def test_fifty_mistakes_are_printed_and_the_others_counted(table: pathlib.Path) -> None:
    found = mistakes(table, "memory\n" + "1X\n" * 70)
    assert (len(found), found[-1]) == (51, "and 20 more")


def test_a_group_is_a_template_with_one_page_size(table: pathlib.Path) -> None:
    huge, python = imported(table, SANDBOXES).groups
    assert (huge.name, huge.count, huge.page_size, huge.template) == ("build-all-0", 1, 2 << 20, "build, all")
    assert (python.count, python.pauses_per_hour.median) == (3, 1.0)
    assert isinstance(python.memory, tuple)
    assert [(each.value >> 20, each.weight) for each in python.memory] == [(512, 2), (1024, 1)]


def test_a_fleet_file_is_the_same_whether_its_table_is_csv_or_json(table: pathlib.Path) -> None:
    rows = [
        {"sandbox": "a-1", "memory": 536870912, "dirty": 0.3, "page_size": 4096, "team": "red", "template": "python",
         "pauses_per_hour": 0.5},
        {"sandbox": "a-2", "memory": "1GiB", "dirty": "40%", "page_size": "4KiB", "team": "red", "template": "python",
         "pauses_per_hour": 1.5},
        {"sandbox": "a-3", "memory": "512MiB", "dirty": None, "team": "blue", "template": "python"},
        {"sandbox": "h-1", "memory": "4GiB", "dirty": 0.5, "page_size": 2 << 20, "team": "blue",
         "template": "build, all", "pauses_per_hour": 0},
    ]  # fmt: skip
    assert imported(table, json.dumps(rows)) == imported(table, SANDBOXES)


def test_a_sandbox_that_is_never_paused_is_not_assumed_to_be_paused_as_others(table: pathlib.Path) -> None:
    assert imported(table, SANDBOXES).groups[0].pauses_per_hour.median == pytest.approx(1e-6)


def test_a_rate_too_small_for_plain_digits_is_read_from_json(table: pathlib.Path) -> None:
    (group,) = imported(table, '[{"memory": "1MiB", "pauses_per_hour": 0.00002}]').groups
    assert group.pauses_per_hour.median == pytest.approx(2e-5)


def test_many_values_become_percentiles(table: pathlib.Path) -> None:
    (group,) = imported(table, "memory\n" + "\n".join(f"{size}MiB" for size in range(1, 102))).groups
    assert isinstance(group.memory, Percentiles)
    assert group.memory.p50 == 51 << 20
    assert (group.memory.min, group.memory.max) == (1 << 20, 101 << 20)


def test_what_the_table_does_not_say_is_left_out_of_the_file(table: pathlib.Path) -> None:
    (group,) = imported(table, "memory\n64MiB\n").groups
    assert not {"dirty", "resident", "team_size", "pauses_per_hour"} & group.model_fields_set


def test_sandboxes_of_a_node_are_counted_where_the_table_names_nodes(table: pathlib.Path) -> None:
    assert imported(table, "memory,node\n1MiB,a\n1MiB,a\n1MiB,a\n1MiB,b\n").node.sandboxes == 2


# -- what is wrong with them


def test_every_cell_that_cannot_be_read_is_reported_at_once(table: pathlib.Path) -> None:
    text = 'sandbox,memory,dirty,pauses_per_hour\na,1X,30%,x\n"a\nb",,200%\na,1GiB,3,4,5,6\n'
    assert mistakes(table, text) == [
        '2:3: memory: expected a size such as 32MiB, got "1X"',
        '2:10: pauses_per_hour: expected a number of pauses an hour, got "x"',
        "3:1: no memory in this row; every row needs memory",
        '4:5: dirty: expected a share of at most 100%, got "200%"',
        '5:1: duplicate sandbox "a"; the first is in line 2; keep one',
        '5:8: dirty: expected a share such as 40% or 0.4, got "3"',
        "5:12: more cells than the 4 of the header",
        "5:14: more cells than the 4 of the header",
    ]


def test_every_member_of_json_that_cannot_be_read_is_reported_at_once(table: pathlib.Path) -> None:
    text = """\
[{"sandbox": 3, "team": "a", "template": ""},
 {"sandbox": "a", "team": "a", "team": "b", "template": "b", "memory": -1},
 {"sandbox": "a", "taem": "a", "template": null},
 7]
"""
    needed = "every row needs sandbox, team, template"
    assert mistakes(table, text, of="cohort") == [
        "1:3: sandbox: expected a name, got 3",
        '1:30: template: expected a name, got ""',
        "2:32: duplicate column team; keep one",
        '2:62: memory: expected a size such as 32MiB, got "-1"',
        f"3:2: no team in this row; {needed}",
        f"3:2: no template in this row; {needed}",
        '3:3: duplicate sandbox "a"; the first is in line 2; keep one',
        "4:2: expected a row, an object with sandbox, team, template; got 7",
    ]


def test_one_object_of_json_is_one_row_with_its_places(table: pathlib.Path) -> None:
    assert mistakes(table, '{"memory": "1MiB",\n "dirty": true}') == ["2:2: dirty: expected text or a number, got true"]


@pytest.mark.parametrize(
    ("of", "text", "found"),
    [
        ("import", "memory,\n1MiB,x\n", ["2:6: a cell below no name in the header"]),
        ("import", "memory,firecracker-version\n1MiB,v1\n",
         ['2:6: firecracker-version: expected a version such as 1.14.1, got "v1"']),
        ("import", '[{"memory": 4096, "team.key": "x", "anonymous": "no", "name": 5, "tier": []}]',
         ['1:19: team.key: no attribute can be named "key"; got "x"',
          '1:36: anonymous: anonymous is true or false, which CSV cannot say; got "no"',
          "1:55: name: a name is text; got 5", "1:66: tier: expected text, a number, true or false; got a list"]),
        ("rehearse", "sandbox,team,template\na,t,p\n",
         ["1:1: no column memory; every row needs sandbox, team, template, memory"]),
        ("import", "dirty\n30%\n40%\n", ["1:1: no column memory; every row needs memory"]),
        ("import", "", ["1:1: no sandbox; write a row for each, below a header with memory"]),
        ("import", "[]", ["1:1: no sandbox; write an object for each, with memory"]),
        ("import", "memory,memory\n", ["1:8: duplicate column memory; keep one"]),
        ("cohort", "\n\nsandbox,team\na,a\nb,a\n",
         ["3:1: no column template; every row needs sandbox, team, template"]),
        ("cohort", "sandbox,team,template\n",
         ["1:1: no sandbox; write a row for each, below a header with sandbox, team, template"]),
        ("cohort", '[{"sandbox": "a"', ["1:17: not JSON: Expecting ',' delimiter"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_whole_table_is_reported_once(
    table: pathlib.Path, of: str, text: str, found: list[str]
) -> None:
    assert mistakes(table, text, of=of) == found


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6).map(str.strip)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=4).filter(any), max_size=4))
def test_cells_come_back_whatever_is_in_them(written: list[list[str]]) -> None:
    text = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in written)
    assert [[cell.value for cell in row] for row in cells_of(text, pathlib.Path("t.csv"))] == written


def test_a_cell_knows_its_line_and_column() -> None:
    found = [
        [(cell.value, *cell.position) for cell in row]
        for row in cells_of('a,"b\nc",d\r\n\n e,f', pathlib.Path("t.csv"))
    ]
    assert found == [[("a", 1, 1), ("b\nc", 1, 3), ("d", 2, 4)], [("e", 4, 1), ("f", 4, 4)]]


PARTS = st.lists(st.sampled_from(['"', ",", "\n", "memory", "sandbox", "a", "1MiB", "[", "{", "}", "]", ":", "null"]))


@given(PARTS)
def test_any_text_at_all_is_a_table_or_a_list_of_mistakes(parts: list[str]) -> None:
    text, path = "".join(parts), pathlib.Path("t")
    try:
        rows = cells_in(text, path, Columns(READERS, ["memory"], lambda _name, value: value)).rows
    except DocumentError as refused:
        lines = text.count("\n") + 1
        outside = [each for each in refused.mistakes if not 1 <= each.position.line <= lines]
        rows = []
        if outside or not refused.mistakes:
            pytest.fail(f"a refusal without a place in the text: {refused.mistakes}")
    assert all(row["memory"] > 0 for row in rows)


@pytest.mark.timeout(20)
def test_a_header_of_too_many_columns_is_one_mistake_however_long_it_is(table: pathlib.Path) -> None:
    header = "sandbox,team,template,memory" + ",c" * 100_000
    assert mistakes(table, f"{header}\n") == ["1:2022: 100,004 columns, a table has at most 1,000"]
