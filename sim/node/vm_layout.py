"""Where everything lies in a virtual machine's address space, and what its registers hold. Pure; x86-64."""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple

from sim.record.page_words import MIX, MIX_ADD, PAGE, PER_GENERATION, PER_PAGE, TABLE

GIB = 1 << 30
_WORDS = (1 << 64) - 1
_LARGE = 1 << 21  # bytes that one entry of the last level maps
_USER = 0b111  # present, writable, reachable at CPL 3
_IS_LARGE = 1 << 7
ENTRY = struct.Struct("<II")
"""One item of the list: page number, generation."""


class Places(NamedTuple):
    """Guest-physical addresses, which are also the virtual ones. `door` has no memory: a store there leaves the VM."""

    tables: int
    parameters: int
    program: int
    filler: int
    pages: int
    size: int  # bytes of all of the above, from `tables` on
    generations: int
    door: int


def places(memory: int) -> Places:
    """Everything lies above RAM, in the next whole GiB, so that what runs past the end of RAM finds no memory."""
    base = (memory // GIB + 1) * GIB
    parameters = base + PAGE * (2 + base // GIB + 1)
    filler = parameters + 2 * PAGE
    pages = filler + -(-len(TABLE) // PAGE) * PAGE
    end = pages + -(-(memory // PAGE * ENTRY.size) // PAGE) * PAGE
    return Places(base, parameters, parameters + PAGE, filler, pages, end - base, base + GIB // 2, base + GIB - PAGE)


@cache
def page_tables(base: int) -> bytes:
    """An identity map up to the end of the GiB that begins at `base`, in pages of 2 MiB; they lie at `base`.

    A zygote makes them before it forks a first guest of a size: that takes a fifth of a guest's own work.
    """
    count = base // GIB + 1
    root = struct.pack("<Q", base + PAGE | _USER)
    directories = struct.pack(f"<{count}Q", *(base + PAGE * (2 + each) | _USER for each in range(count)))
    entries = struct.pack(f"<{512 * count}Q", *(each * _LARGE | _USER | _IS_LARGE for each in range(512 * count)))
    return root.ljust(PAGE, b"\0") + directories.ljust(PAGE, b"\0") + entries


def parameters(key: int, count: int) -> bytes:
    """What the program reads before each tick: `count` items of the list are to be written."""
    return struct.pack("<4Q", key + MIX_ADD & _WORDS, count, *(factor for _, factor in MIX))


def registers(at: Places, program: int) -> dict[str, int]:
    """What they hold when the machine is made; the program lies at `program`."""
    return {
        "rbp": at.parameters,
        "r9": at.filler,
        "r10": at.generations,
        "r11": at.pages,
        "r12": PER_PAGE,
        "r13": PER_GENERATION,
        "r14": at.door,
        "rip": program,
        "rflags": 2,
    }
