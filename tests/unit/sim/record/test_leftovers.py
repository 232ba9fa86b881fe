from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.incarnation import CondemnedRecords, Incarnation
from sim.record import events
from sim.record.leftovers import retire_ended

DEAD = Incarnation("web-0.1", 1 << 22, 1, 42)


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Of the build of a condemned guest that is dead."""
    CondemnedRecords(tmp_path / "condemned").condemn(DEAD, "b1")
    partial = tmp_path / "builds" / "b1.partial"
    partial.mkdir(parents=True)
    return partial


def retire(tmp_path: Path) -> tuple[list[str], list[events.RecordRetired]]:
    noted: list[events.RecordRetired] = []
    return retire_ended(tmp_path / "condemned", tmp_path / "builds", [], noted.append), noted


def test_a_record_is_retired_once_the_unfinished_build_is_deleted(tmp_path: Path, partial: Path) -> None:
    retired, noted = retire(tmp_path)
    assert retired == ["the condemned record of web-0.1"]
    assert noted == [events.RecordRetired("web-0.1", "b1", "deleted")]
    assert not partial.exists()
    assert list(CondemnedRecords(tmp_path / "condemned").records()) == []


@pytest.mark.parametrize("finished", [False, True])
def test_an_unfinished_build_is_deleted_with_its_spill_and_a_finished_one_keeps_it(
    tmp_path: Path, partial: Path, finished: bool
) -> None:
    (spill := tmp_path / "spill").mkdir()
    for name in ("b1.spill", "b2.spill"):
        (spill / name).touch()
    if finished:
        partial.rename(partial.with_name("b1"))
    retire_ended(tmp_path / "condemned", tmp_path / "builds", [], lambda _: None, spill)
    assert sorted(each.name for each in spill.iterdir()) == ["b1.spill", "b2.spill"][not finished :]


def test_a_record_stays_while_its_build_is_neither_finished_nor_deleted(
    tmp_path: Path, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    assert retire(tmp_path) == ([], [])
    assert [each.incarnation for each in CondemnedRecords(tmp_path / "condemned").records()] == [DEAD]


def test_a_record_that_cannot_be_removed_hinders_no_other(
    tmp_path: Path, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Incarnation("web-1.1", 1 << 22, 1, 43)
    CondemnedRecords(tmp_path / "condemned").condemn(other, "b2")
    real = Path.unlink

    def unlink(path: Path, **options: bool) -> None:
        if path.name.startswith("web-0"):
            raise PermissionError
        real(path, **options)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert retire(tmp_path)[0] == ["the condemned record of web-1.1"]
