from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import mapping as maps
from engine import snapshot
from engine.errors import CorruptBuildError
from engine.mapping import Extent, Extents, Mapping
from engine.ranges import Blocks
from engine.snapshot import Build, Header, check_build, from_bytes, template, to_bytes, write_attachments, write_header
from tests.descriptors import open_before
from tests.failing_reads import FailingReads

PAGE = 4096
PREFIX = struct.Struct("<8sQQ")
PIECES = (b"\1" * 2 * PAGE, b"\2" * PAGE)


def header(build: str = "b2") -> Header:
    mapping = Mapping(
        8 * PAGE,
        PAGE,
        Extents.of(
            [
                Extent(0, 2 * PAGE, "b2", 0),
                Extent(2 * PAGE, PAGE, None, 0),
                Extent(3 * PAGE, 4 * PAGE, "b1", 5 * PAGE),
                Extent(7 * PAGE, PAGE, "b2", 2 * PAGE),
            ]
        ),
    )
    digests = tuple(xxhash.xxh3_128_digest(piece) for piece in PIECES)
    return Header(build, "b1", 2, mapping, tuple(len(piece) for piece in PIECES), digests)


def write_build(builds: Path, made: Header, memory: bytes = b"".join(PIECES)) -> Path:
    folder = builds / made.build
    folder.mkdir(parents=True)
    (folder / "memfile").write_bytes(memory)
    write_header(made, folder)
    return folder


def test_a_header_is_read_back_as_it_was_written() -> None:
    assert from_bytes(to_bytes(header()), "b2") == header()


@settings(max_examples=50)
@given(st.sets(st.integers(0, 63)), st.sets(st.integers(0, 63)), st.integers(0, 2**31))
def test_any_header_is_read_back_as_it_was_written(dirty: set[int], empty: set[int], generation: int) -> None:
    change = maps.diff(Blocks(dirty), Blocks(empty), "b9", PAGE)
    mapping = maps.normalise(maps.merge(maps.zero(64 * PAGE, PAGE), change))
    made = Header("b9", "b0", generation, mapping, (PAGE,) * len(dirty), (bytes(16),) * len(dirty))
    assert from_bytes(to_bytes(made), "b9") == made


def test_a_header_cut_short_anywhere_is_refused_by_name() -> None:
    data = to_bytes(header())
    for length in range(len(data)):
        with pytest.raises(CorruptBuildError, match="b2") as refused:
            from_bytes(data[:length], "b2")
        assert refused.value.build == "b2"


def test_a_header_with_bytes_after_its_end_is_refused_by_name() -> None:
    with pytest.raises(CorruptBuildError, match="b2"):
        from_bytes(to_bytes(header()) + b"\0", "b2")


def test_a_header_with_any_bit_flipped_is_refused_by_name() -> None:
    data = to_bytes(header())
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(CorruptBuildError, match="b2"):
            from_bytes(bytes(flipped), "b2")


def sealed(text: bytes, columns: bytes = b"") -> bytes:
    """A document whose checksum is right, whatever it says."""
    body = PREFIX.pack(b"SNAPDRL1", len(text), len(columns)) + text + columns
    return body + xxhash.xxh3_128_digest(body)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"{}", b'{"extents": "many"}', b'{"extents": -1}', b"\xff"]
)
def test_a_header_that_says_nothing_valid_is_refused_by_name(text: bytes) -> None:
    with pytest.raises(CorruptBuildError, match="b2"):
        from_bytes(sealed(text), "b2")


def test_a_header_whose_digests_are_fewer_than_its_chunks_is_refused() -> None:
    made = dataclasses.replace(header(), digests=header().digests[:1])
    with pytest.raises(CorruptBuildError, match="2 chunks have 1 digests"):
        from_bytes(to_bytes(made), "b2")


def test_a_header_whose_mapping_has_a_gap_is_refused() -> None:
    mapping = Mapping(8 * PAGE, PAGE, Extents.of([Extent(0, PAGE, None, 0), Extent(2 * PAGE, 6 * PAGE, None, 0)]))
    with pytest.raises(CorruptBuildError, match="gap"):
        from_bytes(to_bytes(dataclasses.replace(header(), mapping=mapping)), "b2")


def test_a_document_of_another_version_is_refused() -> None:
    with pytest.raises(CorruptBuildError, match="this version"):
        from_bytes(b"SNAPDRL9" + to_bytes(header())[8:], "b2")


def test_the_content_hash_follows_what_is_stored_and_where_it_goes() -> None:
    made = header()
    moved = Mapping(8 * PAGE, PAGE, Extents.of([*list(made.mapping.extents)[:3], Extent(7 * PAGE, PAGE, "b1", 0)]))
    others = [
        dataclasses.replace(made, digests=made.digests[::-1]),
        dataclasses.replace(made, mapping=moved),
    ]
    assert len({made.content_hash, *(other.content_hash for other in others)}) == 3
    assert made.content_hash == dataclasses.replace(made, generation=7, build="b3").content_hash


