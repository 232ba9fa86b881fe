from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import mapping as maps
from engine import snapshot
from engine.errors import CorruptBuildError, PinnedBuildError
from engine.mapping import Mapping
from engine.ranges import Blocks
from engine.snapshot import Build, Header, delete_build, parents_of, pinning, template, write_attachments, write_header

PAGE = 4096
SIZE = 16 * PAGE


def finished(builds: Path, build: str, parent: Header, dirty: set[int]) -> Header:
    """A build whose dirty pages are laid over its parent's."""
    mapping = maps.merge(parent.mapping, maps.diff(Blocks(dirty), Blocks(), build, PAGE))
    made = Header(build, parent.base_build or build, parent.generation + 1, mapping, (), ())
    folder = builds / build
    folder.mkdir()
    (folder / "memfile").write_bytes(bytes(len(dirty) * PAGE))
    write_attachments({"parents": parents_of(parent)}, folder)
    write_header(made, folder)
    return made


def unfinished(builds: Path, build: str, parent: Header) -> Path:
    folder = builds / f"{build}.partial"
    folder.mkdir()
    write_attachments({"parents": parents_of(parent)}, folder)
    return folder


def names(builds: Path) -> list[str]:
    return sorted(path.name for path in builds.iterdir())


def test_a_build_that_nothing_stands_on_is_deleted_whole(tmp_path: Path) -> None:
    finished(tmp_path, "b1", template(SIZE, PAGE), {1})
    finished(tmp_path, "b2", template(SIZE, PAGE), {1})
    delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b2"]


def test_a_build_that_a_finished_one_stands_on_is_refused_by_name_and_kept_whole(tmp_path: Path) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1, 2})
    finished(tmp_path, "b2", first, {2})
    with pytest.raises(PinnedBuildError, match="b1 is pinned: b2 stands on it"):
        delete_build(tmp_path, "b1")
    Build.open(tmp_path, "b1").close()
    delete_build(tmp_path, "b2")
    delete_build(tmp_path, "b1")
    assert names(tmp_path) == []


def test_a_build_that_an_unfinished_one_stands_on_is_refused(tmp_path: Path) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1})
    folder = unfinished(tmp_path, "b2", first)
    with pytest.raises(PinnedBuildError, match=r"b2\.partial stands on it"):
        delete_build(tmp_path, "b1")
    (folder / "parents").unlink()
    folder.rmdir()
    delete_build(tmp_path, "b1")
    assert names(tmp_path) == []


def test_a_build_that_no_byte_of_a_later_one_comes_from_is_not_pinned_by_it(tmp_path: Path) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1, 2})
    finished(tmp_path, "b2", first, {1, 2})  # all of it written again
    delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b2"]


@settings(max_examples=40, deadline=None)
@given(
    layers=st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=5),
    order=st.permutations(range(5)),
)
def test_builds_deleted_in_any_order_never_take_a_byte_from_one_that_is_left(
    layers: list[set[int]], order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    builds = tmp_path_factory.mktemp("builds")
    parent, mappings = template(SIZE, PAGE), dict[str, Mapping]()
    for number, dirty in enumerate(layers):
        parent = finished(builds, f"b{number}", parent, dirty)
        mappings[f"b{number}"] = parent.mapping
    for number in order:
        if number < len(layers):
            try:
                delete_build(builds, f"b{number}")
            except PinnedBuildError:
                assert any(
                    f"b{number}" in maps.builds(mappings[name]) for name in names(builds) if name != f"b{number}"
                )
        for name in names(builds):
            assert set(maps.builds(mappings[name])) <= set(names(builds))


@pytest.mark.parametrize("name", ["", ".", "..", "b1/..", "../outside", "b9", "b2.partial", "b2"])
def test_only_the_name_of_a_finished_build_deletes_anything(tmp_path: Path, name: str) -> None:
    builds = tmp_path / "builds"
    builds.mkdir()
    (tmp_path / "outside").mkdir()
    first = finished(builds, "b1", template(SIZE, PAGE), {1})
    unfinished(builds, "b2", first)
    with pytest.raises(CorruptBuildError, match="nothing was deleted"):
        delete_build(builds, name)
    assert names(builds) == ["b1", "b2.partial"]
    assert (tmp_path / "outside").is_dir()


def test_a_header_that_cannot_be_read_may_not_be_taken_for_one_that_stands_on_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1, 2})
    finished(tmp_path, "b2", first, {2})
    real = Path.read_bytes

    def fail(self: Path) -> bytes:
        if self.name == "header":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(OSError, match="Too many open files"):
        delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b1", "b2"]


