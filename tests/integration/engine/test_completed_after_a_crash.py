"""A build whose process is gone is completed from its records and the kept memory, or why not has a code."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import chunk_records
from engine.cache import Cache
from engine.chunk_records import NoRecordsError
from engine.completion import Left, complete
from engine.effects import Effects
from engine.errors import EngineError
from engine.events import ChunkPunched, KeeperAsked, NotSalvaged, PunchFailed
from engine.pause import Outcome, Pause
from engine.plan import PauseOptions
from engine.snapshot import Build, Header, check_build, template, write_header
from engine.strand import UnsalvageableError
from tests.failing_reads import FailingReads
from tests.integration.engine.rig import CHUNKS, DEADLINE, MIB, PAGE, Faults, Guest, Guests, Pauser, fill_up, turn_over

SALVAGE = PauseOptions(punch=True, background_copy=False, salvage=True)


class Kept:
    """Holds memory as another process would: by an fd of its own."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.fds: dict[str, int] = {}
        self.dropped: list[str] = []
        self._refusal = refusal

    def keep(self, build: str, fd: int) -> None:
        if self._refusal is not None:
            raise self._refusal
        self.fds[build] = os.dup(fd)

    def drop(self, build: str) -> None:
        self.dropped.append(build)
        if build in self.fds:
            os.close(self.fds.pop(build))


class Crash(BaseException):
    """Ends the thread of a pause where SIGKILL would have ended its process."""


def dies(*_: object) -> None:
    raise Crash


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("engine.pause", "engine.completion"):
        monkeypatch.setattr(f"{place}.RETRY_SECONDS", (0.001, 0.001))


def crashed(
    pauser: Pauser, guest: Guest, keeper: Kept, call: str, chunk: int | None, *, after: bool = False, **how: Any
) -> Pause:
    """A pause that does nothing more from one act on: not what a failure would do either."""
    effects = Effects()
    real = getattr(effects, call)

    def act(*arguments: object) -> object:
        if chunk is not None and getattr(arguments[-1], "index", None) != chunk:
            return real(*arguments)
        if after:
            real(*arguments)
        raise Crash

    setattr(effects, call, act)
    pause = pauser.prepare(guest, options=SALVAGE, effects=effects, keeper=keeper, **how)
    setattr(pause, "_take_fate", print)  # noqa: B010 - no fate at all
    with pytest.raises(Crash):
        pause.begin()
    return pause


def left(pauser: Pauser, keeper: Kept, spill: Path | None = None) -> Left:
    return Left(pauser.builds, "b1", keeper.fds["b1"], spill)


MOMENTS = [("punch", None), ("copy_read", 1), ("copy_write", 2), ("publish", 3), ("record", 2), ("write_header", None)]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("call", "chunk"), MOMENTS)
def test_at_whatever_act_its_process_ended_the_build_is_completed_byte_for_byte(
    pauser: Pauser, guest: Guest, call: str, chunk: int | None, after: bool
) -> None:
    before, keeper = guest.memory(), Kept()
    crashed(pauser, guest, keeper, call, chunk, after=after)
    assert pauser.names() == ["b1.partial"]
    header = complete(left(pauser, keeper))
    assert (pauser.restored(), header) == (before, pauser.header())
    assert sorted(os.listdir(pauser.builds / "b1")) == ["header", "memfile", "parents"]
    keeper.drop("b1")