def test_a_template_is_all_zero_and_stores_nothing() -> None:
    made = template(8 * PAGE, PAGE)
    assert list(made.mapping.extents) == [Extent(0, 8 * PAGE, None, 0)]
    assert (made.length, made.generation) == (0, 0)


def test_a_finished_build_is_opened_and_verified(tmp_path: Path) -> None:
    write_build(tmp_path, header())
    with contextlib.closing(Build.open(tmp_path, "b2")) as build:
        build.verify()
        assert build.header == header()
        assert build.read(PAGE, 2 * PAGE) == b"\1" * PAGE + b"\2" * PAGE


@pytest.mark.parametrize("name", ["b2.partial", "b3", ""])
def test_what_is_unfinished_or_missing_is_not_opened(tmp_path: Path, name: str) -> None:
    write_build(tmp_path, header("b2.partial"))
    with pytest.raises(CorruptBuildError, match=f"build {name}"):
        Build.open(tmp_path, name)


@pytest.mark.parametrize("missing", ["header", "memfile"])
def test_a_build_without_one_of_its_files_is_not_opened(tmp_path: Path, missing: str) -> None:
    (write_build(tmp_path, header()) / missing).unlink()
    with pytest.raises(CorruptBuildError, match="build b2 is not finished, or lacks a file: No such file"):
        Build.open(tmp_path, "b2")


def test_a_build_with_the_header_of_another_is_not_opened(tmp_path: Path) -> None:
    write_build(tmp_path, header("b1")).rename(tmp_path / "b2")
    with pytest.raises(CorruptBuildError, match="build b2: its header is that of build b1"):
        Build.open(tmp_path, "b2")


def test_a_build_whose_cache_is_cut_short_is_not_opened(tmp_path: Path) -> None:
    write_build(tmp_path, header(), b"\1" * 2 * PAGE)
    with pytest.raises(CorruptBuildError, match=f"build b2: its cache has {2 * PAGE} bytes of {3 * PAGE}"):
        Build.open(tmp_path, "b2")


@pytest.mark.parametrize(("position", "chunk"), [(0, 0), (2 * PAGE - 1, 0), (2 * PAGE, 1), (3 * PAGE - 1, 1)])
def test_verifying_names_the_chunk_that_differs(tmp_path: Path, position: int, chunk: int) -> None:
    memory = bytearray(b"".join(PIECES))
    memory[position] ^= 1
    write_build(tmp_path, header(), bytes(memory))
    with (
        contextlib.closing(Build.open(tmp_path, "b2")) as build,
        pytest.raises(CorruptBuildError, match=f"build b2: chunk {chunk} does not match"),
    ):
        build.verify()


def test_a_read_past_the_end_of_a_build_is_told_of(tmp_path: Path) -> None:
    write_build(tmp_path, header())
    with (
        contextlib.closing(Build.open(tmp_path, "b2")) as build,
        pytest.raises(CorruptBuildError, match=f"ended at byte {3 * PAGE}"),
    ):
        build.read(2 * PAGE, 2 * PAGE)


def test_attachments_are_kept_with_the_build_and_a_missing_one_is_named(tmp_path: Path) -> None:
    folder = write_build(tmp_path, header())
    write_attachments({"generations": b"\1\2", "note": json.dumps({"a": 1}).encode()}, folder)
    with contextlib.closing(Build.open(tmp_path, "b2")) as build:
        assert build.attachment("generations") == b"\1\2"
        with pytest.raises(CorruptBuildError, match="build b2: it lacks nothing: No such file"):
            build.attachment("nothing")


def open_and_use(builds: Path) -> None:
    with contextlib.closing(Build.open(builds, "b2")) as build:
        build.attachment("note")
        build.verify()


def check(builds: Path) -> None:
    check_build(builds, "b2", 3 * PAGE)


def outcome_of(act: Callable[[Path], None], builds: Path) -> int | None:
    """The errno of the OSError that it ends with; None where it succeeds."""
    try:
        act(builds)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("act", [open_and_use, check])
def test_whatever_read_the_host_fails_the_build_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None], number: int
) -> None:
    write_attachments({"note": b"1"}, write_build(tmp_path, header()))
    before = open_before()
    nth = 1
    while True:
        with monkeypatch.context() as patched:
            reads = FailingReads(tmp_path, nth, number).install(patched)
            found = outcome_of(act, tmp_path)
        if not reads.has_failed:
            break
        assert found == number
        nth += 1
    assert found is None
    assert nth > 3
    assert len(os.listdir("/proc/self/fd")) == before


GONE = [(open_and_use, "header"), (open_and_use, "memfile"), (open_and_use, "note"), (check, "header")]


