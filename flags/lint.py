"""Mistakes in a flag file, those included that LaunchDarkly accepts and a destructive flag must not have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flags.catalog import FLAGS, did_you_mean
from flags.document import Document, Path, Position, parse
from flags.lint_pause_path import combinations
from flags.lint_references import prerequisites, segments
from flags.lint_rollouts import served
from flags.lint_shape import shape
from flags.problem import Flags, Problem, Severity, objects

SECTIONS = ("flags", "segments")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One mistake: where it stands (1-based), what it is, what to do and what it does in production.

    Ordered by place.
    """

    line: int
    column: int
    severity: Severity
    message: str
    fix: str
    production: str = ""

    def text(self, path: str) -> str:
        return f"{path}:{self.line}:{self.column}: {self.severity}: {self.message}; {self.fix}"


def check(text: str) -> tuple[Document | None, list[Finding]]:
    """A flag file's document (None where it is not JSON) and everything found wrong with it."""
    try:
        document = parse(text)
    except json.JSONDecodeError as error:
        fix = "write JSON: no comments, no trailing commas" if text.strip() else "write at least an empty set of flags"
        production = "the last good flags stay in force; at start, every safe value is served"
        return None, [Finding(error.lineno, error.colno, "error", f"not JSON: {error.msg}", fix, production)]
    duplicates = [
        Finding(*position, "error", f'duplicate key "{path[-1]}"', "keep one of the two", "the last one wins silently")
        for path, position in document.duplicates
    ]
    return document, sorted(duplicates + lint(document.value, document.positions))


def lint(document: Any, positions: Mapping[Path, Position]) -> list[Finding]:
    """Everything wrong with a parsed flag file, by place."""
    return sorted(
        Finding(*place(each.path, positions), each.severity, each.message, each.fix, each.production)
        for each in _document(document)
    )


def place(path: Path, positions: Mapping[Path, Position]) -> Position:
    """Where a part stands; a missing part is reported where the part stands that lacks it."""
    while path and path not in positions:
        path = path[:-1]
    return positions.get(path, Position(1, 1))


def _document(document: Any) -> Iterator[Problem]:
    if not isinstance(document, dict):
        yield Problem((), "the document is not an object", "nothing is served", 'write {"flags": {...}}')
        return
    for key in document.keys() - set(SECTIONS):
        production = "LaunchDarkly's file source ignores it silently"
        yield Problem((key,), f'unknown key "{key}"', production, did_you_mean(key, SECTIONS))
    if "flags" not in document:
        fix = 'add "flags": {}, which serves every safe value'
        yield Problem((), '"flags" is missing', "every flag vanishes, and the code's defaults are served", fix)
    for section in SECTIONS:
        yield from _section(section, document.get(section, {}))
    if isinstance(document.get("flags"), dict):
        yield from _flags(document["flags"], document)


def _section(section: str, items: Any) -> Iterator[Problem]:
    refused = "LaunchDarkly refuses the whole set of flags, and the last one stays in force"
    if not isinstance(items, dict):
        fix = "write an object with an entry for each key"
        yield Problem((section,), f'"{section}" is not an object', refused, fix)
        return
    for key, item in items.items():
        path = (section, key)
        if not isinstance(item, dict):
            fix = "write it in full, as LaunchDarkly exports it"
            yield Problem(path, f'"{key}" is not an object', refused, fix)
        elif "key" not in item:
            yield Problem(path, f'"{key}" has no "key"', refused, f'write "key": "{key}"')
        elif item["key"] != key:
            message = f'"key" is {json.dumps(item["key"])} inside "{key}"'
            production = "the inner key wins: the flag is served under that name"
            yield Problem((*path, "key"), message, production, f'write "key": "{key}"')


def _flags(flags: dict[str, Any], document: dict[str, Any]) -> Iterator[Problem]:
    """Only flags of the pause path, and those that they ask for, are looked into."""
    required = _required(flags)
    yield from _unknown(flags, required)
    sound: dict[str, Mapping[str, Any]] = {}
    for key, flag in flags.items():
        if isinstance(flag, dict) and (key in FLAGS or key in required):
            wrong = list(shape(("flags", key), key, flag))
            yield from wrong
            if not wrong:
                sound[key] = flag
    for key, flag in sound.items():
        yield from served(("flags", key), key, flag, required.get(key, set()))
    yield from prerequisites(flags, sound)
    yield from segments(document, sound)
    yield from combinations(sound)


def _required(flags: Flags) -> dict[str, set[int]]:
    """The flags that those of the pause path ask for, directly or not, with the variations asked of them."""
    required: dict[str, set[int]] = {}
    waiting = [key for key in flags if key in FLAGS]
    while waiting:
        flag = flags.get(waiting.pop())
        for _, asked in objects(flag, "prerequisites") if isinstance(flag, dict) else []:
            key = str(asked.get("key"))
            if key not in required:
                required[key] = set()
                waiting.append(key)
            if type(asked.get("variation")) is int:
                required[key].add(asked["variation"])
    return required


def _unknown(flags: dict[str, Any], required: Mapping[str, Any]) -> Iterator[Problem]:
    others = [key for key in flags if key not in FLAGS and key not in required]
    hints = {key: did_you_mean(key, FLAGS) for key in others}
    far = [key for key in others if not hints[key].startswith("did")]
    for key in others:
        if key not in far:
            production = "nothing asks for it; the flag that was meant serves its safe value"
            yield Problem(("flags", key), f'unknown flag "{key}" is ignored', production, hints[key], "warning")
    if far:
        message = f"not of the pause path, and ignored: {', '.join(far[:5])}" + (
            f" and {len(far) - 5} more" * (len(far) > 5)
        )
        yield Problem(("flags", far[0]), message, "no pause asks for them", "leave them, or take them out", "warning")
