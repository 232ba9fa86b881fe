"""What people write: where a part of it stands, what is wrong with it, and strict JSON read with positions.

Position, Mistake and DocumentError serve YAML and CSV too. They are here because flags is the lowest package that
reads what people write: sim may import it, and the engine reads no document.
"""

from __future__ import annotations

import json
import pathlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from engine.errors import UserError
from engine.printable import printable
from engine.reading import MOST_MISTAKES
from flags.decode import parse_json

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_CONSTANTS = ("NaN", "Infinity", "-Infinity")  # json.loads takes them

Path = tuple[str | int, ...]


class Position(NamedTuple):
    """1-based, counted in characters."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, order=True, slots=True)
class Mistake:
    """One mistake in a file. `path` names the part as people write it (`steps[3].pause`), empty for the whole file.

    `text` says what is wrong and `hint` what to do, where `text` does not say both; `file` is empty until it is known,
    and for the file that is being read. In the order of places.
    """

    position: Position
    path: str
    text: str
    hint: str = ""
    file: str = ""

    def __str__(self) -> str:
        line, column = self.position
        said = ": ".join(printable(each) for each in (self.path, self.text) if each)
        hint = f"; {printable(self.hint)}" if self.hint else ""
        return f"{printable(self.file)}:{line}:{column}: error: {said}{hint}"


class DocumentError(UserError):
    """A file that cannot be used: its mistakes and those of the files that it names, one line each."""

    def __init__(self, path: pathlib.Path | str, mistakes: Iterable[Mistake]) -> None:
        """`path` is the file where a mistake names none; its own mistakes come first."""
        self._given = path, frozenset(mistakes)
        in_order = sorted(self._given[1], key=lambda each: (each.file, each))
        self.mistakes = tuple(each if each.file else replace(each, file=str(path)) for each in in_order)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """What is printed of them: the first ones, and how many more there are."""
        more = len(self.mistakes) - MOST_MISTAKES
        lines = [str(each) for each in self.mistakes[:MOST_MISTAKES]]
        return [*lines, f"and {more:,} more"] if more > 0 else lines

    def __reduce__(self) -> tuple[type[DocumentError], tuple[pathlib.Path | str, frozenset[Mistake]]]:
        """Worker processes send their errors pickled."""
        return DocumentError, self._given


@dataclass(frozen=True, slots=True)
class JsonDocument:
    """`positions` hold each member's key and each element's value, by path; `duplicates` the keys met again."""

    value: Any
    positions: Mapping[Path, Position]
    duplicates: tuple[tuple[Path, Position], ...]


def parse(text: str) -> JsonDocument:
    """Parse one JSON document; json.JSONDecodeError where it is not JSON (RFC 8259: no NaN, no Infinity)."""
    try:
        value = parse_json(text)
        scan = _Scan(text)
        scan.value(next(scan.tokens), ())
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    return JsonDocument(value, scan.positions, tuple(scan.duplicates))


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