@pytest.mark.parametrize(("act", "file"), [*GONE, (check, "memfile")])
def test_a_build_of_which_a_file_is_gone_is_damaged(tmp_path: Path, act: Callable[[Path], None], file: str) -> None:
    folder = write_build(tmp_path, header())
    write_attachments({"note": b"1"}, folder)
    (folder / file).unlink()
    with pytest.raises(CorruptBuildError, match="build b2"):
        act(tmp_path)


@pytest.mark.parametrize("place", ["a folder", "a link to itself", "nothing", "below a file"])
def test_what_is_at_the_place_of_a_header_and_is_no_file_is_damage(tmp_path: Path, place: str) -> None:
    path = write_build(tmp_path, header()) / "header"
    path.unlink()
    if place == "a folder":
        path.mkdir()
    elif place == "a link to itself":
        path.symlink_to(path)
    elif place == "below a file":
        shutil.rmtree(path.parent)
        path.parent.touch()
    with pytest.raises(CorruptBuildError, match="build b2 is not finished, or lacks a file"):
        Build.open(tmp_path, "b2")


def test_a_name_that_no_file_can_have_is_that_of_no_build(tmp_path: Path) -> None:
    with pytest.raises(CorruptBuildError, match="null"):
        Build.open(tmp_path, "b\0")


def test_closing_a_build_twice_is_closing_it_once(tmp_path: Path) -> None:
    write_build(tmp_path, header())
    build = Build.open(tmp_path, "b2")
    build.close()
    build.close()


def turn_over(path: Path, at: int) -> None:
    """One byte of a file, written a moment after whatever was written before."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))
    later = path.stat().st_mtime_ns + 10**7
    os.utime(path, ns=(later, later))


def test_a_finished_build_is_good_enough_to_stand_on(tmp_path: Path) -> None:
    write_build(tmp_path, header())
    check_build(tmp_path, "b2", 3 * PAGE)


@pytest.mark.parametrize("file", ["header", "memfile"])
@pytest.mark.parametrize("at", [0, 100, -1])
def test_no_build_may_stand_on_one_in_which_a_byte_was_turned_over(tmp_path: Path, file: str, at: int) -> None:
    path = write_build(tmp_path, header()) / file
    turn_over(path, at % path.stat().st_size)
    with pytest.raises(CorruptBuildError, match=r"build b2: .* (match|version)"):
        check_build(tmp_path, "b2", 0)


@pytest.mark.parametrize("file", ["header", "memfile"])
def test_no_build_may_stand_on_one_that_lost_a_file(tmp_path: Path, file: str) -> None:
    (write_build(tmp_path, header()) / file).unlink()
    with pytest.raises(CorruptBuildError, match="build b2 is not finished, or lacks a file: No such file"):
        check_build(tmp_path, "b2", 0)


@pytest.mark.parametrize("file", ["header", "memfile"])
def test_no_build_may_stand_on_one_that_was_cut_short(tmp_path: Path, file: str) -> None:
    path = write_build(tmp_path, header()) / file
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(CorruptBuildError, match=r"build b2: .* (cut short|bytes of)"):
        check_build(tmp_path, "b2", 0)


def test_no_build_may_stand_on_one_that_has_less_than_is_needed_of_it(tmp_path: Path) -> None:
    write_build(tmp_path, header())
    with pytest.raises(CorruptBuildError, match="bytes of 16384"):
        check_build(tmp_path, "b2", 4 * PAGE)


def test_no_build_may_stand_on_one_with_the_header_of_another(tmp_path: Path) -> None:
    write_build(tmp_path, header()).rename(tmp_path / "b7")
    with pytest.raises(CorruptBuildError, match="build b7: its header is that of build b2"):
        check_build(tmp_path, "b7", 0)


def test_a_cache_that_nobody_wrote_to_since_is_not_read_again(tmp_path: Path) -> None:
    """What its bytes cost to compare is more than a pause may take; a resume compares them."""
    folder = write_build(tmp_path, header(), bytes(3 * PAGE))
    os.utime(folder / "memfile", ns=(0, 0))
    check_build(tmp_path, "b2", 3 * PAGE)
    os.utime(folder / "header", ns=(0, 0))
    os.utime(folder / "memfile", ns=(1, 1))
    with pytest.raises(CorruptBuildError, match="chunk 0 does not match its digest"):
        check_build(tmp_path, "b2", 3 * PAGE)


@pytest.mark.parametrize(
    ("spilled", "end"), [((), 0), ((0,), 10), ((1,), 30), ((0, 2), 60), ((2, 0), 60), ((3,), 100), ((0, 1, 2, 3), 100)]
)
def test_a_spill_reaches_to_the_end_of_its_last_chunk(spilled: tuple[int, ...], end: int) -> None:
    assert snapshot._end_of_spill(spilled, (10, 20, 30, 40)) == end
