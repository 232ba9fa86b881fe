"""What is written down of a build's chunks: read back as it was, and gone when nobody needs it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import xxhash

from engine import chunk_records


def test_records_are_removed_where_they_are_and_their_lack_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / chunk_records.NAME).write_bytes(b"x")
    for _ in range(2):
        chunk_records.remove(tmp_path)
        assert list(tmp_path.iterdir()) == []
    chunk_records.remove(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("chunk", "file", "index", "placed"),
    [
        (1, 1, 1, (False, 5)),
        (1, 2, 1, (True, 5)),
        (1, 1, 2, None),
        (1, 3, 1, None),
        (1, 0, 1, None),
        (0, 2, 0, (True, 5)),
    ],
)
def test_a_place_is_that_of_its_chunk_in_one_of_two_files(
    chunk: int, file: int, index: int, placed: tuple[bool, int] | None
) -> None:
    body = struct.pack("<QQQ16s", chunk, file, 5, b"d" * 16)
    whole = body + xxhash.xxh3_64_digest(body)
    found = chunk_records._placed(whole, index)
    assert found == (None if placed is None else chunk_records.Placed(*placed, b"d" * 16))
    assert chunk_records._placed(whole[:-1], index) is None
    assert chunk_records._placed(whole[:-1] + bytes([whole[-1] ^ 1]), index) is None
