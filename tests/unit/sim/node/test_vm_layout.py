"""What a virtual machine executes, and where in its memory everything lies."""

from __future__ import annotations

import itertools
import struct

import pytest

from sim.node.vm import LARGEST
from sim.node.vm_layout import GIB, page_tables, parameters, places, registers
from sim.record.page_words import MIX_ADD, PAGE, TABLE
from sim.record.vm_program import program

MIB = 1 << 20
SIZES = [PAGE, 32 * MIB, GIB - PAGE, GIB, GIB + PAGE, 5 * GIB, LARGEST]


@pytest.mark.parametrize("memory", SIZES)
def test_nothing_of_the_program_lies_in_ram_or_in_anything_else(memory: int) -> None:
    at = places(memory)
    side = -(-memory // PAGE * 5 // PAGE) * PAGE + PAGE
    count = at.tables // GIB + 1
    spans = [
        (0, memory),
        (at.tables, at.tables + PAGE * (2 + count)),
        (at.parameters, at.parameters + PAGE),
        (at.program, at.program + len(program())),
        (at.filler, at.filler + len(TABLE)),
        (at.pages, at.pages + memory // PAGE * 8),
        (at.tables + at.size, at.tables + at.size),
        (at.generations, at.generations + side),
        (at.door, at.door + PAGE),
    ]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(each % PAGE == 0 for each in at)


@pytest.mark.parametrize("memory", SIZES)
def test_past_the_end_of_ram_there_is_no_memory(memory: int) -> None:
    assert memory < places(memory).tables


@pytest.mark.parametrize("memory", SIZES[:5])
def test_every_address_up_to_the_door_means_itself_and_the_next_one_nothing(memory: int) -> None:
    at = places(memory)
    tables = page_tables(at.tables)

    def entry(table: int, index: int) -> int:
        (found,) = struct.unpack_from("<Q", tables, table - at.tables + 8 * index)
        return int(found)

    for address in (0, memory - PAGE, memory, at.tables, at.filler + 8, at.generations, at.door):
        directory = entry(entry(at.tables, address >> 39) & ~0xFFF, address >> 30)
        mapped = entry(directory & ~0xFFF, address >> 21 & 511)
        assert mapped & 0xFFF == 0x87
        assert (mapped & ~0xFFF) + (address & (2 * MIB - 1)) == address
    assert entry(entry(at.tables, 0) & ~0xFFF, (at.door + PAGE) >> 30) == 0


def test_the_program_fits_where_it_is_put_and_names_no_place_itself() -> None:
    assert len(program()) <= 173
    assert registers(places(PAGE), 0x1000)["rip"] == 0x1000
    assert set(registers(places(PAGE), 1)) == {"rbp", "r9", "r10", "r11", "r12", "r13", "r14", "rip", "rflags"}


def test_the_parameters_are_four_words_and_the_key_wraps_round() -> None:
    key, count, *_ = struct.unpack("<4Q", parameters((1 << 64) - 1, 7))
    assert (key, count) == (MIX_ADD - 1, 7)
