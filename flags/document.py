"""What people write: where a part of it stands, what is wrong with it, and strict JSON read with positions.

Position, Mistake and DocumentError serve YAML and CSV too. They are here because flags is the lowest package that
reads what people write: sim may import it, and the engine reads no document.
"""

from __future__ import annotations

import json
import pathlib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from engine.errors import UserError
from engine.printable import printable
from engine.reading import MOST_MISTAKES
from flags.decode import parse_json

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_BLANKS = re.compile(r"[ \t\n\r]*")
_CONSTANTS = ("NaN", "Infinity", "-Infinity")  # json.loads takes them

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]


class Position(NamedTuple):
    """1-based, counted in characters."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, order=True, slots=True)
class Mistake:
    """One mistake in a file. `path` names the part as people write it (`steps[3].pause`), empty for the whole file.

    `text` says what is wrong and `hint` what to do, where `text` does not say both; `file` is empty until it is known,
    and for the file that is being read. `production` is what a flag file's mistake does there. In the order of places.
    """

    position: Position
    path: str
    text: str
    hint: str = ""
    file: str = ""
    severity: Severity = "error"
    production: str = ""

    @property
    def said(self) -> str:
        """The part, what is wrong and what to do, without the place."""
        said = ": ".join(printable(each) for each in (self.path, self.text) if each)
        return said + (f"; {printable(self.hint)}" if self.hint else "")

    def __str__(self) -> str:
        line, column = self.position
        return f"{printable(self.file)}:{line}:{column}: {self.severity}: {self.said}"


def lines_of(mistakes: Sequence[Mistake]) -> list[str]:
    """What is printed of mistakes: the first ones, and how many more there are."""
    more = len(mistakes) - MOST_MISTAKES
    lines = [str(each) for each in mistakes[:MOST_MISTAKES]]
    return [*lines, f"and {more:,} more"] if more > 0 else lines


class DocumentError(UserError):
    """A file that cannot be used: its mistakes and those of the files that it names, one line each."""

    def __init__(self, path: pathlib.Path | str, mistakes: Iterable[Mistake]) -> None:
        """`path` is the file where a mistake names none; its own mistakes come first."""
        self._given = path, frozenset(mistakes)
        in_order = sorted(self._given[1], key=lambda each: (each.file, each))
        self.mistakes = tuple(each if each.file else replace(each, file=str(path)) for each in in_order)
        super().__init__("\n".join(lines_of(self.mistakes)))

    def __reduce__(self) -> tuple[type[DocumentError], tuple[pathlib.Path | str, frozenset[Mistake]]]:
        """Worker processes send their errors pickled."""
        return type(self), self._given


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


def places(text: str, paths: Iterable[Path]) -> dict[Path, Position]:
    """Where these parts of a JSON document stand, as in JsonDocument.positions, and the parts that lead to them.

    For a few parts of a large document: everything else is skipped at the speed of json.loads.
    """
    wanted: dict[str | int, Any] = {}
    for path in paths:
        inner = wanted
        for name in path:
            inner = inner.setdefault(name, {})
    search = _Search(text)
    if wanted:
        search.value(search.skip_blanks(0), wanted, ())
    return search.found


class _Search:
    """Walks the parts of a text, which is JSON, that lead to what is wanted."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = _places_in(text)
        self._decoder = json.JSONDecoder(parse_int=len, parse_float=len)  # numbers of any length
        self.found: dict[Path, Position] = {}

    def skip_blanks(self, at: int) -> int:
        found = _BLANKS.match(self._text, at)
        return at if found is None else found.end()

    def value(self, at: int, wanted: Mapping[str | int, Any], path: Path) -> int:
        """Where the value that begins there ends."""
        if not wanted or self._text[at] not in "{[":
            return self._decoder.raw_decode(self._text, at)[1]
        end, number = {"{": "}", "[": "]"}[self._text[at]], 0
        at = self.skip_blanks(at + 1)
        while self._text[at] != end:
            start, name = at, number if end == "]" else ""
            if end == "}":
                past = self._decoder.raw_decode(self._text, at)[1]
                name = parse_json(self._text[at:past])
                at = self.skip_blanks(self.skip_blanks(past) + 1)  # the colon
            if name in wanted:
                self._meet((*path, name), start)
            at = self.skip_blanks(self.value(at, wanted.get(name, {}), (*path, name)))
            at, number = (self.skip_blanks(at + 1) if self._text[at] == "," else at), number + 1
        return at + 1

    def _meet(self, path: Path, start: int) -> None:
        """The last of two equal keys counts."""
        if path in self.found:
            self.found = {each: where for each, where in self.found.items() if each[: len(path)] != path}
        self.found[path] = self._at(start)


def _places_in(text: str) -> Callable[[int], Position]:
    newlines = [match.start() for match in re.finditer("\n", text)]

    def place(at: int) -> Position:
        line = bisect_left(newlines, at)
        return Position(line + 1, at - (newlines[line - 1] + 1 if line else 0) + 1)

    return place


class _Scan:
    """Walks the tokens of a text that json.loads has accepted, so it checks little."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokens: Iterator[re.Match[str]] = _TOKEN.finditer(text)
        self.positions: dict[Path, Position] = {}
        self.duplicates: list[tuple[Path, Position]] = []
        self._at = _places_in(text)

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
                self.duplicates.append((path, self._at(token.start())))
            seen.add(key)
            self.positions[path] = self._at(token.start())
            next(self.tokens)  # the colon
            self.value(next(self.tokens), path)

    def _elements(self, parent: Path) -> None:
        for index, token in enumerate(self._until("]")):
            self.positions[(*parent, index)] = self._at(token.start())
            self.value(token, (*parent, index))

    def _until(self, end: str) -> Iterator[re.Match[str]]:
        for token in self.tokens:
            if token.group() == end:
                return
            if token.group() != ",":
                yield token
