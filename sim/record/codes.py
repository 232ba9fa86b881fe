"""Codes for ledgers from before events carried any: what their sentences meant, in closed tables.

A sentence that is in no table has no code: it is missing evidence, and nobody reads it for a meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_PUNCH_CODES: Mapping[str, str] = MappingProxyType(
    {
        "the memfd is consumed and the guest will be condemned first": "legal",
        "memfd-punch-on-snapshot is off": "off",
        "the memory is borrowed: the same guest goes on": "borrowed",
        "there is no memfd to punch": "no-memfd",
        "in-flight readers may still need any range of the memfd": "readers",
        "the parent build is not finished, so clean pages are nowhere but in the memfd": "parent-unfinished",
        "the memfd is sealed against writing, so the kernel refuses to punch it": "sealed",
    }
)


def punch_code(code: str | None, reason: str | None) -> str | None:
    """An event's own code, else what its reason meant before there were codes; None where that is not known."""
    return code if code is not None or reason is None else _PUNCH_CODES.get(reason)
