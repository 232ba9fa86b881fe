from __future__ import annotations

import json
import pathlib

import pytest

from engine.errors import UserError
from flags.cohort import Member
from flags.context import SandboxAttributes
from sim.files.fleet_table import read_fleet

CSV = """sandbox,team,template,cluster,memory,firecracker-version
web-0,acme,python,east,512MiB,1.13.0
web-1,apex,node,,1073741824,
"""
FLEET = [
    Member(SandboxAttributes("web-0", "python", "acme", "east", firecracker_version="1.13.0"), 512 << 20),
    Member(SandboxAttributes("web-1", "node", "apex"), 1 << 30),
]


def test_a_csv_table_is_a_fleet(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fleet.csv").write_text(CSV, encoding="utf-8-sig")
    assert read_fleet(tmp_path / "fleet.csv") == FLEET


def test_a_json_list_is_the_same_fleet(tmp_path: pathlib.Path) -> None:
    rows = [
        {"sandbox": "web-0", "team": "acme", "template": "python", "cluster": "east", "memory": 512 << 20,
         "firecracker-version": "1.13.0"},
        {"sandbox": "web-1", "team": "apex", "template": "node", "memory": "1GiB"},
    ]  # fmt: skip
    (tmp_path / "fleet.json").write_text(json.dumps(rows, indent=1))
    assert read_fleet(tmp_path / "fleet.json") == FLEET


def test_memory_may_be_unknown(tmp_path: pathlib.Path) -> None:
    (tmp_path / "fleet.csv").write_text("sandbox,team,template\nweb-0,acme,python\n")
    assert [each.memory for each in read_fleet(tmp_path / "fleet.csv")] == [None]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "sandbox,team,template,memroy\nweb-0,a,b,1GiB\n",
            '1:23: error: unknown column "memroy"; did you mean "memory"?',
        ),
        ("sandbox,team\nweb-0,a\n", "2:1: error: template is missing; every row needs sandbox, team, template"),
        ("sandbox,team,template,memory\nweb-0,a,b,1GB\n", "2:11: error: memory: expected a size such as 32MiB"),
        ("sandbox,team,template\nweb-0,a,b\nweb-0,a,b\n", "3:1: error: web-0 is there twice; keep one row"),
        ("sandbox,team,template\nweb-0,a,b,c\n", "2:11: error: a cell more than the header has"),
        ("sandbox,team,template\n", "1:1: error: no sandbox; write a row for each"),
        ("", "1:1: error: no sandbox; write a row for each"),
        ('[{"sandbox": 3, "team": "a", "template": "b"}]', "1:3: error: sandbox is 3; write a name"),
        ('[\n{"sandbox": "a", "team": "a", "template": "b", "memory": -1}]', "2:48: error: memory: expected a size"),
        ('[{"sandbox": "a"', "1:17: error: not JSON"),
        ("[1]", '1:2: error: unknown column "1"'),
    ],
)
def test_a_mistake_in_a_table_is_told_at_its_cell(text: str, mistake: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fleet"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_fleet(path)
    assert f"{path}:{mistake}" in str(error.value)


def test_an_unknown_column_is_told_once_however_many_rows_it_has(tmp_path: pathlib.Path) -> None:
    rows = "\n".join(f"web-{number},a,b,x" for number in range(9))
    (tmp_path / "fleet.csv").write_text(f"sandbox,team,template,colour\n{rows}\n")
    with pytest.raises(UserError) as error:
        read_fleet(tmp_path / "fleet.csv")
    assert len(str(error.value).splitlines()) == 1


def test_a_table_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_fleet(tmp_path / "none.csv")
