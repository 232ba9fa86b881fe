"""The files that a scenario is written in: its own and those that it extends, as one document of known origins."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import UserError
from sim.files.strict import Finding, finding
from sim.files.yaml import Document, Origin, Path, parse

NOT_INHERITED = ("name", "extends")
"""What each file says for itself alone."""
_KINDS = {
    "scenario": ("a scenario", "run"),
    "plan": ("a rollout plan", "rehearse"),
    "fleet": ("a fleet", "forecast"),
}
"""The documents by their `kind`, and which command takes them."""


class ScenarioError(UserError):
    """A scenario that cannot be run: one `file:line:column: error: path: message` line a mistake."""


class UnreadableError(ScenarioError):
    """A file that cannot be read as text, and `why`."""

    def __init__(self, path: pathlib.Path, why: str) -> None:
        super().__init__(f"{path}:1:1: error: {why}")
        self.why = why


@dataclass(frozen=True, slots=True)
class Source:
    """A scenario's document with what it extends merged into it; `found` is what is wrong with the files as YAML.

    `readable` is False where a file could not be read at all: nothing else can be said then.
    """

    document: Document
    found: tuple[Finding, ...] = ()
    readable: bool = True


def read_text(path: pathlib.Path) -> str:
    """The text of a scenario file; ScenarioError where there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UnreadableError(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(path, f"not UTF-8 at byte {error.start}; save it as UTF-8") from None


def refuse_another_kind(wanted: str, document: Document, path: pathlib.Path) -> None:
    """ScenarioError, with the command that takes it, for a document that is known to be no `wanted` of _KINDS."""
    data = document.data
    if not isinstance(data, dict):
        return
    steps = data.get("steps")
    weighs = isinstance(steps, list) and any(isinstance(each, dict) and "setWeight" in each for each in steps)
    kind = str(data.get("kind", "plan" if weighs else "scenario" if steps else ""))
    what, command = _KINDS.get(kind, ("", ""))
    if what and kind != wanted:
        told = finding(document, ("kind",), f"{what} is no {wanted}; use: snapdrill {command} {path}")
        raise ScenarioError(f"{told.file or path}:{told}")


def read_source(text: str, path: pathlib.Path) -> Source:
    """The document of a file's text and of every file that it extends; relative names start at the file's folder.

    Maps are merged key by key, all else is replaced; `name` is not inherited.
    """
    return _read(text, path, (path.resolve(),))


def _read(text: str, path: pathlib.Path, chain: tuple[pathlib.Path, ...]) -> Source:
    document = parse(text)
    found = tuple(Finding(*problem.position, "", problem.message) for problem in document.problems)
    if document.data is None and found:  # its syntax is broken
        return Source(document, tuple(_with_hint(each, text) for each in found), readable=False)
    extends = document.data.get("extends") if isinstance(document.data, dict) else None
    if not isinstance(extends, str):  # where it is anything else the schema says so
        return Source(document, found)
    base = _base(document, path, extends, chain)
    return Source(_merged(base.document, document), found + base.found, base.readable)


def _with_hint(finding: Finding, text: str) -> Finding:
    """Braces mean a mapping inside braces: the most likely mistake with a reference."""
    lines = text.splitlines()
    if "${{" not in "".join(lines[max(0, finding.line - 2) : finding.line]):
        return finding
    return replace(finding, message=f'{finding.message}; inside {{ }} or [ ] write "${{{{ ... }}}}" in quotes')


def _base(document: Document, path: pathlib.Path, extends: str, chain: tuple[pathlib.Path, ...]) -> Source:
    """What `path` extends, with origins that name its file."""

    def refused(message: str) -> Source:
        return Source(Document(), (Finding(*document.where(("extends",)), "extends", message),), readable=False)

    base_path = path.parent / extends
    whole = base_path.resolve()
    if whole in chain:
        names = " -> ".join(each.name for each in (*chain[chain.index(whole) :], whole))
        return refused(f"a scenario that extends itself ({names}); remove one of these")
    try:
        text = read_text(base_path)
    except UnreadableError as error:
        return refused(f"{error.why} ({base_path}); it is relative to this file's folder")
    base = _read(text, base_path, (*chain, whole))
    _move_flag_file(base.document.data, base_path.parent, path.parent)
    found = tuple(each if each.file else replace(each, file=str(base_path)) for each in base.found)
    return replace(base, document=_stamped(base.document, str(base_path)), found=found)


def _move_flag_file(data: Any, old: pathlib.Path, new: pathlib.Path) -> None:
    """A flag file lies beside the file that names it."""
    flags = data.get("flags") if isinstance(data, dict) else None
    if isinstance(flags, dict) and isinstance(flags.get("file"), str):
        flags["file"] = os.path.relpath(old / flags["file"], new)


def _stamped(document: Document, file: str) -> Document:
    return Document(
        document.data,
        {path: _in_file(where, file) for path, where in document.keys.items()},
        {path: _in_file(where, file) for path, where in document.values.items()},
    )


def _in_file(where: tuple[int, int] | Origin, file: str) -> Origin:
    origin = Origin(*where)
    return origin if origin.file else origin._replace(file=file)


def _merged(base: Document, over: Document) -> Document:
    made = Document(problems=over.problems)
    inherited = dict(base.data) if isinstance(base.data, dict) else {}
    for name in NOT_INHERITED:
        inherited.pop(name, None)
    base = replace(base, data=inherited)
    made.data = _merge(base, over, made, (), base.data, over.data)
    return made


def _merge(base: Document, over: Document, made: Document, path: Path, below: Any, above: Any) -> Any:
    """The value at `path`, whose origins go into `made`."""
    if not isinstance(above, dict) or not isinstance(below, dict):
        _copy_origins(over, made, path, above)
        return above
    _copy_origin(over, made, path)
    data = {}
    for key in dict.fromkeys([*below, *above]):
        at = (*path, key)
        if key in above and key in below:
            data[key] = _merge(base, over, made, at, below[key], above[key])
        else:
            document, data[key] = (over, above[key]) if key in above else (base, below[key])
            _copy_origins(document, made, at, data[key])
    return data


def _copy_origins(document: Document, made: Document, path: Path, data: Any) -> None:
    for each in parts(data, path):
        _copy_origin(document, made, each)


def _copy_origin(document: Document, made: Document, path: Path) -> None:
    if path in document.keys:
        made.keys[path] = document.keys[path]
    made.values[path] = document.values[path]


def parts(data: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of a value and of everything in it."""
    yield path
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        yield from parts(value, (*path, key))
