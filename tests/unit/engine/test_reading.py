"""Files of other people: regular ones, of a bounded size, depth and number of values."""

from __future__ import annotations

import os
import pathlib

import pytest

from engine.reading import MOST_DEPTH, MOST_VALUES, read_regular, too_much
from tests.descriptors import open_before


def refusal(path: pathlib.Path | str, most: int = 100) -> str:
    with pytest.raises(OSError, match=r".") as refused:
        read_regular(path, most)
    return str(refused.value.strerror)


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_regular(tmp_path / "a", 100) == b"x" * 100
    (tmp_path / "a").write_bytes(b"x" * 101)
    assert refusal(tmp_path / "a") == "it is larger than 0 MiB"


def test_a_file_without_a_size_is_read_up_to_its_limit_too() -> None:
    assert read_regular("/proc/self/stat", 10_000)
    assert refusal("/proc/self/maps", 10) == "it is larger than 0 MiB"


@pytest.mark.timeout(10)
def test_nothing_but_a_regular_file_is_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refusal(tmp_path / "fifo") == "it is a FIFO, not a regular file"
    assert refusal("/dev/zero") == "it is a device, not a regular file"
    assert refusal(tmp_path) == "it is a folder, not a regular file"
    assert refusal(tmp_path / "none") == "No such file or directory"
    assert refusal("a\0b") == "its name holds a null byte or half a character"


def test_no_descriptor_is_left_by_a_refusal(tmp_path: pathlib.Path) -> None:
    before = open_before()
    for path in (tmp_path, "/dev/zero"):
        refusal(path)
    assert len(os.listdir("/proc/self/fd")) == before


def nested(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_what_is_too_deep_or_holds_too_much_is_refused() -> None:
    assert too_much(nested(MOST_DEPTH)) is None
    assert too_much(nested(MOST_DEPTH + 1)) == f"nested more than {MOST_DEPTH} levels deep"
    assert too_much([0] * (MOST_VALUES - 1)) is None
    assert too_much([[0] * (MOST_VALUES // 2), [0] * (MOST_VALUES // 2)]) == f"more than {MOST_VALUES:,} values"
