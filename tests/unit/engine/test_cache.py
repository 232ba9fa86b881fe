from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import xxhash

from engine import linux
from engine.cache import Cache
from engine.errors import BuildFailedError, TruncatedError
from engine.ranges import Blocks, Chunk, chunks

PAGE = 4096
LENGTHS = (3, 1, 2)  # dirty pages of the chunks
CHUNKS = chunks(Blocks([0, 5, 9, 600, 1030, 1031]), 8 << 20, PAGE, PAGE)
DATA = b"".join(bytes([number]) * PAGE for number in range(1, 7))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path, "b1", CHUNKS)
    made.create()
    yield made
    made.close()


def store(cache: Cache, chunk: Chunk) -> None:
    cache.write(memoryview(DATA)[chunk.cache_offset : chunk.cache_offset + chunk.length], chunk.cache_offset)
    cache.publish(chunk)


def test_the_chunks_are_as_the_tests_below_say() -> None:
    assert [chunk.length // PAGE for chunk in CHUNKS] == list(LENGTHS)


def test_a_published_chunk_is_read_and_an_unpublished_one_is_waited_for(cache: Cache) -> None:
    store(cache, CHUNKS[1])
    assert cache.read(3 * PAGE, PAGE) == DATA[3 * PAGE : 4 * PAGE]
    for chunk in (CHUNKS[0], CHUNKS[2]):
        with pytest.raises(TimeoutError, match=f"chunk {chunk.index}"):
            cache.read(chunk.cache_offset, PAGE, 0)


def test_bytes_that_are_written_and_not_published_are_not_read(cache: Cache) -> None:
    cache.write(memoryview(DATA), 0)
    with pytest.raises(TimeoutError):
        cache.read(0, 1, 0)


def test_a_read_over_several_chunks_waits_for_all_of_them(cache: Cache) -> None:
    store(cache, CHUNKS[0])
    store(cache, CHUNKS[2])
    with pytest.raises(TimeoutError, match="chunk 1"):
        cache.read(3 * PAGE - 1, PAGE + 2, 0)
    store(cache, CHUNKS[1])
    assert cache.read(3 * PAGE - 1, PAGE + 2, 0) == DATA[3 * PAGE - 1 : 4 * PAGE + 1]
    assert cache.read(0, len(DATA)) == DATA


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (0, 6 * PAGE + 1), (6 * PAGE, 1), (PAGE, -1)])
def test_a_read_outside_the_build_is_refused_at_once(cache: Cache, offset: int, length: int) -> None:
    with pytest.raises(TruncatedError, match="is not there"):
        cache.read(offset, length)


def test_a_chunk_that_a_reader_waits_for_is_wanted_until_it_is_published(cache: Cache) -> None:
    for offset in (4 * PAGE, 0):
        with pytest.raises(TimeoutError):
            cache.read(offset, 1, 0)
    store(cache, CHUNKS[2])
    assert cache.take_wanted() == 0
    assert cache.take_wanted() is None


def test_a_failure_wakes_every_reader_and_deletes_what_was_written(cache: Cache) -> None:
    store(cache, CHUNKS[0])
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(cache.read, 4 * PAGE, PAGE, 20) for _ in range(3)]
        cause = OSError(errno.EIO, "broken")
        cache.fail(cause)
        for reader in waiting:
            with pytest.raises(BuildFailedError, match="broken") as caught:
                reader.result(20)
            assert caught.value.__cause__ is cause
    assert not cache.folder.exists()
    with pytest.raises(BuildFailedError):
        cache.read(0, PAGE)


def test_the_first_failure_is_the_one_that_is_told(cache: Cache) -> None:
    cache.fail(OSError(errno.EIO, "first"))
    cache.fail(OSError(errno.EIO, "second"))
    with pytest.raises(BuildFailedError, match="first"):
        cache.read(0, PAGE)


def test_a_finished_build_has_its_final_name_and_no_other(cache: Cache, tmp_path: Path) -> None:
    for chunk in CHUNKS:
        store(cache, chunk)
    assert [path.name for path in tmp_path.iterdir()] == ["b1.partial"]
    cache.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["b1"]
    assert (tmp_path / "b1" / "memfile").read_bytes() == DATA


def test_a_finished_build_is_read_also_after_its_copier_closed_it(cache: Cache) -> None:
    for chunk in CHUNKS:
        store(cache, chunk)
    cache.finish()
    cache.close()
    assert cache.read(PAGE, 4 * PAGE) == DATA[PAGE : 5 * PAGE]
    assert cache.fd == -1


