"""A stranded build whose cache has no space goes on in its spill: on file systems that are really full."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine import resume
from engine.errors import CorruptBuildError
from engine.events import BuildSpilled, NotSalvaged, Stranded
from engine.pause import Pause
from engine.plan import PauseOptions
from engine.snapshot import Build, check_build, delete_build
from tests.integration.engine.rig import (
    BOTH,
    DEADLINE,
    MIB,
    PAGE,
    Faults,
    Guest,
    Guests,
    Pauser,
    fill_up,
    fresh_memfd,
    is_settled,
)

SIZE = 4 * MIB  # two chunks; the small tmpfs has 5 MiB


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pause.RETRY_SECONDS", (0.001, 0.001))


@pytest.fixture
def small(small_tmpfs: Path) -> Pauser:
    return Pauser(small_tmpfs / "node")


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / f"spill-{'x' * 130}"  # a link to it takes space, unless its target is as short as 59 bytes
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == [], "a spill was left behind"


def begun(
    pauser: Pauser, guest: Guest, spill: Path, *, background: bool = False, fails: Callable[..., None] | None = None
) -> Pause:
    """Paused on a file system that fills up as soon as its first chunk is punched; `fails` before each publish."""
    filler, filled = pauser.folder.parent / "filler", list[bool]()

    def fill_first(*_: object) -> None:
        if not filled:
            filled.append(True)
            fill_up(filler)

    effects = Faults().before("punch", fill_first)
    if fails is not None:
        Faults().before("publish", fails, effects)
    asked = PauseOptions(punch=True, background_copy=background, salvage=True)
    pause = pauser.prepare(guest, options=asked, effects=effects, spill=spill)
    pause.begin()
    rests = threading.Event()
    pause.when_at_rest(rests.set)
    assert rests.wait(DEADLINE)
    return pause


@BOTH
def test_the_rest_goes_into_the_spill_and_the_build_is_read_verified_and_deleted_from_both(
    guests: Guests, small: Pauser, spill: Path, background: bool
) -> None:
    guest = guests.fresh(SIZE)
    before = guest.memory()
    pause = begun(small, guest, spill, background=background)
    result = pause.settle(0)
    assert (len(small.of(Stranded)), [each.chunk for each in small.of(BuildSpilled)]) == (3, [1])
    header = small.assert_finished(guest, result, before)
    assert header.spilled == (0, 1)  # the disk is so full that the first chunk made room for the header
    assert os.stat(spill / "b1.spill").st_blocks * 512 == SIZE
    check_build(small.builds, "b1", header.length)
    assert pause.cache is not None
    assert pause.cache.read(SIZE // 2 - PAGE, 2 * PAGE) == before[SIZE // 2 - PAGE : SIZE // 2 + PAGE]
    delete_build(small.builds, "b1")
    assert small.names() == []


def test_a_build_on_top_of_a_spilled_one_is_compared_with_both_files(
    guests: Guests, small: Pauser, spill: Path
) -> None:
    first = guests.fresh(SIZE)
    assert begun(small, first, spill).settle(0).salvage == "whole"
    (small.folder.parent / "filler").unlink()
    second = guests.from_header(small.builds, small.header())
    second.write([3, 700], seed=2)
    second.write([4, 701], seed=1)  # as they are in the parent
    before = second.memory()
    small.pause(second, build="b2", parent=small.header(), dedup=True)
    assert small.restored("b2") == before
    assert small.header("b2").length == 2 * PAGE
    delete_build(small.builds, "b2")
    delete_build(small.builds, "b1")


def test_a_spill_that_is_full_too_leaves_the_build_stranded_and_it_is_completed_later(
    guests: Guests, small: Pauser, small_tmpfs: Path
) -> None:
    guest, spill = guests.fresh(SIZE), small_tmpfs / "spill"
    spill.mkdir()
    before = guest.memory()
    pause = begun(small, guest, spill)
    assert pause.stranded
    assert not is_settled(pause)
    assert small.of(NotSalvaged) == []
    memfd = fresh_memfd(SIZE)
    assert pause.header is not None
    resume.fill(memfd, small.builds, pause.header, pause.cache)
    assert os.pread(memfd.fd, SIZE, 0) == before
    memfd.close()
    (small_tmpfs / "filler").unlink()
    assert pause.salvage()
    header = small.assert_finished(guest, pause.settle(0), before)
    assert header.spilled == ()  # the cache has space again
    assert sorted(os.listdir(small.builds / "b1")) == ["header", "memfile", "parents"]
    assert list(spill.iterdir()) == []
    delete_build(small.builds, "b1")


@BOTH
def test_without_space_for_its_link_to_a_spill_a_pause_rolls_back(
    pauser: Pauser, guest: Guest, spill: Path, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("engine.spill.os.symlink", refuse)
    before = guest.memory()
    asked = PauseOptions(punch=True, background_copy=background, salvage=True)
    pauser.assert_rolled_back(guest, pauser.pause(guest, options=asked, spill=spill), before)


def test_a_build_of_which_nothing_was_spilled_has_no_link(pauser: Pauser, guest: Guest, spill: Path) -> None:
    before = guest.memory()
    pauser.assert_finished(guest, pauser.pause(guest, spill=spill, options=PauseOptions(salvage=True)), before)
    assert sorted(os.listdir(pauser.builds / "b1")) == ["header", "memfile", "parents"]


def test_a_link_that_is_left_of_a_finished_build_harms_nothing(pauser: Pauser, guest: Guest, spill: Path) -> None:
    """Finished, but for the link: its process ended in between."""
    before = guest.memory()
    pauser.assert_finished(guest, pauser.pause(guest, spill=spill), before)
    (pauser.builds / "b1" / "spill").symlink_to(spill / "b1.spill")
    check_build(pauser.builds, "b1", 0)
    assert pauser.restored() == before
    delete_build(pauser.builds, "b1")


def test_a_spilled_build_that_is_given_up_leaves_nothing(guests: Guests, small: Pauser, spill: Path) -> None:
    def fail_at_the_last(*arguments: object) -> None:
        if getattr(arguments[-1], "index", 0) == 1:
            raise OSError("the chunk is not published")

    pause = begun(small, guests.fresh(SIZE), spill, fails=fail_at_the_last)
    assert pause.stranded
    assert [each.name for each in spill.iterdir()] == ["b1.spill"]
    pause.give_up("its sandbox was killed")
    assert pause.settle(0).salvage == "given-up"
    assert small.names() == []


@pytest.mark.parametrize("harm", ["gone", "changed", "cut"])
def test_a_damaged_spill_is_refused_by_the_name_of_its_build(
    guests: Guests, small: Pauser, spill: Path, harm: str
) -> None:
    begun(small, guests.fresh(SIZE), spill)
    path, length = spill / "b1.spill", small.header().length
    if harm == "gone":
        path.unlink()
    elif harm == "cut":
        os.truncate(path, SIZE // 2 + PAGE)
    else:
        with path.open("r+b") as file:
            file.seek(SIZE // 2 + 100)
            file.write(b"damage")
        os.utime(small.builds / "b1" / "header", (1, 1))  # earlier by more than a tick of the clock
    with pytest.raises(CorruptBuildError, match="b1"):
        check_build(small.builds, "b1", length)
    with pytest.raises(CorruptBuildError, match="b1"), closing(Build.open(small.builds, "b1")) as build:
        build.verify()
    delete_build(small.builds, "b1")
