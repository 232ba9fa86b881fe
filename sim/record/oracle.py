"""The content that every page must hold."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from sim.record import page_words
from sim.record.vm_program import PROGRAM_PAGE

PAGE = page_words.PAGE
ZEROED = 1 << 31
PROGRAM = 1 << 30
"""The generation of a page that holds the program of a virtual machine."""
_ZEROS = bytes(PAGE)


def key_of(seed: int, sandbox: str) -> int:
    """The word that a sandbox's pages are derived from, through all its incarnations."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{sandbox}".encode(), digest_size=page_words.WORD).digest(), "little")


def content(key: int, page: int, generation: int) -> bytes:
    """The 4096 bytes of page `page`: its first word, then filler from a place in the table that the word chooses."""
    if generation == 0 or generation & ZEROED:
        return _ZEROS
    if generation == PROGRAM:
        return PROGRAM_PAGE
    word = page_words.first_word(key, page, generation)
    start = (word & page_words.STARTS) * page_words.WORD
    return word.to_bytes(page_words.WORD, "little") + page_words.TABLE[start : start + page_words.FILLER]


def generations(data: bytes) -> array.array[int]:
    """The u32 generations from the bytes of a side memfd or of an attachment."""
    found = array.array("I")
    found.frombytes(data)
    return found


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A page with wrong content; `found` says what is there instead."""

    page: int
    generation: int
    expected: str
    found: str


def describe(data: bytes) -> str:
    """A page in a few words: all zero, or how it begins."""
    return "all zero" if not any(data) else f"begins {data[:8].hex()}"


def _expected(key: int, first: int, pages: array.array[int]) -> bytes:
    """The content that these pages must hold; `first` is the number of the first."""
    return b"".join([content(key, page, each) if each else _ZEROS for page, each in enumerate(pages, first)])


def mismatches(key: int, pages: array.array[int], memory: Iterator[bytes | int]) -> Iterator[Mismatch]:
    """Compare memory with the content that its generations demand.

    Pieces are in order and of whole pages; a number is the length of a hole in bytes, which holds zeros.
    """
    page = 0
    for piece in memory:
        size = piece if isinstance(piece, int) else len(piece)
        here = pages[page : page + size // PAGE]
        if len(here) * PAGE != size or not _holds(key, page, here, piece):
            yield from _unlike(key, page, pages, bytes(piece))
        page += -(-size // PAGE)
    for lost in range(page, len(pages)):
        yield Mismatch(lost, pages[lost], describe(content(key, lost, pages[lost])), "nothing: the memory ends before")


def _holds(key: int, first: int, pages: array.array[int], piece: bytes | int) -> bool:
    """`first` is the number of the first page."""
    if not isinstance(piece, int):
        return piece == _expected(key, first, pages)
    return not any(pages) or all(each == 0 or each & ZEROED for each in pages)


def _unlike(key: int, page: int, pages: array.array[int], piece: bytes) -> Iterator[Mismatch]:
    """Page by page, from `page` on; bytes(n) of a hole are its zeros."""
    for at in range(0, len(piece), PAGE):
        expected = content(key, page, pages[page])
        if piece[at : at + PAGE] != expected:
            yield Mismatch(page, pages[page], describe(expected), describe(piece[at : at + PAGE]))
        page += 1


GENERATIONS = "generations"
