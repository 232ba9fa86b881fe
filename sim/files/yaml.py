"""YAML 1.2 with positions: read, and written one line an entry."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from flags.document import Mistake, Path, Position


class Origin(NamedTuple):
    """Where a part was written: 1-based line and column; `file` is empty for the document's own."""

    line: int = 1
    column: int = 1
    file: str = ""


MAX_DEPTH = 40
MAX_VALUES = 100_000
MOST_BYTES = 4 << 20
_LARGEST = 1 << 64


# The core schema of YAML 1.2.2, section 10.3.2.
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER = 400  # characters; Python reads no integer of more than 4,300 digits
_CORE_TAG = "tag:yaml.org,2002:"


@dataclass
class Document:
    """One parsed text: `data` of dict, list and scalars; the place of each path's key and value; the mistakes.

    `asked` are the places whose value came from elsewhere, each with the value and the query for it.
    """

    data: Any = None
    keys: dict[Path, Origin] = field(default_factory=dict)
    values: dict[Path, Origin] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    asked: list[tuple[Path, str, str]] = field(default_factory=list)

    @property
    def is_readable(self) -> bool:
        """False if its syntax is broken, so that nothing else about it is known."""
        return self.data is not None or not self.mistakes

    def where(self, path: Path, *, key: bool = False) -> Position:
        """The position of the value at `path` (of its key with `key`); of its nearest parent when it is not there."""
        line, column, _ = self.origin(path, key=key)
        return Position(line, column)

    def origin(self, path: Path, *, key: bool = False) -> Origin:
        """The same with the file, for a document that was put together from several."""
        while path and path not in self.values:
            path, key = path[:-1], False
        places = self.keys if key and path in self.keys else self.values
        return places.get(path, Origin())

    def mistake(self, path: Path, text: str, *, key: bool = False, shown: Path | None = None) -> Mistake:
        """A mistake at the value of `path`, or at its key; `shown` is the path that it names, where that is another."""
        line, column, file = self.origin(path, key=key)
        return Mistake(Position(line, column), dotted(path if shown is None else shown), text, file=file)


def dotted(path: Path) -> str:
    """`("steps", 3, "pause")` as people write it: `steps[3].pause`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


class _UnreadableError(Exception):
    """Nothing after this mistake can be read."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.text)
        self.mistake = mistake


def parse(text: str) -> Document:
    """Read one document. Broken syntax ends the reading; every other mistake is collected, and the first of two equal
    keys is kept. Anchors, aliases and merge keys (`<<`) are refused: each value stands where it is used."""
    document = Document()
    if len(text) > MOST_BYTES:
        document.mistakes.append(_mistake(Origin(), f"it is larger than {MOST_BYTES >> 20} MiB; split the file"))
        return document
    try:
        _Reader(text, document).read()
    except _UnreadableError as stop:
        document.mistakes.append(stop.mistake)
    except yaml.YAMLError as error:
        document.mistakes.append(_syntax_mistake(text, error))
    return document


