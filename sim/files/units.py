"""Sizes, shares and times as people write them in scenario files: `64MiB`, `40%`, `250ms`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from engine.printable import printable

_SHOWN = 80  # characters of a value in a message
SIZE = r"^([0-9]+)(KiB|MiB|GiB)$"
PERCENT = r"^([0-9]+(?:\.[0-9]+)?)(%)$"
DURATION = r"^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)$"

HUGE_PAGE = 2 << 20
"""Bytes."""

_SHIFTS = {"KiB": 10, "MiB": 20, "GiB": 30}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Bytes: `64MiB` is 67108864. ValueError for anything but whole KiB, MiB or GiB."""
    number, unit = _split(text, SIZE, "a size such as 32MiB")
    return int(number) << _SHIFTS[unit]


def parse_percent(text: str) -> float:
    """Percent, 0 to 100: `40%` is 40.0. ValueError outside."""
    number, _ = _split(text, PERCENT, "a share such as 40%")
    percent = float(number)
    if percent > 100:
        raise ValueError(f"expected a share of at most 100%, got {show(text)}")
    return percent


def parse_duration(text: str) -> float:
    """Seconds: `250ms` is 0.25. ValueError without a unit."""
    number, unit = _split(text, DURATION, "a duration such as 250ms, 3s or 2m")
    return float(number) * _SECONDS[unit]


def format_size(size: int) -> str:
    """The shortest exact way to write a number of bytes: `32MiB`, `12KiB`, `513B`."""
    for unit, shift in reversed(_SHIFTS.items()):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """As a file writes it: `2h`, `30m`, `3s`, `250ms`."""
    for unit in ("h", "m", "s"):
        number = seconds / _SECONDS[unit]
        if number >= 1 and number == int(number):
            return f"{int(number)}{unit}"
    return f"{seconds * 1e3:g}ms" if seconds < 1 else f"{seconds:g}s"


def show(value: Any) -> str:
    """A value of a document as a message names it."""
    if isinstance(value, str):
        return f'"{printable(value, _SHOWN)}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else str(value)


def _split(text: Any, pattern: str, expected: str) -> tuple[str, str]:
    found = re.fullmatch(pattern, text) if isinstance(text, str) and len(text) < 20 else None
    if found is None:
        raise ValueError(f"expected {expected}, got {show(text)}")
    return found[1], found[2]


def _size(value: Any, info: ValidationInfo) -> Any:
    return value if _is_number(value, info) else parse_size(value)


def _percent(value: Any, info: ValidationInfo) -> Any:
    return value if _is_number(value, info) else parse_percent(value)


def _duration(value: Any, info: ValidationInfo) -> Any:
    return value if _is_number(value, info) else parse_duration(value)


def _is_number(value: Any, info: ValidationInfo) -> bool:
    """A document (it comes with a context) must write its units; code may pass the number itself."""
    return info.context is None and isinstance(value, int | float)


def _text(pattern: str) -> Any:
    return Annotated[str, Field(pattern=pattern)]


Size = Annotated[int, Field(ge=0), BeforeValidator(_size, json_schema_input_type=_text(SIZE))]
"""Bytes; written as `32MiB`."""
Percent = Annotated[float, Field(ge=0, le=100), BeforeValidator(_percent, json_schema_input_type=_text(PERCENT))]
"""Percent, 0 to 100; written as `40%`."""
Duration = Annotated[float, Field(gt=0, le=1e9), BeforeValidator(_duration, json_schema_input_type=_text(DURATION))]
"""Seconds; written as `250ms`, `3s`, `2m`."""
