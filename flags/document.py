"""Strict JSON with positions: what the text says, and at which line and column each part of it stands."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flags.decode import parse_json

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_CONSTANTS = ("NaN", "Infinity", "-Infinity")  # json.loads takes them

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """1-based, counted in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """`positions` hold each member's key and each element's value, by path; `duplicates` the keys met again."""

    value: Any
    positions: Mapping[Path, Position]
    duplicates: tuple[tuple[Path, Position], ...]


def parse(text: str) -> Document:
    """Parse one JSON document; json.JSONDecodeError where it is not JSON (RFC 8259: no NaN, no Infinity)."""
    try:
        value = parse_json(text)
        scan = _Scan(text)
        scan.value(next(scan.tokens), ())
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    return Document(value, scan.positions, tuple(scan.duplicates))


class _Scan:
    """Walks the tokens of a text that json.loads has accepted, so it checks little."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokens: Iterator[re.Match[str]] = _TOKEN.finditer(text)
        self.positions: dict[Path, Position] = {}
        self.duplicates: list[tuple[Path, Position]] = []
        self._newlines = [match.start() for match in re.finditer("\n", text)]

    def value(self, token: re.Match[str], path: Path) -> None:
        if token.group() in _CONSTANTS:
            raise json.JSONDecodeError(f"{token.group()} is not a JSON value", self._text, token.start())
        if token.group() == "{":
            self._members(path)
        elif token.group() == "[":
            self._elements(path)

    def _members(self, parent: Path) -> None:
        seen: set[str] = set()
        for token in self._until("}"):
            key: str = parse_json(token.group())
            path = (*parent, key)
            if key in seen:
                self.duplicates.append((path, self._position(token)))
            seen.add(key)
            self.positions[path] = self._position(token)
            next(self.tokens)  # the colon
            self.value(next(self.tokens), path)

    def _elements(self, parent: Path) -> None:
        for index, token in enumerate(self._until("]")):
            self.positions[(*parent, index)] = self._position(token)
            self.value(token, (*parent, index))

    def _until(self, end: str) -> Iterator[re.Match[str]]:
        for token in self.tokens:
            if token.group() == end:
                return
            if token.group() != ",":
                yield token

    def _position(self, token: re.Match[str]) -> Position:
        line = bisect_left(self._newlines, token.start())
        start = self._newlines[line - 1] + 1 if line else 0
        return Position(line + 1, token.start() - start + 1)
