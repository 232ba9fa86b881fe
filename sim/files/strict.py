"""Strict models of what people write, and pydantic's errors as mistakes: where, what, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from flags.catalog import did_you_mean
from flags.document import Mistake, Path
from sim.files.units import show
from sim.files.yaml import Document

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


class Strict(BaseModel):
    """A frozen model that converts nothing and refuses unknown keys, naming the nearest known one."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _name_known_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            found = error.errors(include_url=False)
            if not any(map(_is_of_an_own_key, found)):
                raise
            known = [field.alias or name for name, field in cls.model_fields.items() if name != "kind"]
            lines = [_with_known_keys(line, known) for line in found]
            raise ValidationError.from_exception_data(error.title, lines) from None


def _is_of_an_own_key(line: ErrorDetails) -> bool:
    """True for a key that the model itself does not know, and none below it."""
    return line["type"] == "extra_forbidden" and len(line["loc"]) == 1


def _with_known_keys(line: ErrorDetails, known: Iterable[str]) -> InitErrorDetails:
    kind: str | PydanticCustomError = line["type"]
    context = line.get("ctx", {})
    if _is_of_an_own_key(line):
        hint = did_you_mean(str(line["loc"][0]), known)
        kind = PydanticCustomError("unknown_key", "unknown key; {hint}", {"hint": hint})
    elif kind == "unknown_key":
        kind = PydanticCustomError("unknown_key", "unknown key; {hint}", context)
    return InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=context)


def mistakes(error: ValidationError, document: Document) -> list[Mistake]:
    """Each of pydantic's errors at its place in the document."""
    lines = error.errors(include_url=False)
    return [_mistake(line, document) for line in lines if not _follows_from_others(line)]


def _follows_from_others(line: ErrorDetails) -> bool:
    """A list or mapping is "too short" for pydantic also when each of its entries is mistaken."""
    return line["type"] == "too_short" and bool(line["input"])


def _mistake(line: ErrorDetails, document: Document) -> Mistake:
    path = _known_part(line["loc"], document)
    if line["type"] == "missing":
        parent = _known_part(line["loc"][:-1], document)
        return document.mistake(parent, "missing; it is required", shown=(*path, str(line["loc"][-1])))
    at_key = line["type"] == "unknown_key" or line["loc"][-1:] == ("[key]",)
    return document.mistake(path, _message(line), key=at_key)


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
        return f"expected {words} {_exact(context[name])}, got {given}"
    if kind == "less_than":
        return f"expected less than {context['lt']}, got {given}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        if str(line["input"]) in choices:  # a string where the value is a number
            return f"expected {line['input']}, got {given}; remove the quotes"
        return f"unknown value {given}; {did_you_mean(str(line['input']), choices)}"
    if kind == "value_error":
        return str(context["error"])
    return line["msg"]


def _exact(limit: float) -> str:
    """An integer in full: `:g` rounds one of more than six digits."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def part(adapter: TypeAdapter[Any], data: Any) -> Any:
    """A part of a document, validated by the adapter; None if that part has a mistake."""
    try:
        return adapter.validate_python(data, context={})
    except ValidationError:
        return None


def one_key(models: Mapping[str, type[BaseModel]], bodies: Mapping[str, str], example: str) -> BeforeValidator:
    """A step as people write it, one key and its settings (`{pause: {...}}`), as the fields of the key's model.

    `bodies` are the kinds that are written as one value, `tick: 10`, and the field that holds it.
    """

    def fields(value: Any) -> Any:
        if isinstance(value, tuple(models.values())):
            return value
        if not isinstance(value, Mapping) or len(value) != 1:
            found = ", ".join(map(str, value)) if isinstance(value, Mapping) else show(value)
            raise ValueError(f"a step is one key and its settings, such as `{example}`; found {found}")
        ((kind, body),) = value.items()
        if kind not in models:
            raise ValueError(f'unknown step "{kind}"; {did_you_mean(str(kind), models)}')
        if kind in bodies:
            return {"kind": kind, bodies[kind]: body}
        if not isinstance(body, Mapping):
            raise ValueError(f"{kind} takes settings; write `{kind}: {{}}` for the defaults")  # noqa: TRY004 - a mistake
        if "kind" in body:
            raise ValueError(f'{kind} has no setting "kind"; remove it')
        return {**body, "kind": kind}

    return BeforeValidator(fields)
