"""Conditions of a plan's metrics, such as `result >= 0.99`: parsed, never evaluated as code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

from sim.steps import COMPARISONS
from sim.units import show

_FORM = re.compile(r"\s*result\s*(>=|<=|==|!=|>|<)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*")


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a metric's result with a number."""

    operator: str
    bound: float

    def holds(self, result: float) -> bool:
        """Whether the result meets it."""
        return bool(COMPARISONS[self.operator](result, self.bound))

    def __str__(self) -> str:
        return f"result {self.operator} {self.bound:g}"


def parse_condition(text: Any) -> Condition:
    """ValueError for anything but one comparison of `result` with a number."""
    found = _FORM.fullmatch(text) if isinstance(text, str) and len(text) < 60 else None
    if found is None:
        raise ValueError(f'expected a comparison such as "result >= 0.99", got {show(text)}')
    return Condition(found[1], float(found[2]))


def _condition(value: Any) -> Any:
    return value if isinstance(value, Condition) else parse_condition(value)


WrittenCondition = Annotated[Condition, BeforeValidator(_condition, json_schema_input_type=str)]
"""A condition as a plan writes it."""
