"""`vars` and `matrix` of a scenario file: what `${{ vars.NAME }}` and `${{ matrix.NAME }}` stand for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from flags.catalog import did_you_mean
from flags.document import Mistake, Path
from sim.files.strict import part
from sim.files.units import show
from sim.files.yaml import Document, Origin, core_scalar

MOST_COMBINATIONS = 256
UNRESOLVED = frozenset({"extends", "vars", "matrix"})
"""Keys that are dropped once references are resolved; they cannot contain references themselves."""

_LITERAL = UNRESOLVED | {"Matrix", "name"}
_LONGEST_SLUG = 60
_NAME = "[A-Za-z_][A-Za-z0-9_-]*"
_REFERENCE = re.compile(r"\$\{\{(.*?)\}\}")
_INSIDE = re.compile(rf"\s*(vars|matrix)\.({_NAME})\s*")
_FORM = "write ${{ matrix.NAME }} or ${{ vars.NAME }}"

Scalar = str | bool | int | float


def _name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f'expected a name of letters, digits, "_" and "-", got {show(name)}')
    return name


def _one_value(value: Any) -> Any:
    if not isinstance(value, Scalar):
        raise ValueError(f"expected a string, a number, true or false, got {show(value)}")  # noqa: TRY004 - a mistake
    return value


Name = Annotated[str, AfterValidator(_name)]
_Written = Annotated[Scalar, BeforeValidator(_one_value, json_schema_input_type=Scalar)]
Variables = Mapping[Name, _Written]
"""Names that the command line may give other values, with their defaults."""


class Matrix(BaseModel):
    """Names, each with a list of values: the file makes one scenario for each combination, except the excluded ones.

    Each entry of `exclude` gives some names a value, and leaves out every combination that has all of these values.
    """

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    __pydantic_extra__: dict[Name, Annotated[tuple[_Written, ...], Field(strict=False, min_length=1)]]
    exclude: Annotated[tuple[Annotated[Mapping[Name, _Written], Field(min_length=1)], ...], Field(strict=False)] = ()


_VARIABLES: TypeAdapter[Mapping[str, Scalar]] = TypeAdapter(Variables)
_MATRIX = TypeAdapter(Matrix)


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a name; `origin` is None for a value of the command line."""

    value: Scalar
    origin: Origin | None


Values = Mapping[str, Value]
"""By what a reference says: `matrix.punch`, `vars.memory`."""


@dataclass
class Resolved:
    """A document without references; `used` are those that it had, `broken` the places of those that name nothing.

    `unknown` are sections that have a mistake themselves.
    """

    document: Document
    unknown: frozenset[str] = frozenset()
    used: set[str] = field(default_factory=set)
    broken: set[Origin] = field(default_factory=set)
    found: list[Mistake] = field(default_factory=list)


def _variables(document: Document, given: Mapping[str, str]) -> dict[str, Value] | None:
    """The declared names, with the command line's values; None if `vars` has a mistake."""
    declared = part(_VARIABLES, document.data.get("vars", {}))
    if declared is None:
        return None
    return {
        f"vars.{name}": Value(_scalar(given[name]), None)
        if name in given
        else Value(default, document.origin(("vars", name)))
        for name, default in declared.items()
    }


def _scalar(text: str) -> Scalar:
    """Read as the file would be, except that no text is an empty string."""
    value = core_scalar(text)
    return text if value is None else value


@dataclass(frozen=True, slots=True)
class Draft:
    """One scenario of a file: what its matrix chose, the document that results, and a name that folders can have."""

    chosen: Values
    values: Values
    resolved: Resolved
    slug: str


