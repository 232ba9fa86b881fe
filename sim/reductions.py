"""Smaller scenarios than a given one, the boldest cuts first. Whether one is valid is for its reader to say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from sim.units import format_size, parse_size

Document = dict[str, Any]
"""What a scenario file holds, as dict, list and scalars."""
Reductions = Callable[[Document], Iterator[Document]]
_Path = tuple[str | int, ...]

_STAYS = frozenset({"version", "name", "fleet", "steps", "engine"})
_LISTS = ("steps", "expect", "fleet")
_SIZES = ("4KiB", "64KiB", "2MiB", "4MiB")
_SIZE = re.compile(r"[0-9]+(KiB|MiB|GiB)")
_PERCENT = re.compile(r"([0-9.]+)%")
_ONE_SANDBOX = re.compile(r"(.+-)([1-9][0-9]*)")


def without_entries(document: Document) -> Iterator[Document]:
    """Steps, expectations and groups left out: half of a list, a quarter, ... each single one."""
    for name in _LISTS:
        entries = document.get(name)
        if isinstance(entries, list):
            for size in _halvings(len(entries)):
                for start in range(0, len(entries), size):
                    yield {**document, name: entries[:start] + entries[start + size :]}


def without_keys(document: Document) -> Iterator[Document]:
    """Any setting left out, the outermost first: flags, filters, places, workloads."""
    paths = sorted(_mappings(document, ()), key=len)
    for path in paths:
        for key in _at(document, path):
            if (path or key not in _STAYS) and not _is_step(path):
                less = {other: value for other, value in _at(document, path).items() if other != key}
                yield _with(document, path, less)


def smaller_fleets(document: Document) -> Iterator[Document]:
    """Fewer sandboxes and less memory, the least first."""
    for path, value in _values(document, ()):
        if path[0] == "fleet" and path[-1] in {"count", "memory"}:
            for less in _less(value):
                yield _with(document, path, less)


def lower_sandboxes(document: Document) -> Iterator[Document]:
    """What means one sandbox, such as `web-3`, means the group's first wherever it is written."""
    named = {value for path, value in _values(document, ()) if path[-1] == "sandboxes" and isinstance(value, str)}
    for name in sorted(named):
        if found := _ONE_SANDBOX.fullmatch(name):
            yield _renamed(document, name, f"{found[1]}0")


def plainer_values(document: Document) -> Iterator[Document]:
    """Smaller numbers, sizes and shares; a flag for all or none in place of a rollout."""
    for path in _mappings(document, ()):
        if "rollout" in _at(document, path):
            yield _with(document, path, True)
            yield _with(document, path, False)
    for path, value in _values(document, ()):
        if path[0] not in {"version", "name"} and path[-1] != "max":
            for less in _less(value):
                yield _with(document, path, less)


PASSES: tuple[Reductions, ...] = (without_entries, smaller_fleets, without_keys, lower_sandboxes, plainer_values)


def _halvings(length: int) -> Iterator[int]:
    size = length // 2
    while size >= 1:
        yield size
        size //= 2


def _less(value: Any) -> Iterator[Any]:
    """Plainer values than this one, the plainest first; each is smaller by the same measure, so that it ends."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        yield from sorted({0, 1, value // 2, value - 1} - {value})
    elif isinstance(value, str) and _SIZE.fullmatch(value):
        size = parse_size(value)
        smaller = {*map(parse_size, _SIZES), size // 2 // 4096 * 4096}
        yield from (format_size(each) for each in sorted(smaller) if 0 < each < size)
    elif isinstance(value, str) and _PERCENT.fullmatch(value) and value != "100%":
        yield "100%"


def _is_step(path: _Path) -> bool:
    """A step itself has one key, which is what it is."""
    return len(path) == 2 and path[0] == "steps"


def _mappings(value: Any, path: _Path) -> Iterator[_Path]:
    if isinstance(value, dict):
        yield path
    for key, below in _below(value):
        yield from _mappings(below, (*path, key))


def _values(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    """Every scalar with its path."""
    if not isinstance(value, dict | list):
        yield path, value
    for key, below in _below(value):
        yield from _values(below, (*path, key))


def _below(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _at(value: Any, path: _Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(value: Any, path: _Path, new: Any) -> Any:
    """A copy with `new` at `path`; what is not on the way is shared."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        return {**value, key: _with(value[key], rest, new)}
    return [_with(each, rest, new) if at == key else each for at, each in enumerate(value)]


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, old, new) for each in value]
    return new if value == old else value
