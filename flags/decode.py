"""What LaunchDarkly's decoder takes from a flag file, whatever lint says of it.

A file is torn where it is no whole JSON document; everything else is whole, and is served as far as it decodes. Read as
Go reads it: a number of any length, half of a surrogate pair as U+FFFD.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.reading import read_regular, too_much

SECTIONS = ("flags", "segments")
_SHORT = "flagValues"
_STRING_OR_CONSTANT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?Infinity|NaN')
_LONGEST_INTEGER = 400  # digits; more is beyond any double


@dataclass(slots=True)
class Decoded:
    """Flags and segments as written, by key; `refused` says why a part is not served, by its path in the document."""

    flags: dict[str, dict[str, Any]] = field(default_factory=dict)
    segments: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[tuple[str, ...], str] = field(default_factory=dict)


def look(path: Path) -> bytes | str:
    """The file's bytes, or why there are none. Bytes show a change: size and times can miss a quick rewrite."""
    try:
        return read_regular(path)
    except OSError as error:
        return error.strerror or str(error)
    except MemoryError:
        return "it does not fit into memory"


def not_json(error: json.JSONDecodeError) -> str:
    """What is wrong and what to do."""
    fix = "write JSON: no comments, no trailing commas" if error.doc.strip() else "write at least an empty set of flags"
    return f"not JSON: {error.msg}; {fix}"


Pairs = Callable[[list[tuple[str, Any]]], Any]


def parse_json(text: str, pairs: Pairs | None = None) -> Any:
    """One JSON document by RFC 8259 (no NaN, no Infinity); json.JSONDecodeError where it is not one.

    `pairs` makes each object of its members.
    """

    def refuse(constant: str) -> Any:
        words = (match for match in _STRING_OR_CONSTANT.finditer(text) if match.group() == constant)
        raise json.JSONDecodeError(f"{constant} is not a JSON value", text, next(words).start())

    try:
        try:
            value = json.loads(text, parse_constant=refuse, object_pairs_hook=pairs)
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python reads no integer of more than 4,300 digits
            value = json.loads(text, parse_constant=refuse, parse_int=_integer, object_pairs_hook=pairs)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    if (why := too_much(value)) is not None:
        raise json.JSONDecodeError(why, text, 0)
    return _paired(value) if "\\u" in text else value


@contextmanager
def uncollected() -> Iterator[None]:
    """A document makes no cycles; looking for them meanwhile takes three times as long as reading a large one."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _LONGEST_INTEGER else float(digits)


def _paired(value: Any) -> Any:
    """With U+FFFD for each half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_paired(key): _paired(each) for key, each in value.items()}
    return [_paired(each) for each in value] if isinstance(value, list) else value


def sections(document: Any) -> Decoded:
    """The flags and segments of a whole document. What is no object holds none; null is as good as absent."""
    found = Decoded()
    if not isinstance(document, Mapping):
        found.refused[()] = "the document is not an object"
        return found
    for section in SECTIONS:
        for key, item in _members(document, section, found).items():
            if not isinstance(item, dict):
                found.refused[section, key] = "it is not an object"
            else:
                getattr(found, section)[key] = item
    for key, value in _members(document, _SHORT, found).items():
        if key in found.flags:  # LaunchDarkly's file source refuses the whole file
            del found.flags[key]
            found.refused["flags", key] = f'it is in "{_SHORT}" too'
        elif ("flags", key) not in found.refused:
            found.flags[key] = {
                "key": key,
                "version": 1,
                "on": True,
                "variations": [value],
                "fallthrough": {"variation": 0},
            }
    return found


def _members(document: Mapping[str, Any], name: str, found: Decoded) -> Mapping[str, Any]:
    members = document.get(name)
    if members is None or isinstance(members, dict):
        return members or {}
    found.refused[name,] = "it is not an object"
    return {}


_TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number with a point",
    "str": "text",
    "list": "a list",
    "dict": "an object",
}
_WRONG_TYPE = re.compile(
    r"property \"?(\w+)\"? should be (?:type|an array of) <class '(\w+)'> but (an item )?was <class '(\w+)'>"
)
_MISSING = re.compile(r'required property "(\w+)" is missing')


def in_words(error: str) -> str:
    """Why the SDK's decoder refuses something, in the words of a flag file."""
    if (found := _WRONG_TYPE.search(error)) is not None:
        name, wanted, item, given = found.groups()
        must, is_given = ("each item must be", "one is") if item else ("it must be", "it is")
        return f'"{name}": {must} {_TYPES.get(wanted, wanted)}, and {is_given} {_TYPES.get(given, given)}'
    missing = _MISSING.search(error)
    return error if missing is None else f'"{missing[1]}" is missing'