def expand(document: Document, given: Mapping[str, str]) -> tuple[list[Draft], list[Mistake]]:
    """A draft for each combination of the matrix, and what is wrong with `vars`, `matrix` and the references.

    `given` are values from the command line; names that the file does not declare are another file's.
    """
    if not isinstance(document.data, dict):
        return [Draft({}, {}, Resolved(document), "")], []
    declared, combined = _variables(document, given), _combinations(document)
    chosen, found = combined or ([{}], [])
    unknown = frozenset({"vars"} if declared is None else ()) | frozenset({"matrix"} if combined is None else ())
    everything = [(declared or {}) | each for each in chosen]
    resolved = [_resolved(document, each, unknown) for each in everything]
    used = set().union(*(each.used for each in resolved))
    if not unknown and chosen and not any(each.broken for each in resolved):
        found = [*found, *_unused(document, used)]
    names = _slugs(str(document.data.get("name", "")), chosen)
    drafts = [Draft(*each) for each in zip(chosen, everything, resolved, names, strict=True)]
    return drafts, [*found, *(each for draft in drafts for each in draft.resolved.found)]


def _combinations(document: Document) -> tuple[list[dict[str, Value]], list[Mistake]] | None:
    """Every combination of the matrix, in the file's order, one without a value where there is no matrix; mistakes.

    None if the schema will refuse it.
    """
    matrix = part(_MATRIX, document.data.get("matrix", {}))
    if matrix is None:
        return None
    lists: dict[str, Sequence[Scalar]] = matrix.model_extra or {}
    found = [*_repeated(document, lists), *_mistaken_excludes(document, lists, matrix.exclude)]
    count = 1
    for values in lists.values():
        count *= len(values)
    if count > MOST_COMBINATIONS:
        message = f"{count} combinations are too many to run; at most {MOST_COMBINATIONS}"
        return [], [*found, document.mistake(("matrix",), message, key=True)]
    made = [
        {f"matrix.{name}": value for name, value in zip(lists, chosen, strict=True)}
        for chosen in itertools.product(*(_values(document, name, values) for name, values in lists.items()))
    ]
    kept = [each for each in made if not any(_meets(each, entry) for entry in matrix.exclude)]
    if not kept:
        found.append(document.mistake(("matrix", "exclude"), "every combination is excluded; nothing is left to run"))
    return kept, found


def _values(document: Document, name: str, values: Sequence[Scalar]) -> list[Value]:
    return [Value(value, document.origin(("matrix", name, index))) for index, value in enumerate(values)]


def _repeated(document: Document, lists: Mapping[str, Sequence[Scalar]]) -> Iterator[Mistake]:
    for name, values in lists.items():
        for index, value in enumerate(values):
            if any(_same(value, before) for before in values[:index]):
                yield document.mistake(("matrix", name, index), f"{show(value)} a second time; remove it")


def _mistaken_excludes(
    document: Document, lists: Mapping[str, Sequence[Scalar]], excludes: Sequence[Mapping[str, Scalar]]
) -> Iterator[Mistake]:
    for index, entry in enumerate(excludes):
        for name, value in entry.items():
            at: Path = ("matrix", "exclude", index, name)
            if name not in lists:
                yield document.mistake(at, f"no such name in matrix; {did_you_mean(name, lists)}", key=True)
            elif not any(_same(value, each) for each in lists[name]):
                yield document.mistake(at, f"matrix.{name} has no {show(value)}; nothing is excluded")


def _meets(combination: Values, entry: Mapping[str, Scalar]) -> bool:
    return all(
        f"matrix.{name}" in combination and _same(combination[f"matrix.{name}"].value, value)
        for name, value in entry.items()
    )


def _same(one: Scalar, other: Scalar) -> bool:
    """Equal and of the same type: `true` is not `1`."""
    return type(one) is type(other) and one == other


def _unused(document: Document, used: set[str]) -> list[Mistake]:
    """Names of the file itself that nothing refers to; a file that it extends may declare unused ones."""
    found = []
    for section in ("matrix", "vars"):
        names = document.data.get(section)
        for name in names if isinstance(names, dict) else ():
            at = (section, name)
            if f"{section}.{name}" not in used | {"matrix.exclude"} and not document.origin(at, key=True).file:
                message = f"nothing uses it; write ${{{{ {section}.{name} }}}} where it belongs, or remove it"
                found.append(document.mistake(at, message, key=True))
    return found


def _resolved(document: Document, values: Values, unknown: frozenset[str]) -> Resolved:
    """Every reference replaced by its value, which keeps its type if the reference stands alone.

    The `unknown` sections have mistakes, so references to them are not checked.
    """
    made = Document(None, document.keys, dict(document.values), document.mistakes)
    resolved = Resolved(made, unknown=unknown)
    made.data = _resolve(document, values, resolved, (), document.data)
    return resolved


