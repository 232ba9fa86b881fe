"""A scenario that extends another: what it takes from it, and in which file a mistake is told."""

from __future__ import annotations

import pathlib

import pytest

from flags.document import DocumentError
from sim.files.scenario import Scenario, load, load_text
from sim.files.yaml import Origin
from sim.record.scenario_copy import GIVEN_FLAGS, store

BASE = """\
# shared
name: base
seed: 5
node: {memory: 256MiB, cache: tmpfs}
fleet:
  - {name: web, count: 2, memory: 8MiB}
  - {name: api, memory: 4MiB}
flags:
  memfd-punch-on-snapshot: false
  memfd-background-copy: {rollout: 10%, by: team}
steps:
  - tick: 1
  - pause: {}
expect:
  - {invariant: bytes_exact}
"""


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with `shared/base.yaml`; scenarios are written beside `shared`."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text(BASE)
    return tmp_path


def write(folder: pathlib.Path, text: str, name: str = "child") -> pathlib.Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\nextends: shared/base.yaml\n{text}")
    return path


def child(folder: pathlib.Path, text: str = "") -> Scenario:
    return load(write(folder, text))


def mistakes(path: pathlib.Path) -> list[str]:
    with pytest.raises(DocumentError) as refused:
        load(path)
    return str(refused.value).splitlines()


# -- what is taken


def test_what_a_file_does_not_say_it_takes_from_what_it_extends(base: pathlib.Path) -> None:
    loaded = child(base)
    assert (loaded.name, loaded.seed, loaded.node.cache) == ("child", 5, "tmpfs")
    assert [each.kind for each in loaded.steps] == ["tick", "pause"]


def test_maps_are_merged_key_by_key_and_lists_are_replaced(base: pathlib.Path) -> None:
    text = """\
node: {cache: disk}
fleet:
  - {name: web, memory: 4MiB}
flags:
  memfd-background-copy: {rollout: 20%}
"""
    loaded = child(base, text)
    assert (loaded.node.cache, loaded.node.memory) == ("disk", 256 << 20)
    assert [each.name for each in loaded.sandboxes()] == ["web-0"]
    assert loaded.flag_values["memfd-punch-on-snapshot"] is False
    merged = loaded.flag_values["memfd-background-copy"]
    assert (getattr(merged, "percent", None), getattr(merged, "by", None)) == (20.0, "team")


def test_a_scalar_takes_the_place_of_a_map_and_a_map_that_of_a_scalar(base: pathlib.Path) -> None:
    text = "flags: {memfd-background-copy: true, memfd-punch-on-snapshot: {rollout: 1%, by: sandbox}}\n"
    assert child(base, text).flag_values["memfd-background-copy"] is True


def test_a_chain_is_followed_and_the_nearest_file_wins(base: pathlib.Path) -> None:
    write(base, "seed: 6\nnode: {memory: 64MiB}\n", "middle")
    path = base / "end.yaml"
    path.write_text("name: end\nextends: middle.yaml\nnode: {cache: disk}\n")
    loaded = load(path)
    assert (loaded.seed, loaded.node.memory, loaded.node.cache) == (6, 64 << 20, "disk")


def test_the_name_is_each_file_s_own(base: pathlib.Path) -> None:
    (base / "nameless.yaml").write_text("extends: shared/base.yaml\n")
    assert mistakes(base / "nameless.yaml") == [f"{base}/nameless.yaml:1:1: error: name: missing; it is required"]


def test_a_flag_file_lies_beside_the_file_that_names_it(base: pathlib.Path) -> None:
    shared = base / "shared" / "base.yaml"
    shared.write_text(BASE.partition("flags:")[0] + "flags: {file: flags.json}\nsteps:\n  - tick: 1\n")
    (base / "shared" / "flags.json").write_text('{"flags": {}}')
    loaded = child(base)
    assert loaded.flag_file is not None
    assert loaded.flag_file.resolve() == base / "shared" / "flags.json"


# -- where things are written


def test_every_part_knows_the_file_that_says_it(base: pathlib.Path) -> None:
    loaded = child(base, "expect:\n  - {invariant: no_leaks}\n")
    shared = f"{base}/shared/base.yaml"
    assert loaded.origin(("steps", 1)) == Origin(13, 5, shared)
    assert loaded.origin(("expect", 0)) == Origin(4, 5, "")


