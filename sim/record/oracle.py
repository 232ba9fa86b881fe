"""The content that every page must hold."""

from __future__ import annotations

import array
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

PAGE = 4096
ZEROED = 1 << 31
_ZEROS = bytes(PAGE)
WORD = 8
"""Bytes of a word, little-endian. All arithmetic on words is modulo 2^64, as a processor's is: a virtual machine
computes the same contents in a few instructions."""
PER_PAGE, PER_GENERATION = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
MIX_ADD, MIX = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
MIX_LAST = 31
STARTS = 0x1FFF
"""The bits of a page's first word that choose where in the table its filler begins, in words."""
_FILLER = PAGE - WORD
TABLE = random.Random("snapdrill page filler").randbytes(STARTS * WORD + _FILLER)
_WORDS = (1 << 64) - 1


def key_of(seed: int, sandbox: str) -> int:
    """The word that a sandbox's pages are derived from, through all its incarnations."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{sandbox}".encode(), digest_size=WORD).digest(), "little")


def first_word(key: int, page: int, generation: int) -> int:
    """The first word of a written page: splitmix64 (a bijection) of key, page number and generation."""
    word = (key + page * PER_PAGE + generation * PER_GENERATION + MIX_ADD) & _WORDS
    for shift, factor in MIX:
        word = (word ^ word >> shift) * factor & _WORDS
    return word ^ word >> MIX_LAST


def content(key: int, page: int, generation: int) -> bytes:
    """The 4096 bytes of page `page`: its first word, then filler from a place in the table that the word chooses."""
    if generation == 0 or generation & ZEROED:
        return _ZEROS
    word = first_word(key, page, generation)
    start = (word & STARTS) * WORD
    return word.to_bytes(WORD, "little") + TABLE[start : start + _FILLER]


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
