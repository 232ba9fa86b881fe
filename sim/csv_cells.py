"""CSV (RFC 4180) with the line and column of every cell, which Python's reader does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Cell(NamedTuple):
    """What a cell holds, without quotes and outer blanks; line and column are 1-based, in characters."""

    text: str
    line: int
    column: int


def rows(text: str) -> Iterator[list[Cell]]:
    """Every row that is not blank. A quote that is never closed runs to the end of the text."""
    row: list[Cell] = []
    at, line, begin = 0, 1, 0
    while at <= len(text):
        cell, after, lines = _cell(text, at)
        row.append(Cell(cell.strip(), line, at - begin + 1))
        ended = after >= len(text) or text[after] == "\n"
        line += lines
        at = after + 1
        if lines:
            begin = text.rfind("\n", 0, after) + 1
        if ended:
            if any(each.text for each in row):
                yield row
            row, line, begin = [], line + 1, at


def _cell(text: str, at: int) -> tuple[str, int, int]:
    """The cell that begins there, the place of what ends it, and how many line ends are inside its quotes."""
    if text[at : at + 1] == '"':
        return _quoted(text, at)
    ends = [place for mark in ",\n" if (place := text.find(mark, at)) >= 0]
    end = min(ends, default=len(text))
    return text[at:end].removesuffix("\r"), end, 0


def _quoted(text: str, at: int) -> tuple[str, int, int]:
    close = at + 1
    while (close := text.find('"', close)) >= 0 and text[close + 1 : close + 2] == '"':
        close += 2
    close = len(text) if close < 0 else close
    held = text[at + 1 : close].replace('""', '"')
    rest, end, _ = _cell(text, close + 1) if text[close + 1 : close + 2] not in {'"', ""} else ("", close + 1, 0)
    return held + rest, min(end, len(text)), text.count("\n", at, close)