def test_mistakes_are_told_in_the_file_that_has_them_the_scenario_s_own_first(base: pathlib.Path) -> None:
    shared = base / "shared" / "base.yaml"
    shared.write_text(BASE.replace("tick: 1", "tik: 1").replace("api, ", "web, "))
    found = mistakes(write(base, "sed: 1\nnode: {cache: dsk}\n"))
    second = 'a second group "web"; sandbox names must be unique, give it another name'
    assert found == [
        f'{base}/child.yaml:3:1: error: sed: unknown key; did you mean "seed"?',
        f'{base}/child.yaml:4:15: error: node.cache: unknown value "dsk"; did you mean "disk"?',
        f"{shared}:7:12: error: fleet[1].name: {second}",
        f'{shared}:12:5: error: steps[0]: unknown step "tik"; did you mean "tick"?',
    ]


def test_a_glob_is_told_where_it_stands_also_when_the_fleet_is_another_file_s(base: pathlib.Path) -> None:
    found = mistakes(write(base, 'steps:\n  - pause: {sandboxes: "wbe-*"}\n'))
    told = 'steps[0].pause.sandboxes: no sandbox matches "wbe-*"; did you mean "web-*"?'
    assert found == [f"{base}/child.yaml:4:24: error: {told}"]


def test_yaml_that_cannot_be_read_is_told_in_its_file(base: pathlib.Path) -> None:
    (base / "shared" / "base.yaml").write_text("name: [\n")
    (found,) = mistakes(write(base, ""))
    assert found.startswith(f"{base}/shared/base.yaml:2:1: error: ")


def test_a_duplicate_key_in_what_is_extended_is_told_there(base: pathlib.Path) -> None:
    (base / "shared" / "base.yaml").write_text(BASE + "seed: 6\n")
    (found,) = mistakes(write(base, ""))
    assert found == f'{base}/shared/base.yaml:16:1: error: duplicate key "seed"; the first is in line 3'


@pytest.mark.parametrize(
    ("extends", "told"),
    [
        ("nope.yaml", "extends: cannot be read: No such file or directory"),
        (".", "extends: cannot be read: it is a folder"),
        ("child.yaml", "extends: this scenario extends itself (child.yaml -> child.yaml)"),
    ],
)
def test_what_cannot_be_extended_is_told_where_it_is_named(base: pathlib.Path, extends: str, told: str) -> None:
    path = base / "child.yaml"
    path.write_text(f"name: child\nextends: {extends}\nfleet: [{{name: a, memory: 4MiB}}]\nsteps: [{{tick: 1}}]\n")
    (found,) = mistakes(path)
    assert found.startswith(f"{path}:2:10: error: {told}")


def test_a_cycle_of_several_files_is_refused_and_shown(tmp_path: pathlib.Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nextends: {other}.yaml\n")
    (found,) = mistakes(tmp_path / "a.yaml")
    told = "extends: this scenario extends itself (b.yaml -> c.yaml -> b.yaml)"
    assert found.startswith(f"{tmp_path}/c.yaml:2:10: error: {told}")


# -- what a run folder keeps


def test_the_stored_scenario_runs_on_its_own_and_means_the_same(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    loaded = child(base, "node: {cache: disk}\nexpect:\n  - {metric: peak_over, max: 8MiB}\n")
    store(loaded, tmp_path / "scenario.yaml")
    text = (tmp_path / "scenario.yaml").read_text()
    again = load(tmp_path / "scenario.yaml")
    assert again.model_dump(exclude={"extends"}) == loaded.model_dump(exclude={"extends"})
    assert "extends" not in text
    assert text.startswith("# child.yaml expanded.\n")


def test_a_file_that_says_everything_itself_is_stored_as_it_is(tmp_path: pathlib.Path) -> None:
    store(load_text(BASE, tmp_path / "base.yaml"), tmp_path / "scenario.yaml")
    assert (tmp_path / "scenario.yaml").read_text() == BASE


def test_a_flag_file_is_stored_beside_the_scenario_as_it_was_given(tmp_path: pathlib.Path) -> None:
    (tmp_path / "flags.json").write_text('{"flags": {}}')
    text = "name: filed\nfleet:\n  - {name: web, memory: 4MiB}\nflags: {file: flags.json}\nsteps:\n  - tick: 1\n"
    loaded = load_text(text, tmp_path / "filed.yaml")
    folder = tmp_path / "run"
    folder.mkdir()
    store(loaded, folder / "scenario.yaml")
    again = load(folder / "scenario.yaml")
    assert again.flag_file == folder / GIVEN_FLAGS
    assert (folder / GIVEN_FLAGS).read_text() == '{"flags": {}}'
