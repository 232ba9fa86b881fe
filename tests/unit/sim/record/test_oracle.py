"""What every page must hold, and finding the pages that do not."""

from __future__ import annotations

import array
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.record.oracle import PAGE, PROGRAM, ZEROED, content, describe, generations, key_of, mismatches
from sim.record.page_words import first_word
from sim.record.vm_program import program

KEY = key_of(7, "web-0")
WRITTEN = st.integers(1, ZEROED - 1)
PAGES = array.array("I", [1, 0, 3, ZEROED | 2, 5])


def memory_of(pages: array.array[int]) -> bytearray:
    return bytearray(b"".join(content(KEY, page, generation) for page, generation in enumerate(pages)))


def pieces(memory: bytes | bytearray, length: int) -> list[bytes]:
    return [bytes(memory[at : at + length]) for at in range(0, len(memory), length)]


@given(page=st.integers(0, 1 << 22), generation=WRITTEN)
def test_a_written_page_is_whole_and_says_so_by_not_being_zero(page: int, generation: int) -> None:
    data = content(KEY, page, generation)
    assert len(data) == PAGE
    assert any(data[:64])
    assert content(KEY, page, generation) == data


@pytest.mark.parametrize("generation", [0, ZEROED, ZEROED | 9])
def test_a_page_never_written_or_written_with_zeros_is_zero(generation: int) -> None:
    assert content(KEY, 3, generation) == bytes(PAGE)


def test_the_page_of_a_program_holds_it_whoever_the_sandbox_is() -> None:
    for key in (KEY, key_of(8, "web-1")):
        assert content(key, 0, PROGRAM) == program() + bytes(PAGE - len(program()))


def test_seed_sandbox_page_and_generation_each_change_the_content() -> None:
    keys = [key_of(seed, sandbox) for seed in (7, 8) for sandbox in ("web-0", "web-1")]
    made = {content(key, page, tick) for key, page, tick in itertools.product(keys, range(20), range(1, 20))}
    assert len(made) == 4 * 20 * 19


def test_no_two_generations_of_any_pages_of_a_sandbox_have_the_same_first_word() -> None:
    words = {first_word(KEY, page, generation) for page in range(256) for generation in range(1, 257)}
    assert len(words) == 1 << 16


def test_the_first_word_is_splitmix64_as_it_is_published() -> None:
    assert first_word(0, 0, 0) == 0xE220A8397B1DCDAF


def test_the_content_is_the_same_on_every_machine_and_python() -> None:
    data = b"".join(content(KEY, page, 1) for page in range(16))
    assert hashlib.sha256(data).hexdigest()[:16] == "47c1cdf224e9cd8a"


@pytest.mark.parametrize("length", [PAGE, 2 * PAGE, 5 * PAGE])
def test_right_memory_has_no_mismatch_however_it_is_cut(length: int) -> None:
    assert list(mismatches(KEY, PAGES, iter(pieces(memory_of(PAGES), length)))) == []


@given(at=st.integers(0, 5 * PAGE - 1), flip=st.integers(1, 255))
def test_one_changed_byte_anywhere_is_found_in_its_page(at: int, flip: int) -> None:
    memory = memory_of(PAGES)
    memory[at] ^= flip
    assert [each.page for each in mismatches(KEY, PAGES, iter(pieces(memory, 2 * PAGE)))] == [at // PAGE]


def test_a_freed_page_is_told_as_zero_beside_how_it_must_begin() -> None:
    memory = memory_of(PAGES)
    memory[2 * PAGE : 3 * PAGE] = bytes(PAGE)
    (found,) = mismatches(KEY, PAGES, iter([bytes(memory)]))
    assert (found.page, found.generation, found.found) == (2, 3, "all zero")
    assert found.expected == f"begins {content(KEY, 2, 3)[:8].hex()}" == describe(content(KEY, 2, 3))


def test_a_hole_holds_what_was_never_written_or_written_with_zeros() -> None:
    pages = array.array("I", [1, 0, ZEROED | 2, 0, 5])
    memory = memory_of(pages)
    assert list(mismatches(KEY, pages, iter([bytes(memory[:PAGE]), 3 * PAGE, bytes(memory[4 * PAGE :])]))) == []
    found = list(mismatches(KEY, pages, iter([2 * PAGE, 3 * PAGE])))
    assert [(each.page, each.found) for each in found] == [(0, "all zero"), (4, "all zero")]
    found = list(mismatches(KEY, pages, iter([bytes(memory[:PAGE]), 3 * PAGE])))
    assert [(each.page, each.found) for each in found] == [(4, "nothing: the memory ends before")]


def test_an_older_generation_and_another_pages_content_are_no_match() -> None:
    memory = memory_of(PAGES)
    memory[2 * PAGE : 3 * PAGE] = content(KEY, 2, 2)
    memory[4 * PAGE : 5 * PAGE] = content(KEY, 3, 5)
    assert [each.page for each in mismatches(KEY, PAGES, iter([bytes(memory)]))] == [2, 4]


def test_memory_that_ends_early_lacks_every_page_that_is_not_there() -> None:
    found = list(mismatches(KEY, PAGES, iter(pieces(memory_of(PAGES)[: 3 * PAGE], PAGE))))
    assert [(each.page, each.found) for each in found] == [(page, "nothing: the memory ends before") for page in (3, 4)]


def test_generations_are_read_back_from_the_bytes_of_a_side_memfd() -> None:
    assert generations(PAGES.tobytes()) == PAGES
