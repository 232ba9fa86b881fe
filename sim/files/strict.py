"""Strict models of outside documents, and their mistakes as findings: where, what, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from flags.catalog import did_you_mean
from sim.files.units import show
from sim.files.yaml import Document, Path

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "a string",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


@dataclass(frozen=True, order=True, slots=True)
class Finding:
    """One mistake in a document; line and column are 1-based, `path` is empty for the document as a whole.

    `file` is empty for the document's own file.
    """

    line: int
    column: int
    path: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: error: " + (f"{self.path}: " if self.path else "") + self.message


class Strict(BaseModel):
    """A frozen model that converts nothing and refuses unknown keys, naming the nearest known one."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_known_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            known = [field.alias or name for name, field in cls.model_fields.items() if name != "kind"]
            lines = [_with_known_keys(line, known) for line in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(error.title, lines) from None


def _with_known_keys(line: ErrorDetails, known: Iterable[str]) -> InitErrorDetails:
    kind: str | PydanticCustomError = line["type"]
    context = line.get("ctx", {})
    if kind == "extra_forbidden" and len(line["loc"]) == 1:
        hint = did_you_mean(str(line["loc"][0]), known)
        kind = PydanticCustomError("unknown_key", "unknown key; {hint}", {"hint": hint})
    elif kind == "unknown_key":
        kind = PydanticCustomError("unknown_key", "unknown key; {hint}", context)
    return InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=context)


def findings(error: ValidationError, document: Document) -> list[Finding]:
    """Each of pydantic's errors at its place in the document, in the document's order of lines."""
    lines = error.errors(include_url=False)
    return sorted({_finding(line, document) for line in lines if not _follows_from_others(line)})


def _follows_from_others(line: ErrorDetails) -> bool:
    """A list or mapping is "too short" for pydantic also when each of its entries is mistaken."""
    return line["type"] == "too_short" and bool(line["input"])


def finding(document: Document, path: Path, message: str, *, key: bool = False) -> Finding:
    """A finding at the value of `path`, or at its key."""
    origin = document.origin(path, key=key)
    return Finding(origin.line, origin.column, dotted(path), message, origin.file)


def dotted(path: Path) -> str:
    """`("steps", 3, "pause")` as people write it: `steps[3].pause`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _finding(line: ErrorDetails, document: Document) -> Finding:
    path = _known_part(line["loc"], document)
    if line["type"] == "missing":
        path, shown = _known_part(line["loc"][:-1], document), (*path, str(line["loc"][-1]))
        origin = document.origin(path)
        return Finding(origin.line, origin.column, dotted(shown), "missing; it is required", origin.file)
    at_key = line["type"] == "unknown_key" or line["loc"][-1:] == ("[key]",)
    return finding(document, path, _message(line), key=at_key)


def _known_part(loc: Path, document: Document) -> Path:
    """`loc` without the steps that are pydantic's own (names of union members, `[key]`), not the document's."""
    path: Path = ()
    for step in loc:
        if (*path, step) in document.values:
            path = (*path, step)
    return path


def _message(line: ErrorDetails) -> str:
    kind, context, given = line["type"], line.get("ctx", {}), show(line["input"])
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {given}"
    if kind == "too_short":
        return "expected at least one entry, got none"
    if kind in _LIMITS:
        words, name = _LIMITS[kind]
        return f"expected {words} {context[name]:g}, got {given}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        return f"unknown value {given}; {did_you_mean(str(line['input']), choices)}"
    if kind == "value_error":
        return str(context["error"])
    return line["msg"]