def _resolve(document: Document, values: Values, resolved: Resolved, path: Path, data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _resolve(document, values, resolved, (*path, key), each) for key, each in data.items()}
    if isinstance(data, list):
        return [_resolve(document, values, resolved, (*path, index), each) for index, each in enumerate(data)]
    if not isinstance(data, str) or "${{" not in data:
        return data
    references = _references(document, values, resolved, path, data)
    if references is None or not values.keys() >= set(references):
        resolved.broken.add(document.origin(path))
        return data
    resolved.used |= set(references)
    if _REFERENCE.fullmatch(data) and len(references) == 1:
        whole = values[references[0]]
        if whole.origin is not None:
            resolved.document.values[path] = whole.origin
        return whole.value
    return _REFERENCE.sub(lambda found: _text(values[found[1].strip()].value), data)


def _references(document: Document, values: Values, resolved: Resolved, path: Path, text: str) -> list[str] | None:
    """What the references in `text` name; None, with a mistake, where one is mistaken."""
    wrong = None
    inside = [_INSIDE.fullmatch(each) for each in _REFERENCE.findall(text)]
    names = [f"{each[1]}.{each[2]}" for each in inside if each]
    if path and path[0] in UNRESOLVED:
        wrong = f"no reference can stand in {path[0]}; write the value out"
    elif len(names) < len(inside) or "${{" in _REFERENCE.sub("", text):
        wrong = f"{show(text)} is no reference; {_FORM}"
    elif missing := next((name for name in names if name not in values and not _in(name, resolved.unknown)), None):
        wrong = f"nothing declares {missing}; {did_you_mean(missing, values) if values else 'add it to vars or matrix'}"
    if wrong:
        resolved.found.append(document.mistake(path, wrong))
    return None if wrong else names


def _in(name: str, sections: frozenset[str]) -> bool:
    return name.partition(".")[0] in sections


def _text(value: Scalar) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def title(name: str, combination: Values) -> str:
    """`cache[punch=0%,cache=disk]`; the name alone without a matrix."""
    chosen = ",".join(f"{key.partition('.')[2]}={_text(each.value)}" for key, each in combination.items())
    return f"{name}[{chosen}]" if chosen else name


def _slugs(name: str, made: Sequence[Values]) -> list[str]:
    """A name that a folder can have for each combination: `cache-punch-0-cache-disk`, or numbered."""
    found = [re.sub(r"[^a-z0-9.]+", "-", title(name, each).lower()).strip("-.") if each else name for each in made]
    if len(set(found)) == len(found) and max(map(len, found), default=0) <= _LONGEST_SLUG:
        return found
    return [f"{name[: _LONGEST_SLUG - 4]}-{number}" for number in range(1, len(found) + 1)]


def with_references(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a document whose values may be references, except inside `vars` and `matrix`."""
    reference = {"type": "string", "pattern": _REFERENCE.pattern, "description": f"A reference: {_FORM}."}
    parts = {
        name: {key: each if key in _LITERAL else _or_reference(each) for key, each in schema[name].items()}
        for name in ("$defs", "properties")
    }
    return {**schema, **parts, "$defs": {**parts["$defs"], "Reference": reference}}


def _or_reference(schema: Any) -> Any:
    """A scalar that is not just any string, or a reference; and so inside lists, mappings and alternatives."""
    if isinstance(schema, list):
        return [_or_reference(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if {"const", "enum", "pattern"} & schema.keys() or schema.get("type") in {"integer", "number", "boolean"}:
        return {"anyOf": [schema, {"$ref": "#/$defs/Reference"}]}
    inside = {
        name: each for name, each in schema.items() if name in {"items", "anyOf", "oneOf", "additionalProperties"}
    }
    made = schema | {name: _or_reference(each) for name, each in inside.items()}
    if isinstance(properties := schema.get("properties"), dict):
        made["properties"] = {name: _or_reference(each) for name, each in properties.items()}
    return made
