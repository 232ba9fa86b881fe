"""A figure that says how it is known, and how a document and a report write its value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Known = Literal["measured", "given", "derived", "assumed"]
"""Measured by a run; given by a document or an option; derived from others; assumed for want of anything better."""


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
        said = {"value": self.value, "unit": self.unit or None, "known": self.known}
        return {**said, "note": self.note} if self.note else said


def shown(figure: Figure) -> str:
    """Bytes as GiB or MiB, all else as it is."""
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
