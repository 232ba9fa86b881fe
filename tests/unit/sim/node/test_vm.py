"""The state of a virtual machine's processor, by value."""

from __future__ import annotations

import pytest

from sim.node.vm import without_idle_parts

IN_USE = 512


@pytest.mark.parametrize(
    ("held_at", "in_use", "said"), [(None, 0b111, 0b001), (200, 0b111, 0b011), (700, 0b110, 0b100)]
)
def test_registers_that_hold_zeros_are_not_in_use_whatever_the_processor_says(
    held_at: int | None, in_use: int, said: int
) -> None:
    area = bytearray(4096)
    area[IN_USE] = in_use
    if held_at is not None:
        area[held_at] = 1
    expected = bytearray(area)
    expected[IN_USE] = said
    assert without_idle_parts(area) == bytes(expected)