def test_a_damaged_build_keeps_no_other_alive_and_may_be_deleted_itself(tmp_path: Path) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1, 2})
    finished(tmp_path, "b2", first, {2})
    (tmp_path / "b2" / "header").write_bytes(b"damage")
    delete_build(tmp_path, "b1")
    delete_build(tmp_path, "b2")
    assert names(tmp_path) == []


@pytest.mark.parametrize("said", [None, b"", b'["b1"'], ids=["nothing", "empty", "torn"])
def test_an_unfinished_build_that_has_not_said_what_it_stands_on_pins_nothing(
    tmp_path: Path, said: bytes | None
) -> None:
    finished(tmp_path, "b1", template(SIZE, PAGE), {1})
    (tmp_path / "b2.partial").mkdir()
    if said is not None:
        (tmp_path / "b2.partial" / "parents").write_bytes(said)
    delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b2.partial"]


def test_a_file_among_the_builds_pins_nothing(tmp_path: Path) -> None:
    finished(tmp_path, "b1", template(SIZE, PAGE), {1})
    (tmp_path / "note").write_bytes(b"x")
    delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["note"]


def test_a_build_that_gets_its_name_while_pins_are_looked_for_pins_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1, 2})
    unfinished(tmp_path, "b2", first)
    real = snapshot._stands_on

    def finish_first(folder: Path) -> tuple[str, ...]:
        if folder.name == "b2.partial":
            folder.rename(tmp_path / "b2")
        return real(folder)

    monkeypatch.setattr(snapshot, "_stands_on", finish_first)
    with pytest.raises(PinnedBuildError):
        delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b1", "b2"]


def is_held(builds: Path) -> bool:
    """Another one who wants it would have to wait."""
    fd = os.open(builds, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_nobody_says_what_it_stands_on_while_pins_are_looked_for_and_the_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path, "b1", template(SIZE, PAGE), {1})
    finished(tmp_path, "b2", template(SIZE, PAGE), {1})
    held: list[bool] = []
    look, rename = snapshot._stands_on, os.rename

    def looked(folder: Path) -> tuple[str, ...]:
        held.append(is_held(tmp_path))
        return look(folder)

    def renamed(old: Path, new: Path) -> None:
        held.append(is_held(tmp_path))
        rename(old, new)

    monkeypatch.setattr(snapshot, "_stands_on", looked)
    monkeypatch.setattr("engine.snapshot.os.rename", renamed)
    delete_build(tmp_path, "b1")
    assert held == [True, True]
    assert not is_held(tmp_path)


def test_a_refused_deletion_keeps_nobody_waiting(tmp_path: Path) -> None:
    first = finished(tmp_path, "b1", template(SIZE, PAGE), {1})
    unfinished(tmp_path, "b2", first)
    with pinning(tmp_path):
        assert is_held(tmp_path)
    with pytest.raises(PinnedBuildError):
        delete_build(tmp_path, "b1")
    assert not is_held(tmp_path)


def test_a_build_whose_deletion_was_cut_off_is_no_build_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path, "b1", template(SIZE, PAGE), {1})

    def die(*_: object, **_how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.spill.shutil.rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b1.partial"]  # what a restart removes
    with pytest.raises(CorruptBuildError, match="not finished"):
        Build.open(tmp_path, "b1")


def test_a_folder_that_cannot_be_removed_is_an_error_and_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path, "b1", template(SIZE, PAGE), {1})

    def refuse(*_: object, **_how: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as disk:
        disk.setattr(os, "rmdir", refuse)
        with pytest.raises(OSError, match="the disk fails"):
            delete_build(tmp_path, "b1")
    assert names(tmp_path) == ["b1.partial"]


def test_what_a_build_stands_on_is_every_build_that_its_parent_refers_to() -> None:
    first = maps.create(Blocks([0, 1, 2]), "b1", SIZE, PAGE)
    second = maps.merge(first, maps.diff(Blocks([1]), Blocks(), "b2", PAGE))
    assert json.loads(parents_of(Header("b2", "b1", 2, second, (), ()))) == ["b1", "b2"]
    assert json.loads(parents_of(template(SIZE, PAGE))) == []
