"""`vars` and `matrix`: what references come to, how combinations are named, and every mistake at its place."""

from __future__ import annotations

import pathlib

import pytest

from flags.document import DocumentError
from flags.inline import Rollout
from sim.files.scenario import Scenario, load_all, load_text

HEAD = """\
name: m
fleet:
  - {name: web, count: 2, memory: 4MiB}
steps:
  - tick: 1
"""
MATRIX = """\
name: m
matrix:
  punch: [0%, 50%]
  cache: [disk, tmpfs]
vars: {memory: 4MiB, count: 2, group: web}
node: {cache: "${{ matrix.cache }}"}
fleet:
  - {name: "${{ vars.group }}-x", count: "${{ vars.count }}", memory: "${{vars.memory}}"}
flags:
  memfd-punch-on-snapshot: {rollout: "${{ matrix.punch }}", by: sandbox}
steps:
  - tick: ${{ vars.count }}
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "m.yaml"


def scenarios(path: pathlib.Path, text: str = MATRIX, **given: str) -> list[Scenario]:
    path.write_text(text)
    return load_all(path, given)


def mistakes(path: pathlib.Path, text: str, **given: str) -> list[str]:
    with pytest.raises(DocumentError) as refused:
        scenarios(path, text, **given)
    return [line.removeprefix(f"{path}:") for line in str(refused.value).splitlines()]


def rollout(scenario: Scenario) -> float:
    value = scenario.flag_values["memfd-punch-on-snapshot"]
    assert isinstance(value, Rollout)
    return value.percent


# -- what it comes to


def test_a_matrix_stands_for_a_scenario_a_combination_in_the_order_of_the_file(path: pathlib.Path) -> None:
    made = scenarios(path)
    assert [(rollout(each), each.node.cache) for each in made] == [
        (0.0, "disk"), (0.0, "tmpfs"), (50.0, "disk"), (50.0, "tmpfs"),
    ]  # fmt: skip
    assert [each.title for each in made][:2] == ["m[punch=0%,cache=disk]", "m[punch=0%,cache=tmpfs]"]
    assert [each.name for each in made][:2] == ["m-punch-0-cache-disk", "m-punch-0-cache-tmpfs"]
    assert dict(made[2].chosen) == {"punch": "50%", "cache": "disk"}


def test_a_reference_that_stands_alone_keeps_the_type_and_one_in_a_text_becomes_text(path: pathlib.Path) -> None:
    first = scenarios(path)[0]
    assert [(each.name, each.count, each.memory) for each in first.fleet] == [("web-x", 2, 4 << 20)]
    assert getattr(first.steps[0], "ticks", None) == 2


def test_the_command_line_gives_variables_other_values_as_the_file_would_read_them(path: pathlib.Path) -> None:
    first = scenarios(path, count="3", memory="8MiB")[0]
    assert (first.fleet[0].count, first.fleet[0].memory) == (3, 8 << 20)
    assert dict(first.variables) == {"memory": "8MiB", "count": 3, "group": "web"}


def test_names_that_a_file_does_not_declare_are_another_file_s(path: pathlib.Path) -> None:
    assert dict(scenarios(path, HEAD, other="1")[0].variables) == {}


def test_excluded_combinations_are_left_out(path: pathlib.Path) -> None:
    text = MATRIX.replace("vars:", "  exclude: [{cache: tmpfs, punch: 50%}, {punch: 0%}]\nvars:", 1)
    assert [each.title for each in scenarios(path, text)] == ["m[punch=50%,cache=disk]"]


def test_true_is_not_one_in_a_matrix(path: pathlib.Path) -> None:
    text = (
        HEAD + 'flags: {memfd-background-copy: "${{ matrix.on }}"}\nmatrix: {on: [true, false], exclude: [{on: 1}]}\n'
    )
    assert mistakes(path, text) == ["7:44: error: matrix.exclude[0].on: matrix.on has no 1; nothing is excluded"]


def test_names_that_folders_cannot_tell_apart_are_numbered(path: pathlib.Path) -> None:
    text = HEAD.replace("count: 2", 'team: "${{ matrix.team }}"') + "matrix: {team: [a b, a/b]}\n"
    made = scenarios(path, text)
    assert [each.name for each in made] == ["m-1", "m-2"]
    assert [each.title for each in made] == ["m[team=a b]", "m[team=a/b]"]


def test_the_text_of_a_combination_runs_on_its_own(path: pathlib.Path) -> None:
    for each in scenarios(path):
        again = load_text(each.source_text, path)
        left = {"matrix", "vars"}
        assert again.model_dump(exclude=left) == each.model_dump(exclude=left)
        assert again.title == each.name
        assert "${{" not in each.source_text


def test_an_extending_file_adds_to_the_variables_and_the_matrix(path: pathlib.Path) -> None:
    path.write_text(MATRIX)
    text = "name: more\nextends: m.yaml\nvars: {count: 1}\nmatrix: {punch: [7%]}\n"
    made = scenarios(path.with_name("more.yaml"), text)
    assert [(each.title, each.fleet[0].count) for each in made] == [
        ("more[punch=7%,cache=disk]", 1),
        ("more[punch=7%,cache=tmpfs]", 1),
    ]


def test_where_one_scenario_is_asked_for_a_matrix_is_refused(path: pathlib.Path) -> None:
    with pytest.raises(DocumentError, match=r"m.yaml:3:3: error: matrix: it stands for 4 scenarios"):
        load_text(MATRIX, path)


# -- mistakes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            HEAD + "seed: ${{ matrix.sede }}\nmatrix: {seed: [1, 2]}\n",
            ['6:7: error: seed: nothing declares matrix.sede; did you mean "matrix.seed"?'],
        ),
        (HEAD + "seed: ${{ vars.x }}\n", ["6:7: error: seed: nothing declares vars.x; add it to vars or matrix"]),
        (
            HEAD + "seed: ${{ seed }}\nvars: {seed: 1}\n",
            ['6:7: error: seed: "${{ seed }}" is no reference; write ${{ matrix.NAME }} or ${{ vars.NAME }}'],
        ),
        (
            HEAD + "seed: ${{ vars.seed\nvars: {seed: 1}\n",
            ['6:7: error: seed: "${{ vars.seed" is no reference; write ${{ matrix.NAME }} or ${{ vars.NAME }}'],
        ),
        (
            HEAD + 'seed: ${{ vars.seed }}\nvars: {seed: "${{ vars.seed }}"}\n',
            ["7:14: error: vars.seed: no reference can stand in vars; write the value out"],
        ),
        (
            HEAD + "matrix: {cache: [disk]}\n",
            ["6:10: error: matrix.cache: nothing uses it; write ${{ matrix.cache }} where it belongs, or remove it"],
        ),
        (
            HEAD + 'vars: {memory: 4MiB, "2x": 1}\n',
            ['6:22: error: vars.2x: expected a name of letters, digits, "_" and "-", got "2x"'],
        ),
        (
            HEAD + 'node: {cache: "${{ matrix.cache }}"}\nmatrix: {cache: disk}\n',
            ['7:17: error: matrix.cache: expected a list, got "disk"'],
        ),
        (
            HEAD + 'node: {cache: "${{ matrix.cache }}"}\nmatrix: {cache: [disk, [tmpfs]]}\n',
            ["7:24: error: matrix.cache[1]: expected a string, a number, true or false, got a list"],
        ),
        (
            HEAD + 'node: {cache: "${{ matrix.cache }}"}\nmatrix: {cache: []}\n',
            ["7:17: error: matrix.cache: expected at least one entry, got none"],
        ),
        (
            HEAD + 'node: {cache: "${{ matrix.cache }}"}\nmatrix: {cache: [disk, disk]}\n',
            ['7:24: error: matrix.cache[1]: "disk" a second time; remove it'],
        ),
        (
            HEAD + 'node: {cache: "${{ matrix.cache }}"}\nmatrix: {cache: [disk], exclude: [{cahce: disk}]}\n',
            ['7:36: error: matrix.exclude[0].cahce: no such name in matrix; did you mean "cache"?'],
        ),
        (
            HEAD + 'node: {cache: "${{ matrix.cache }}"}\nmatrix: {cache: [disk], exclude: [{cache: disk}]}\n',
            ["7:34: error: matrix.exclude: every combination is excluded; nothing is left to run"],
        ),
        (HEAD + "matrix:\n", ["6:8: error: matrix: expected a mapping, got nothing"]),
        (HEAD + "vars: [1]\n", ["6:7: error: vars: expected a mapping, got a list"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_once_at_its_place(path: pathlib.Path, text: str, told: list[str]) -> None:
    assert mistakes(path, text) == told


def test_a_wrong_value_is_told_where_it_is_written_once_for_all_combinations(path: pathlib.Path) -> None:
    text = MATRIX.replace("[0%, 50%]", "[0%, 150%]").replace("memory: 4MiB", "memory: 4Mib")
    assert mistakes(path, text) == [
        '3:15: error: flags.memfd-punch-on-snapshot.rollout: expected a share of at most 100%, got "150%"',
        '5:16: error: fleet[0].memory: expected a size such as 32MiB, got "4Mib"',
    ]


def test_a_wrong_value_of_the_command_line_is_told_where_it_is_used(path: pathlib.Path) -> None:
    assert mistakes(path, MATRIX, count="many") == [
        '8:42: error: fleet[0].count: expected a whole number, got "many"',
        '12:11: error: steps[0].tick: expected a whole number, got "many"',
    ]


def test_too_many_combinations_are_refused(path: pathlib.Path) -> None:
    numbers = ", ".join(map(str, range(20)))
    text = HEAD + 'seed: "${{ matrix.a }}${{ matrix.b }}"\n' + f"matrix: {{a: [{numbers}], b: [{numbers}]}}\n"
    assert mistakes(path, text) == ["7:1: error: matrix: 400 combinations are too many to run; at most 256"]


def test_a_reference_inside_braces_without_quotes_is_told_how_to_write_it(path: pathlib.Path) -> None:
    (told,) = mistakes(path, HEAD.replace("4MiB", "${{ vars.memory }}") + "vars: {memory: 4MiB}\n")
    assert told.startswith("3:")
    assert told.endswith('; inside { } or [ ] write "${{ ... }}" in quotes')


def test_what_is_wrong_beside_a_mistaken_matrix_is_told_too(path: pathlib.Path) -> None:
    text = MATRIX.replace("[disk, tmpfs]", "disk").replace("tick:", "tik:")
    assert mistakes(path, text) == [
        '4:10: error: matrix.cache: expected a list, got "disk"',
        '12:5: error: steps[0]: unknown step "tik"; did you mean "tick"?',
    ]
