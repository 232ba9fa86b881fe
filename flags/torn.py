"""A flag file that is no whole document, and whole ones read; each mistake with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flags.decode import Decoded, not_json, parse_json, sections
from flags.document import DocumentError, JsonDocument, Mistake, Position, parse

Read = TypeVar("Read")


class TornError(DocumentError):
    """A flag file that is missing, unreadable, empty or cut: it says nothing, not even that the flags are off."""


def decode(path: Path, content: bytes | str) -> Decoded:
    """What was read by look(); TornError where it is no whole JSON document."""
    return sections(loads(path, content))


def loads(path: Path, content: bytes | str) -> Any:
    """The document of what was read by look(); TornError, with its place, where it is not whole."""
    return _read(path, content, parse_json)


def parsed(path: Path, content: bytes | str) -> JsonDocument:
    """The same with the place of each part; TornError where it is not whole."""
    return _read(path, content, parse)


def _read(path: Path, content: bytes | str, read: Callable[[str], Read]) -> Read:
    try:
        return read(text_of(path, content))
    except json.JSONDecodeError as error:
        raise _torn(path, Position(error.lineno, error.colno), not_json(error)) from None


def text_of(path: Path, content: bytes | str) -> str:
    """The text of what was read by look(); TornError where there is none or it is not UTF-8."""
    if isinstance(content, str):
        raise _torn(path, Position(), f"it cannot be read: {content}; put a JSON file there")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise _torn(path, Position(line, column), "not UTF-8; save the file as UTF-8") from None


def _torn(path: Path, place: Position, what: str) -> TornError:
    text, _, hint = what.partition("; ")
    return TornError(path, [Mistake(place, "", text, hint)])
