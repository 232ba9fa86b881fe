"""The arithmetic that a page's content comes from, word by word: what a virtual machine computes in its program."""

from __future__ import annotations

import random

PAGE = 4096
WORD = 8
"""Bytes of a word, little-endian. All arithmetic on words is modulo 2^64, as a processor's is: a virtual machine
computes the same contents in a few instructions."""
PER_PAGE, PER_GENERATION = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
MIX_ADD, MIX = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
MIX_LAST = 31
STARTS = 0x1FFF
"""The bits of a page's first word that choose where in the table its filler begins, in words."""
FILLER = PAGE - WORD
TABLE = random.Random("snapdrill page filler").randbytes(STARTS * WORD + FILLER)
_WORDS = (1 << 64) - 1


def first_word(key: int, page: int, generation: int) -> int:
    """The first word of a written page: splitmix64 (a bijection) of key, page number and generation."""
    word = (key + page * PER_PAGE + generation * PER_GENERATION + MIX_ADD) & _WORDS
    for shift, factor in MIX:
        word = (word ^ word >> shift) * factor & _WORDS
    return word ^ word >> MIX_LAST
