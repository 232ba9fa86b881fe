"""What a worker takes from others: a run to make, of the right types and of a bounded size, or nothing at all."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from engine.reading import MOST_BYTES
from sim.run.cases import Unit

_MOST_NUMBER = (1 << 63) - 1
_LONGEST_NAME = 4096  # characters


@dataclass(frozen=True, slots=True)
class Order:
    """A unit as it is sent, with the flag file that it reads."""

    unit: Unit
    flags: bytes | None


def refusal(order: object) -> str | None:
    """Why this is no order, in one line; None where it is one."""
    if type(order) is not Order or type(order.unit) is not Unit:
        return f"this is no order of a run, but {type(order).__name__}"
    if not isinstance(order.flags, bytes | None):
        return f"the order's flag file is {type(order.flags).__name__}, not bytes"
    wrong = next(_mistakes(order), None)
    return None if wrong is None else f"the order is refused: {wrong}"


def _mistakes(order: Order) -> Iterator[str]:
    unit = order.unit
    for name, adapter in _fields().items():
        try:
            adapter.validate_python(getattr(unit, name))
        except ValidationError as error:
            yield f"{name}: {error.errors()[0]['msg']}"
    if len(unit.text) > MOST_BYTES or len(order.flags or b"") > MOST_BYTES:
        yield f"its scenario or flag file is larger than {MOST_BYTES >> 20} MiB"
    if len(unit.name) > _LONGEST_NAME:
        yield f"its name is longer than {_LONGEST_NAME} characters"
    if not 0 <= unit.need <= _MOST_NUMBER or not 0 <= (unit.seed or 0) <= _MOST_NUMBER:
        yield "need and seed go from 0 to 2^63 - 1"
    if not 0 < unit.time_limit < math.inf:
        yield "time_limit is no number of seconds"
    paths = (getattr(unit, each.name) for each in dataclasses.fields(unit))
    if any(isinstance(each, Path) and not each.is_absolute() for each in paths):
        yield "a path is not absolute"


@functools.cache
def _fields() -> Mapping[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(hint, config=ConfigDict(strict=True)) for name, hint in get_type_hints(Unit).items()}