def test_closing_waits_for_a_reader_in_the_middle_of_its_read(cache: Cache) -> None:
    store(cache, CHUNKS[0])
    fd = cache.fd
    with cache._reading() as read:
        closing = threading.Thread(target=cache.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        assert read(0, 1) == DATA[:1]
    closing.join(20)
    assert cache.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_build_whose_name_is_taken_is_refused_and_the_other_stays(cache: Cache, tmp_path: Path) -> None:
    second = Cache(tmp_path, "b1", CHUNKS)
    with pytest.raises(FileExistsError):
        second.create()
    second.fail(OSError("its name is taken"))
    assert (tmp_path / "b1.partial" / "memfile").exists()
    cache.finish()
    with pytest.raises(FileExistsError):
        second.create()
    assert (tmp_path / "b1" / "memfile").exists()


def test_a_folder_without_its_file_is_deleted_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    made = Cache(tmp_path, "b1", CHUNKS)
    with monkeypatch.context() as patch:
        patch.setattr("engine.cache.os.open", refuse)
        with pytest.raises(OSError, match="Too many open files") as caught:
            made.create()
    made.fail(caught.value)
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_reserving_takes_the_space_on_a_disk(cache: Cache) -> None:
    if cache.on_tmpfs:
        pytest.skip("needs a temporary folder on a disk")
    cache.reserve()
    assert os.fstat(cache.fd).st_blocks * 512 >= len(DATA)


def test_a_build_that_stores_nothing_reserves_and_reads_nothing(tmp_path: Path) -> None:
    made = Cache(tmp_path, "empty", [])
    made.create()
    made.reserve()
    assert made.resident_bytes() == os.fstat(made.fd).st_blocks * 512 == 0
    with pytest.raises(TruncatedError):
        made.read(0, 1)
    made.finish()
    made.close()


def test_a_file_system_without_a_limit_is_not_taken_for_a_full_one(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.on_tmpfs = True
    answers = {"f_blocks": 0, "f_bavail": 0, "f_frsize": PAGE}  # tmpfs mounted with size=0 (kernel: shmem_statfs)
    monkeypatch.setattr("engine.cache.os.fstatvfs", lambda _: type("Status", (), answers))
    cache.reserve()
    answers["f_blocks"] = 10
    with pytest.raises(OSError, match="do not fit"):
        cache.reserve()


def test_what_the_page_cache_holds_is_counted_chunk_by_chunk(cache: Cache) -> None:
    if cache.on_tmpfs:
        pytest.skip("needs a temporary folder on a disk")
    for number, chunk in enumerate(CHUNKS):
        store(cache, chunk)
        assert cache.resident_bytes() == sum(LENGTHS[: number + 1]) * PAGE


def test_without_cachestat_what_was_written_counts(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(linux, "cached_bytes", refuse)
    cache.on_tmpfs = False
    store(cache, CHUNKS[0])
    assert cache.resident_bytes() == CHUNKS[0].length


def test_a_reader_of_a_stranded_build_gets_what_is_not_published_from_the_memfd(cache: Cache) -> None:
    store(cache, CHUNKS[1])
    asked: list[int] = []

    def packed(index: int) -> bytes:
        asked.append(index)
        return bytes([100 + index]) * CHUNKS[index].length

    cache.strand(packed)
    got = cache.read(2 * PAGE, 3 * PAGE, 0)
    assert got == bytes([100]) * PAGE + DATA[3 * PAGE : 4 * PAGE] + bytes([102]) * PAGE
    assert asked == [0, 2]


def test_a_reader_looks_at_the_publish_bit_after_it_has_read_the_memfd(cache: Cache) -> None:
    """The chunk may be published, and punched, while it is read: then what was read is of no use."""

    def published_and_punched_meanwhile(index: int) -> bytes:
        store(cache, CHUNKS[index])
        return bytes(CHUNKS[index].length)

    cache.strand(published_and_punched_meanwhile)
    assert cache.read(0, cache.length, 0) == DATA


def test_a_chunk_that_is_withdrawn_is_read_from_the_memfd_again(cache: Cache) -> None:
    store(cache, CHUNKS[0])
    cache.strand(lambda index: bytes([7]) * CHUNKS[index].length)
    cache.withdraw(0)
    assert not cache.is_published(0)
    assert cache.read(0, PAGE, 0) == bytes([7]) * PAGE


def test_pages_of_zeros_are_left_out_wherever_they_lie_and_read_as_zeros(cache: Cache) -> None:
    zero, one, two = bytes(PAGE), b"\1" * PAGE, b"\2" * PAGE
    data = b"".join([one, zero, two, zero, zero, one])
    for chunk in CHUNKS:
        cache.write(memoryview(data)[chunk.cache_offset : chunk.cache_offset + chunk.length], chunk.cache_offset)
        cache.publish(chunk)
    assert cache.read(0, len(data)) == data
    assert cache.zeros().tolist() == [1, 3, 4]


def test_a_cache_that_lost_its_end_is_not_read_short(cache: Cache) -> None:
    for chunk in CHUNKS:
        store(cache, chunk)
    os.ftruncate(cache.fd, PAGE + 1)
    with pytest.raises(TruncatedError, match=f"the cache of build b1 ended at byte {PAGE + 1}"):
        cache.read(0, 2 * PAGE)


def test_on_tmpfs_the_blocks_of_the_file_are_what_it_takes(cache: Cache) -> None:
    store(cache, CHUNKS[0])
    cache.on_tmpfs = True
    assert cache.resident_bytes() == os.fstat(cache.fd).st_blocks * 512 > 0


HUGE = 2 << 20


def scattered(count: int, share: int) -> list[Chunk]:
    """`count` chunks of 2 MiB of which one page in `share` is dirty."""
    return chunks(Blocks(range(0, count * HUGE // PAGE, share)), count * HUGE, PAGE, PAGE)


def test_a_cache_on_huge_pages_has_its_length_at_once_and_holds_what_it_is_given(huge_folder: Path) -> None:
    cut = scattered(16, 3)
    made = Cache(huge_folder, "b1", cut)
    made.create()
    assert made.has_huge_pages
    assert made.resident_bytes() == 0
    for chunk in cut:
        made.write(memoryview(b"x" * chunk.length), chunk.cache_offset)
        written = chunk.cache_offset + chunk.length
        assert written <= made.resident_bytes() <= written + HUGE
    assert made.resident_bytes() == made.length
    made.close()


def test_a_chunk_that_is_copied_ahead_keeps_its_own_bytes_alone(huge_folder: Path) -> None:
    cut = scattered(64, 7)
    made = Cache(huge_folder, "b1", cut)
    made.create()
    left, written = list(cut), 0
    for index in (40, 3, 63, 41, 20):
        left.remove(cut[index])
        made.write(memoryview(bytes([index]) * cut[index].length), cut[index].cache_offset)
        made.give_back_beside(cut[index], left)
        written += cut[index].length
        assert made.resident_bytes() == written
    for index in (40, 3, 63, 41, 20):
        assert os.pread(made.fd, cut[index].length, cut[index].cache_offset) == bytes([index]) * cut[index].length
    made.close()


def test_zeros_that_lie_in_huge_pages_are_given_back_when_the_build_is_finished(huge_folder: Path) -> None:
    cut = chunks(Blocks(range(2 * HUGE // PAGE)), 2 * HUGE, PAGE, PAGE)
    made = Cache(huge_folder, "b1", cut)
    made.create()
    data = bytearray(b"x" * HUGE)
    data[8 * PAGE : 100 * PAGE] = bytes(92 * PAGE)
    for chunk in cut:
        made.write(memoryview(data), chunk.cache_offset)
        made.publish(chunk)
    made.give_zeros_back()
    made.finish()
    assert made.resident_bytes() == 2 * (HUGE - 92 * PAGE)
    assert (made.final / "memfile").read_bytes() == bytes(data) * 2
    made.close()


def test_a_cache_that_is_opened_again_after_a_crash_knows_of_its_huge_pages(huge_folder: Path) -> None:
    made, again = (Cache(huge_folder, "b1", scattered(16, 3)) for _ in range(2))
    made.create()
    made.close()
    again.reopen()
    assert again.has_huge_pages
    again.close()


def test_a_cache_on_small_pages_gives_nothing_back(tmp_path: Path) -> None:
    made = Cache(tmp_path, "b1", scattered(8, 2))
    made.create()
    assert not made.has_huge_pages
    made.close()


def test_a_reader_of_a_stranded_build_gets_a_chunk_that_goes_into_the_spill_while_it_reads(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "b1", CHUNKS, tmp_path)
    cache.create()

    def out_of_the_memfd(index: int) -> bytes:
        chunk = CHUNKS[index]
        data = DATA[chunk.cache_offset : chunk.cache_offset + chunk.length]
        cache.spill(memoryview(data), chunk)  # the first that opens the spill
        cache.publish(chunk)
        return data

    cache.strand(out_of_the_memfd)
    assert cache.read(PAGE, PAGE) == DATA[PAGE : 2 * PAGE]
    cache.close()


def test_a_chunk_that_was_cut_off_is_not_moved_to_the_spill(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "b1", CHUNKS, tmp_path)
    cache.create()
    store(cache, CHUNKS[2])
    os.ftruncate(cache.fd, CHUNKS[2].cache_offset + 1)
    with pytest.raises(OSError, match="ends within chunk 2"):  # else who makes room for a header would try for ever
        cache.move_to_spill(CHUNKS[2], lambda: None)
    assert not cache.spilled
    cache.close()


def test_a_reader_of_a_stranded_build_gets_a_chunk_that_is_moved_to_the_spill_while_it_reads(tmp_path: Path) -> None:
    cache, moved = Cache(tmp_path, "b1", CHUNKS, tmp_path), threading.Event()
    cache.create()
    store(cache, CHUNKS[0])
    store(cache, CHUNKS[2])
    cache.digests[2] = xxhash.xxh3_128_digest(DATA[CHUNKS[2].cache_offset :])
    mover = threading.Thread(target=cache.move_to_spill, args=(CHUNKS[2], moved.set))

    def out_of_the_memfd(index: int) -> bytes:
        mover.start()
        assert moved.wait(20)
        return DATA[CHUNKS[index].cache_offset : CHUNKS[index + 1].cache_offset]

    cache.strand(out_of_the_memfd)
    assert cache.read(0, cache.length) == DATA
    mover.join()
    assert os.pread(cache.fd, PAGE, CHUNKS[2].cache_offset) == bytes(PAGE)
    assert cache.read(CHUNKS[2].cache_offset, PAGE) == DATA[CHUNKS[2].cache_offset :][:PAGE]
    cache.close()


# -- its spill


@pytest.fixture
def spilling(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path, "b1", CHUNKS, tmp_path)
    made.create()
    yield made
    made.close()


def test_a_cache_without_a_spill_has_no_space(cache: Cache) -> None:
    with pytest.raises(OSError, match="no spill") as refused:
        cache.spill(memoryview(DATA)[: CHUNKS[0].length], CHUNKS[0])
    assert (refused.value.errno, cache.can_spill) == (errno.ENOSPC, False)


def test_a_spill_takes_what_the_page_cache_holds_of_it_and_on_tmpfs_its_blocks(spilling: Cache) -> None:
    assert (spilling.can_spill, spilling.resident_bytes()) == (True, 0)
    for chunk in CHUNKS[1:]:
        spilling.spill(memoryview(DATA)[chunk.cache_offset : chunk.cache_offset + chunk.length], chunk)
        spilling.publish(chunk)
    spill = spilling._spill
    assert spill
    spill.on_tmpfs, spill.cached = False, 7 * PAGE
    assert spill.resident_bytes() == spilling.resident_bytes() == 7 * PAGE
    spill.on_tmpfs = True
    assert spill.resident_bytes() == 3 * PAGE
    assert spilling.spilled == {1, 2}
    assert spilling.read(3 * PAGE, 3 * PAGE) == DATA[3 * PAGE :]
    spill.close()
    assert (spill.fd, spill.resident_bytes()) == (-1, 0)


def test_a_chunk_cannot_be_moved_where_there_is_no_spill(cache: Cache) -> None:
    store(cache, CHUNKS[1])
    with pytest.raises(OSError, match="no spill") as refused:
        cache.move_to_spill(CHUNKS[1], lambda: None)
    assert refused.value.errno == errno.ENOSPC
    assert cache.spilled == frozenset()


@pytest.mark.parametrize(("free", "fits"), [(6, True), (5, False)])
def test_on_tmpfs_what_does_not_fit_is_refused_before_anything_is_written(
    cache: Cache, free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.on_tmpfs = True
    status = SimpleNamespace(f_blocks=100, f_bavail=free, f_frsize=PAGE)
    monkeypatch.setattr(os, "fstatvfs", lambda _: status)
    if fits:
        cache.reserve()
    else:
        with pytest.raises(OSError, match=str(6 * PAGE)) as refused:
            cache.reserve()
        assert refused.value.errno == errno.ENOSPC
    assert os.fstat(cache.fd).st_size == 0
