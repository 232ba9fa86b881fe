"""What a count must satisfy: `">=1"`, `3`."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from sim.files.units import show

COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`>=1`: what a count must satisfy."""

    operator: str
    number: int

    def holds(self, count: int) -> bool:
        return bool(COMPARISONS[self.operator](count, self.number))

    def __str__(self) -> str:
        return f"{self.operator}{self.number}"


def _comparison(value: Any) -> Any:
    if isinstance(value, Comparison):
        return value
    found = re.fullmatch(r"(>=|<=|==|!=|>|<|)\s*([0-9]{1,9})", str(value))
    if found is None or isinstance(value, bool):
        raise ValueError(f'expected a comparison such as ">=1", "3" or "<2", got {show(value)}')
    return Comparison(found[1] or "==", int(found[2]))


Count = Annotated[Comparison, BeforeValidator(_comparison, json_schema_input_type=str | int)]
