"""How large the stage's fleet may be in the memory that is free. Pure."""

from __future__ import annotations

MIB = 1 << 20
SIZES = ((4, 32), (3, 32), (2, 32), (2, 16), (1, 16))
"""Sandboxes and MiB each, the best first; a copy that fails at chunk 3 needs 8 MiB and more."""
PROCESSES = 128 * MIB
"""What node, zygote and guests take beside the memory that they show."""


def fleet(available: int) -> tuple[int, int]:
    """The largest fleet that fits twice, guests and copies; the smallest where none does."""
    fits = (size for size in SIZES if 2 * size[0] * size[1] * MIB + PROCESSES <= available)
    return next(fits, SIZES[-1])


def shrunk(size: tuple[int, int], available: int) -> str | None:
    """What is said where it is smaller than it should be: nothing shrinks in silence."""
    if size == SIZES[0]:
        return None
    (count, memory), (wanted, large) = size, SIZES[0]
    return f"{count} sandboxes of {memory} MiB instead of {wanted} of {large}: {available // MIB} MiB are free"