class _Reader:
    def __init__(self, text: str, document: Document) -> None:
        self.document = document
        self.count = 0
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CSafeLoader)

    def read(self) -> None:
        next(self.events)  # the stream starts
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return self.note(Origin(), "the file is empty")
        self.document.data = self.value(next(self.events), (), 0)
        next(self.events)  # the document ends
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.note(_start(event), "a second document; write one document a file")
        return None

    def note(self, place: Origin, text: str) -> None:
        self.document.mistakes.append(_mistake(place, text))

    def value(self, event: yaml.Event, path: Path, depth: int) -> Any:
        self.document.values[path] = _start(event)
        self.count += 1
        if self.count > MAX_VALUES:
            raise _UnreadableError(_mistake(_start(event), f"more than {MAX_VALUES:,} values; split the file"))
        if depth > MAX_DEPTH:
            raise _UnreadableError(_mistake(_start(event), f"nested more than {MAX_DEPTH} levels deep"))
        self.refuse_anchor(event)
        if isinstance(event, yaml.CollectionStartEvent):
            self.refuse_tag(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path, depth)
        return self.scalar(event)

    def refuse_anchor(self, event: yaml.Event) -> None:
        if getattr(event, "anchor", None) is not None:
            self.note(_start(event), "anchors and aliases (&, *) are not supported; write the value out")

    def refuse_tag(self, event: yaml.CollectionStartEvent) -> None:
        if event.tag not in {None, "!", f"{_CORE_TAG}map", f"{_CORE_TAG}seq"}:
            self.note(_start(event), f"tags such as {_short(event.tag)} are not supported; remove it")

    def mapping(self, path: Path, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event)
            below = (*path, key)
            if known := self.document.keys.get(below):
                self.note(_start(event), f'duplicate key "{key}"; the first is in line {known.line}')
                below = (*path, key, "/duplicate")
            self.document.keys[below] = _start(event)
            value = self.value(next(self.events), below, depth + 1)
            data.setdefault(key, value)
        return data

    def key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _UnreadableError(_mistake(_start(event), "a key must be a plain word, not a list or a mapping"))
        self.refuse_anchor(event)
        if event.value == "<<":
            self.note(_start(event), "merge keys (<<) are not supported; write the keys out")
        elif not isinstance(self.scalar(event), str):
            self.note(_start(event), f'a key must be a string; write "{event.value}" in quotes')
        return str(event.value)

    def sequence(self, path: Path, depth: int) -> list[Any]:
        data: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            data.append(self.value(event, (*path, len(data)), depth + 1))
        return data

    def scalar(self, event: yaml.Event) -> Any:
        if not isinstance(event, yaml.ScalarEvent):  # an alias, noted already
            return None
        if event.tag in {None, "!"}:
            plain = event.implicit[0] and event.tag is None
        elif event.tag == f"{_CORE_TAG}str":
            plain = False
        else:
            self.note(_start(event), f"tags such as {_short(event.tag)} are not supported; remove it")
            plain = True
        return self.plain(event) if plain else event.value

    def plain(self, event: yaml.ScalarEvent) -> Any:
        text = str(event.value)
        value = core_scalar(text) if len(text) <= _LONGEST_NUMBER or not _is_number(text) else _LARGEST + 1
        if isinstance(value, int) and abs(value) > _LARGEST:
            self.note(_start(event), "a whole number of more than 64 bits")
            return _LARGEST
        return value


def _is_number(text: str) -> bool:
    return _INT.fullmatch(text) is not None or _FLOAT.fullmatch(text) is not None


def core_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in YAML 1.2: `on`, `no`, `1:30` and `64MiB` are strings, `0o17` is 15."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _start(event: yaml.Event) -> Origin:
    return _at(event.start_mark)


def _at(mark: Any) -> Origin:
    return Origin(mark.line + 1, mark.column + 1) if mark else Origin()


def _mistake(place: Origin, text: str) -> Mistake:
    return Mistake(Position(place.line, place.column), "", text)


def _short(tag: str) -> str:
    return tag.replace(_CORE_TAG, "!!")


def _syntax_mistake(text: str, error: yaml.YAMLError) -> Mistake:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(part) for part in (error.problem, error.context) if part)
        if error.context and error.context_mark:
            message += f" that starts in line {error.context_mark.line + 1}"
        return _mistake(_at(mark), message)
    before = text[: getattr(error, "position", 0)]
    place = Origin(before.count("\n") + 1, len(before) - before.rfind("\n"))
    return _mistake(place, str(getattr(error, "reason", error)))


_PLAIN = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.%/+-]*")
_LISTS = ("fleet", "steps", "expect")


def scenario_text(document: Mapping[str, Any], comment: str = "") -> str:
    """The text of a scenario file; `comment` goes in front of it, each of its lines behind a `#`.

    `document` is what such a file holds as dict, list and scalars, sizes and shares as written (`32MiB`, `40%`).
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for key, value in document.items():
        if key in _LISTS and value and isinstance(value, list):
            lines += [f"{key}:", *(f"  - {_entry(each)}" for each in value)]
        else:
            lines.append(f"{_scalar(key)}: {flow(value)}")
    return "\n".join(lines) + "\n"


def _entry(value: Any) -> str:
    """A step without the braces that a mapping of one key does not need."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((key, body),) = value.items()
        return f"{_scalar(key)}: {flow(body)}"
    return flow(value)


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A string is quoted where a reader would take it for anything else; JSON's quotes are YAML's too."""
    if isinstance(value, str) and _reads_as_itself(value):
        return value
    return json.dumps(value, ensure_ascii=False)


@functools.lru_cache(maxsize=1024)  # a sweep writes the same words a thousand times
def _reads_as_itself(text: str) -> bool:
    return _PLAIN.fullmatch(text) is not None and parse(text).data == text
