"""The files that people write: their text, their kind, and what a scenario extends as one document."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.reading import MOST_BYTES, read_regular
from flags.document import DocumentError, Mistake, Path, Position
from sim.files.yaml import Document, Origin, parse

Kind = Literal["scenario", "plan", "fleet"]
NOT_INHERITED = ("name", "extends")
"""Keys that a file does not take from the file that it extends."""
_KINDS: dict[str, tuple[str, str]] = {
    "scenario": ("a scenario", "run"),
    "plan": ("a rollout plan", "rehearse"),
    "fleet": ("a fleet", "forecast"),
}
"""The documents by their `kind`, and which command takes them."""


@dataclass(frozen=True, slots=True)
class Source:
    """The text that a scenario, plan or fleet was read from. A model without a source was made in code.

    `title`, `slug`, `chosen` and `variables` say what a scenario's matrix and variables made of it. `guest` is what
    `--guest` made of every sandbox. `broken` are places whose mistake is known already: further mistakes there only
    follow from it.
    """

    path: pathlib.Path = pathlib.Path("-")
    text: str = ""
    document: Document = field(default_factory=Document)
    kind: Kind = "scenario"
    title: str | None = None
    slug: str | None = None
    chosen: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    variables: Mapping[str, str | bool | int | float] = field(default_factory=dict)
    guest: str | None = None
    broken: frozenset[Origin] = frozenset()


def read_text(path: pathlib.Path, most: int = MOST_BYTES) -> str:
    """The text of a regular file of at most `most` bytes; DocumentError where there is none."""
    try:
        return read_regular(path, most).decode("utf-8-sig")
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}; save it as UTF-8"
    raise DocumentError(path, [Mistake(Position(), "", what)])


def kind_of(document: Document) -> str | None:
    """The document's `kind`; None if it has none."""
    kind = document.data.get("kind") if isinstance(document.data, dict) else None
    return kind if isinstance(kind, str) else None


def refuse_another_kind(wanted: Kind, document: Document, path: pathlib.Path) -> None:
    """DocumentError, naming the command for its kind, if the document is clearly not a `wanted`."""
    data = document.data
    if not isinstance(data, dict):
        return
    steps = data.get("steps")
    weighs = isinstance(steps, list) and any(isinstance(each, dict) and "setWeight" in each for each in steps)
    kind = str(data.get("kind", "plan" if weighs else "scenario" if steps else ""))
    what, command = _KINDS.get(kind, ("", ""))
    if what and kind != wanted:
        text = f"this is {what}, not a {wanted}; use: snapdrill {command} {path}"
        raise DocumentError(path, [document.mistake(("kind",), text)])


def read_scenario(text: str, path: pathlib.Path) -> Document:
    """The document of a file's text and of every file that it extends; relative names start at the file's folder.

    Maps are merged key by key, anything else is replaced; `name` is not inherited. It is not readable if any of the
    files is not.
    """
    return _read(text, path, (path.resolve(),))


def _read(text: str, path: pathlib.Path, chain: tuple[pathlib.Path, ...]) -> Document:
    document = parse(text)
    if not document.is_readable:
        return Document(mistakes=[_with_hint(each, text) for each in document.mistakes])
    extends = document.data.get("extends") if isinstance(document.data, dict) else None
    if not isinstance(extends, str):  # the schema reports any other type
        return document
    base = _base(document, path, extends, chain)
    found = document.mistakes + base.mistakes
    return replace(_merged(base, document), mistakes=found) if base.is_readable else Document(mistakes=found)


def _with_hint(mistake: Mistake, text: str) -> Mistake:
    """Braces mean a mapping inside braces: the most likely mistake with a reference."""
    line = mistake.position.line
    if "${{" not in "".join(text.splitlines()[max(0, line - 2) : line]):
        return mistake
    return replace(mistake, hint='inside { } or [ ] write "${{ ... }}" in quotes')


def _base(document: Document, path: pathlib.Path, extends: str, chain: tuple[pathlib.Path, ...]) -> Document:
    """The file that `path` extends, with origins that name it; not readable if it cannot be extended."""

    def refused(text: str) -> Document:
        return Document(mistakes=[document.mistake(("extends",), text)])

    base_path = path.parent / extends
    try:
        whole = base_path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, links in a circle
        return refused(f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if whole in chain:
        names = " -> ".join(each.name for each in (*chain[chain.index(whole) :], whole))
        return refused(f"this scenario extends itself ({names}); remove one of these")
    try:
        text = read_text(base_path)
    except DocumentError as error:
        (why,) = error.mistakes
        return refused(f"{why.text} ({base_path}); it is relative to this file's folder")
    base = _read(text, base_path, (*chain, whole))
    _move_flag_file(base.data, base_path.parent, path.parent)
    return _stamped(base, str(base_path))


def _move_flag_file(data: Any, old: pathlib.Path, new: pathlib.Path) -> None:
    """A flag file lies beside the file that names it."""
    flags = data.get("flags") if isinstance(data, dict) else None
    if isinstance(flags, dict) and isinstance(flags.get("file"), str):
        flags["file"] = os.path.relpath(old / flags["file"], new)


def _stamped(document: Document, file: str) -> Document:
    return Document(
        document.data,
        {path: _in_file(origin, file) for path, origin in document.keys.items()},
        {path: _in_file(origin, file) for path, origin in document.values.items()},
        [each if each.file else replace(each, file=file) for each in document.mistakes],
    )


def _in_file(origin: Origin, file: str) -> Origin:
    return origin if origin.file else origin._replace(file=file)


def _merged(base: Document, over: Document) -> Document:
    made = Document()
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
