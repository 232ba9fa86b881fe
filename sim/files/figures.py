"""A figure that says how it is known, and how a document and a report write its value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Known = Literal["measured", "given", "derived", "assumed"]
"""Measured by a run; given by a document or an option; derived from others; assumed if nothing better is known."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value under a label; `unit` is empty for text and plain numbers, `note` says where it is from."""

    label: str
    value: float | int | str | None
    unit: str
    known: Known
    note: str = ""

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        fields = {"value": self.value, "unit": self.unit or None, "known": self.known}
        return {**fields, "note": self.note} if self.note else fields


def shown(figure: Figure) -> str:
    """Bytes as GiB or MiB, anything else as it is."""
    value = figure.value
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if figure.unit == "bytes":
        return in_gib(value)
    text = f"{value:,}" if isinstance(value, int) else number(value)
    return f"{text} {figure.unit}".rstrip()


def in_gib(size: float) -> str:
    """Bytes for people: GiB, or MiB below one GiB."""
    return f"{size / 2**30:,.1f} GiB" if abs(size) >= 1 << 30 else f"{size / 2**20:,.1f} MiB"


def number(value: float) -> str:
    """Three digits that mean something; no exponent unless it is needed."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """`18.1 %`, `0.482 %`: rounded up, so that no more is claimed than was shown."""
    value = share * 100
    digits = 1 if value >= 10 else 2 if value >= 1 else 3
    rounded = math.ceil(round(value * 10**digits, 9)) / 10**digits
    return f"{min(100.0, rounded):.{digits}f}".rstrip("0").rstrip(".") + " %"
