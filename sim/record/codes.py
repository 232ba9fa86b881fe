"""Codes for ledgers written before events carried any: what their sentences meant, in closed tables.

A sentence that is in no table has no code: it counts as missing evidence and is never interpreted.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from types import MappingProxyType

from sim.files.faults import KILL_NODE, Harm, Kind, failing

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


_BY_THEIR_NAME: tuple[Kind, ...] = (
    "short", "corrupt", "cancel", "wake-guest", "trace-guest", "free-pages", "second-writer", "kill-guest",
)  # fmt: skip
_HARMS: Mapping[str, Harm] = MappingProxyType(
    {harm.error: harm for harm in (KILL_NODE, *map(Harm, _BY_THEIR_NAME))}
    | {name: failing(name) for name in errno.errorcode.values()}
)
_TIMED: Mapping[Kind, re.Pattern[str]] = MappingProxyType(
    {"delay": re.compile(r"delay ([0-9.]+) ms"), "hang": re.compile(r"hang ([0-9.]+) ms")}
)


def harm_of(error: str) -> Harm | None:
    """The kind of a fault from the `error` of a ledger without kinds; None if it is not known."""
    for kind, pattern in _TIMED.items():
        if found := pattern.fullmatch(error):
            return Harm(kind, seconds=float(found[1]) / 1e3)
    return _HARMS.get(error)


def fault_kind(kind: str | None, error: str) -> str | None:
    """An event's own kind of fault, else the kind of an `error` from before there were kinds; None if it is not
    known."""
    if kind is not None:
        return kind
    harm = harm_of(error)
    return None if harm is None else harm.kind


def punch_code(code: str | None, reason: str | None) -> str | None:
    """An event's own code, else the code of a reason from before there were codes; None if it is not known."""
    return code if code is not None or reason is None else _PUNCH_CODES.get(reason)