@pytest.mark.parametrize(("block_size", "generation"), [(PAGE, 2), (2 * MIB, 1)])
def test_the_completed_build_has_the_header_that_it_would_have_had(
    pauser: Pauser, guests: Guests, block_size: int, generation: int
) -> None:
    keeper, headers = Kept(), list[Header]()
    for crashes in (True, False):
        here = Pauser(pauser.folder / f"crashes-{crashes}")
        guest = guests.start().track(block_size=block_size)
        guest.write(range(0, 1800, 3), seed=1)  # a sparse guest: what is a hole is empty
        parent = template(guest.memfd.size, block_size)
        if generation == 2:
            here.pause(guest, build="b0", block_size=block_size)
            parent = here.header("b0")
            guest = guests.from_header(here.builds, parent)
            guest.write(range(100, 900, 7), seed=2)
        guest.write(range(0, 900, 6), seed=0)  # zeros, that no file holds
        before = guest.memory()
        how: dict[str, Any] = {"parent": parent, "block_size": block_size}
        if crashes:
            crashed(here, guest, keeper, "publish", 1, **how)
            complete(left(here, keeper))
            keeper.drop("b1")
        else:
            here.pause(guest, **how)
        assert here.restored() == before
        headers.append(here.header())
    assert headers[0] == headers[1]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_parent_that_the_host_fails_to_read_once_is_read_again(
    pauser: Pauser, guests: Guests, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    pauser.pause(guests.fresh(), build="b0")
    guest, keeper = guests.from_header(pauser.builds, pauser.header("b0")), Kept()
    guest.write(range(100, 900, 7), seed=2)
    before = guest.memory()
    crashed(pauser, guest, keeper, "copy_write", 1, parent=pauser.header("b0"))
    with monkeypatch.context() as patched:
        reads = FailingReads(pauser.builds / "b0", 1, number).install(patched)
        complete(left(pauser, keeper))
    assert reads.has_failed
    assert pauser.restored() == before
    keeper.drop("b1")


@pytest.mark.parametrize("nth", range(1, 6))
def test_whichever_read_of_what_a_crash_left_the_host_fails_once_the_build_is_completed(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    before, keeper = guest.memory(), Kept()
    crashed(pauser, guest, keeper, "copy_write", 2)
    with monkeypatch.context() as patched:
        reads = FailingReads(pauser.builds / "b1.partial", nth, errno.EMFILE).install(patched)
        complete(left(pauser, keeper))
    assert reads.has_failed
    assert pauser.restored() == before
    keeper.drop("b1")


@pytest.mark.privileged
def test_huge_pages_are_completed_too(pauser: Pauser, guests: Guests, huge_pages: int) -> None:
    guest, keeper = guests.start(huge=True).track(block_size=2 * MIB), Kept()
    guest.write(range(8 * MIB // PAGE), seed=1)
    before = guest.memory()
    crashed(pauser, guest, keeper, "copy_write", 2, block_size=2 * MIB)
    complete(left(pauser, keeper))
    keeper.drop("b1")
    assert pauser.restored() == before


def test_it_can_be_completed_a_second_time_where_the_first_was_cut_off(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keeper = guest.memory(), Kept()
    crashed(pauser, guest, keeper, "copy_write", 1)
    with monkeypatch.context() as patched:
        patched.setattr("engine.completion.write_header", dies)
        with pytest.raises(Crash):
            complete(left(pauser, keeper))
    assert len(chunk_records.read(pauser.builds / "b1.partial").placed) == CHUNKS
    complete(left(pauser, keeper))
    assert pauser.restored() == before
    keeper.drop("b1")


def test_what_its_disk_has_no_space_for_goes_into_the_spill_then_too(
    guests: Guests, small_tmpfs: Path, tmp_path: Path
) -> None:
    pauser, guest, keeper = Pauser(small_tmpfs / "node"), guests.fresh(4 * MIB), Kept()
    before, spill = guest.memory(), tmp_path / "spill"
    spill.mkdir()
    crashed(pauser, guest, keeper, "copy_write", 1)
    fill_up(small_tmpfs / "filler")
    with pytest.raises(UnsalvageableError) as raised:
        complete(left(pauser, keeper))
    assert raised.value.code == "not-completed"
    complete(left(pauser, keeper, spill))
    assert pauser.header().spilled == (0, 1)
    assert pauser.restored() == before
    keeper.drop("b1")


def code_of(pauser: Pauser, keeper: Kept) -> str:
    with pytest.raises(UnsalvageableError) as raised:
        complete(left(pauser, keeper))
    keeper.drop("b1")
    assert pauser.names() == ["b1.partial"]
    return raised.value.code.value


def test_a_punched_chunk_that_is_damaged_in_its_file_is_not_completed(pauser: Pauser, guest: Guest) -> None:
    keeper = Kept()
    crashed(pauser, guest, keeper, "copy_write", 2)
    turn_over(pauser.builds / "b1.partial" / "memfile", 100)
    assert code_of(pauser, keeper) == "corrupt-chunk"


@pytest.mark.parametrize("place", ["pauser", "shm_pauser"])
@pytest.mark.parametrize("page", [0, 8], ids=["bytes", "zeros"])
def test_a_chunk_that_is_damaged_in_its_file_and_was_not_punched_is_copied_again(
    request: pytest.FixtureRequest, guest: Guest, place: str, page: int
) -> None:
    pauser: Pauser = request.getfixturevalue(place)
    guest.write(range(8, 16), seed=0)
    before, keeper = guest.memory(), Kept()
    crashed(pauser, guest, keeper, "punch", None)
    turn_over(pauser.builds / "b1.partial" / "memfile", page * PAGE + 100)
    complete(left(pauser, keeper))
    assert pauser.restored() == before
    keeper.drop("b1")


def test_a_try_that_failed_after_it_moved_a_chunk_to_the_spill_is_followed_by_one_that_finds_it_there(
    pauser: Pauser, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keeper, errors = guest.memory(), Kept(), [errno.ENOSPC, errno.EIO]
    spill = tmp_path / "spill"
    spill.mkdir()
    crashed(pauser, guest, keeper, "write_header", None)

    def write(header: Header, folder: Path) -> None:
        if errors:
            raise OSError(errors.pop(0), "not now")
        write_header(header, folder)

    monkeypatch.setattr("engine.completion.write_header", write)
    assert complete(left(pauser, keeper, spill)).spilled == (CHUNKS - 1,)
    assert pauser.restored() == before
    keeper.drop("b1")


@pytest.mark.parametrize("page", [0, 8], ids=["bytes", "zeros"])
def test_a_chunk_that_is_damaged_in_a_spill_and_was_not_punched_is_copied_again(
    guests: Guests, shm_pauser: Pauser, small_tmpfs: Path, page: int
) -> None:
    pauser, guest, keeper = Pauser(small_tmpfs / "node"), guests.fresh(4 * MIB), Kept()
    guest.write(range(520, 528), seed=0)
    before, spill = guest.memory(), shm_pauser.folder
    crashed(pauser, guest, keeper, "copy_write", 1)
    fill_up(small_tmpfs / "filler")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("engine.completion.write_header", dies)
        with pytest.raises(Crash):
            complete(left(pauser, keeper, spill))
    assert chunk_records.read(pauser.builds / "b1.partial").placed[1].in_spill
    turn_over(spill / "b1.spill", 2 * MIB + page * PAGE + 100)
    complete(left(pauser, keeper, spill))
    assert pauser.restored() == before
    keeper.drop("b1")


def test_a_build_whose_file_does_not_keep_what_is_written_gets_no_name(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Kept()
    crashed(pauser, guest, keeper, "copy_write", 2)
    write = Cache.write

    def write_otherwise(cache: Cache, data: memoryview, offset: int) -> None:
        write(cache, data, offset)
        turn_over(cache.folder / "memfile", offset + 100)

    monkeypatch.setattr(Cache, "write", write_otherwise)
    assert code_of(pauser, keeper) == "not-completed"


@pytest.mark.parametrize("crashes", [False, True], ids=["pause", "after a crash"])
def test_the_file_of_a_build_in_huge_pages_is_not_changed_after_its_header_is_written(
    huge_folder: Path, guest: Guest, monkeypatch: pytest.MonkeyPatch, crashes: bool
) -> None:
    """Else each later pause would compare the whole of it with its digests."""
    pauser, keeper, seen = Pauser(huge_folder), Kept(), list[tuple[int, int]]()

    def look_first(header: Header, folder: Path) -> None:
        status = os.stat(folder / "memfile")
        assert status.st_blksize == 2 * MIB
        seen.append((status.st_blocks * 512, status.st_mtime_ns))
        write_header(header, folder)

    guest.write(range(8, 16), seed=0)
    before = guest.memory()
    monkeypatch.setattr("engine.effects.write_header", look_first)
    monkeypatch.setattr("engine.completion.write_header", look_first)
    if crashes:
        crashed(pauser, guest, keeper, "copy_write", 2)
        complete(left(pauser, keeper))
        keeper.drop("b1")
    else:
        pauser.pause(guest, options=SALVAGE)
    assert pauser.restored() == before
    status = os.stat(pauser.builds / "b1" / "memfile")
    assert seen == [(status.st_blocks * 512, status.st_mtime_ns)] == [(8 * MIB - 8 * PAGE, status.st_mtime_ns)]
    monkeypatch.setattr(Build, "verify", dies)
    check_build(pauser.builds, "b1", 0)


@pytest.mark.parametrize("harm", ["gone", "cut", "changed", "empty"])
def test_records_that_are_not_what_was_written_are_not_believed(pauser: Pauser, guest: Guest, harm: str) -> None:
    keeper = Kept()
    crashed(pauser, guest, keeper, "copy_write", 2)
    path = pauser.builds / "b1.partial" / chunk_records.NAME
    if harm == "gone":
        path.unlink()
    elif harm == "changed":
        turn_over(path, 60)
    else:
        os.truncate(path, 40 if harm == "cut" else 0)
    assert code_of(pauser, keeper) == "no-records"
    with pytest.raises(NoRecordsError):
        chunk_records.read(path.parent)


def test_a_record_that_was_not_written_to_its_end_counts_as_none(pauser: Pauser, guest: Guest) -> None:
    before, keeper = guest.memory(), Kept()
    crashed(pauser, guest, keeper, "punch", None)
    path = pauser.builds / "b1.partial" / chunk_records.NAME
    assert set(chunk_records.read(path.parent).placed) == {0}
    turn_over(path, path.stat().st_size - CHUNKS * 64 + 30)
    assert chunk_records.read(path.parent).placed == {}
    complete(left(pauser, keeper))
    assert pauser.restored() == before
    keeper.drop("b1")


@pytest.mark.parametrize("index", [0, 1])
def test_without_the_record_of_a_chunk_that_was_punched_no_zeros_are_taken_for_it(
    pauser: Pauser, guest: Guest, index: int
) -> None:
    keeper = Kept()
    crashed(pauser, guest, keeper, "copy_write", 2)
    path = pauser.builds / "b1.partial" / chunk_records.NAME
    turn_over(path, path.stat().st_size - (CHUNKS - index) * 64 + 30)
    assert code_of(pauser, keeper) == "corrupt-chunk"


@pytest.mark.privileged
def test_nor_where_the_kernel_does_not_say_what_was_punched(pauser: Pauser, guests: Guests, huge_pages: int) -> None:
    guest, keeper = guests.start(huge=True).track(block_size=2 * MIB), Kept()
    guest.write(range(8 * MIB // PAGE), seed=1)
    crashed(pauser, guest, keeper, "copy_write", 2, block_size=2 * MIB)
    path = pauser.builds / "b1.partial" / chunk_records.NAME
    turn_over(path, path.stat().st_size - CHUNKS * 64 + 30)
    assert code_of(pauser, keeper) == "corrupt-chunk"


def test_memory_that_is_not_its_own_is_refused(pauser: Pauser, guest: Guest) -> None:
    keeper = Kept()
    crashed(pauser, guest, keeper, "copy_write", 2)
    keeper.drop("b1")
    keeper.fds["b1"] = os.memfd_create("another", os.MFD_ALLOW_SEALING)
    assert code_of(pauser, keeper) == "lost"


def test_the_memory_is_kept_before_the_guest_is_condemned_and_dropped_before_the_pause_settles(
    pauser: Pauser, guest: Guest, faults: Faults
) -> None:
    before, keeper, held, dropped = guest.memory(), Kept(), list[list[str]](), list[list[str]]()
    effects = faults.before("condemn", lambda *_: held.append(list(keeper.fds)))
    pause = pauser.prepare(guest, options=SALVAGE, effects=effects, keeper=keeper)
    pause.when_settled(lambda: dropped.append(list(keeper.dropped)))
    pause.begin()
    assert (held, dropped) == ([["b1"]], [["b1"]])
    assert pauser.of(KeeperAsked) == [KeeperAsked("b1")]
    assert keeper.fds == {}
    pauser.assert_finished(guest, pause.settle(0), before)


def test_without_an_acknowledgement_a_copy_that_fails_is_discarded_and_says_why(
    pauser: Pauser, guest: Guest, faults: Faults
) -> None:
    keeper = Kept(EngineError("it may open no more files"))
    effects = faults.failing("copy_write", errno.EIO, chunk=2)
    result = pauser.pause(guest, options=SALVAGE, effects=effects, keeper=keeper)
    assert (result.outcome, result.salvage) == (Outcome.DISCARDED, "not-kept")
    assert [each.code for each in pauser.of(NotSalvaged)] == ["not-kept"]
    assert pauser.of(KeeperAsked)[0].error == "it may open no more files"
    pauser.assert_discarded(guest, result)


def test_without_an_acknowledgement_a_copy_that_does_not_fail_is_as_always(pauser: Pauser, guest: Guest) -> None:
    before = guest.memory()
    result = pauser.pause(guest, options=SALVAGE, keeper=Kept(EngineError("no")))
    pauser.assert_finished(guest, result, before)


def test_what_could_not_be_recorded_is_not_punched_and_the_copy_goes_on(
    pauser: Pauser, guest: Guest, faults: Faults
) -> None:
    before, keeper = guest.memory(), Kept()
    effects = faults.failing("record", errno.EIO, chunk=1)
    pause = pauser.prepare(guest, options=SALVAGE, effects=effects, keeper=keeper)
    pause.begin()
    result = pause.settle(DEADLINE)
    assert 1 not in {each.chunk for each in pauser.of(ChunkPunched)}
    assert [each.chunk for each in pauser.of(PunchFailed)] == [1]
    pauser.assert_finished(guest, result, before)


def records_are_written_by(pwrite: Callable[[int, bytes, int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_records, "os", SimpleNamespace(**{**vars(os), "pwrite": pwrite}))


def test_a_record_of_which_the_kernel_takes_a_part_counts_as_none_and_its_chunk_is_not_punched(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keeper = guest.memory(), Kept()
    records_are_written_by(lambda fd, data, at: os.pwrite(fd, data[:20], at), monkeypatch)
    crashed(pauser, guest, keeper, "copy_write", 2)
    assert [each.chunk for each in pauser.of(PunchFailed)][:1] == [0]
    assert pauser.of(ChunkPunched) == []
    assert guest.memory() == before
    monkeypatch.undo()
    assert chunk_records.read(pauser.builds / "b1.partial").placed == {}
    complete(left(pauser, keeper))
    assert pauser.restored() == before
    keeper.drop("b1")


def test_no_record_crosses_a_page_so_none_can_be_cut(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, places = Kept(), set[int]()

    def noted(fd: int, data: bytes, at: int) -> int:
        places.add(at)
        return os.pwrite(fd, data, at)

    records_are_written_by(noted, monkeypatch)
    crashed(pauser, guest, keeper, "write_header", None)
    first, *rest = sorted(places)
    assert (first % 64, [at - first for at in rest]) == (0, [64, 128, 192])
    keeper.drop("b1")


def test_a_disk_without_space_for_the_records_rolls_back(pauser: Pauser, guest: Guest, monkeypatch: object) -> None:
    folder = pauser.builds / "b1.partial"

    class Squatting(Effects):
        def reserve(self, cache: object) -> None:
            (folder / chunk_records.NAME).write_bytes(b"in the way")

    result = pauser.pause(guest, options=SALVAGE, effects=Squatting(), keeper=Kept())
    assert result.outcome is Outcome.ROLLED_BACK
    assert not folder.exists()


def test_without_salvage_nothing_is_kept_or_recorded(pauser: Pauser, guest: Guest) -> None:
    keeper = Kept()
    pause = pauser.prepare(guest, parent=template(guest.memfd.size, PAGE), keeper=keeper)
    pause.begin()
    pause.settle(DEADLINE)
    assert (pauser.of(KeeperAsked), keeper.dropped) == ([], [])
