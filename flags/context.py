"""What a flag is evaluated for: a sandbox's attributes, and which of them a context has at which moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from engine.errors import UserError

Moment = Literal["create", "resume", "pause", "checkpoint", "in-place"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
"""`in-place`: a checkpoint was asked for, and whether it is in place is decided before any sandbox is looked at."""

_FIELDS: dict[str, dict[str, str]] = {
    "sandbox": {
        "key": "sandbox",
        "template-id": "template",
        "sandbox-type": "sandbox_type",
        "kernel-version": "kernel_version",
        "firecracker-version": "firecracker_version",
        "envd-version": "envd_version",
    },
    "team": {"key": "team"},
    "template": {"key": "template"},
    "cluster": {"key": "cluster"},
    "deployment": {"key": "deployment"},
    "orchestrator": {"key": "orchestrator", "commit": "commit"},
    "service": {"key": "service"},
}
"""Each kind's attributes, with the field of SandboxAttributes that they are of."""
KINDS = tuple(_FIELDS)
ATTRIBUTES: dict[str, tuple[str, ...]] = {kind: tuple(fields) for kind, fields in _FIELDS.items()}
"""The attributes that a context of each kind can have."""

Attribute = str | bool | int | float
Shape = Mapping[str, tuple[str, ...]]
"""The kinds of a context, each with its attributes."""
ValueType = Literal["text", "whole", "fraction", "boolean"]
"""Of an attribute's value; a `fraction` is a number with decimal places, which no share can be drawn by."""
TEXT: frozenset[ValueType] = frozenset({"text"})
Types = Mapping[tuple[str, str], frozenset[ValueType]]
"""The types that the values of a kind's attribute have, where they are not all text."""


@dataclass(frozen=True, slots=True)
class SandboxAttributes:
    """Who a decision is for. Versions are bare semantic ones, for LaunchDarkly's semVer operators.

    `orchestrator` is the node's id, `commit` the version of the program that runs there. `absent` names the fields
    that are not known: no context has them. `others` are further attributes by name: of the sandbox, or, written
    `team.name`, of another kind.
    """

    sandbox: str
    template: str
    team: str
    cluster: str = "local"
    deployment: str = "snapdrill"
    service: str = "orchestrator"
    sandbox_type: str = "default"
    kernel_version: str = "6.1.158"
    firecracker_version: str = "1.14.1"
    envd_version: str = "0.4.0"
    orchestrator: str = "node-1"
    commit: str = "0000000"
    absent: tuple[str, ...] = ()
    others: tuple[tuple[str, Attribute], ...] = ()


NAMES = {each.name.replace("_", "-"): each.name for each in fields(SandboxAttributes)[:-2]}
"""What tables and options call each field."""
OF_A_GROUP = (
    *("sandbox_type", "kernel_version", "firecracker_version", "envd_version"),
    *("deployment", "service", "orchestrator", "commit"),
)
"""What a fleet may say of the sandboxes of a group, beside their template, team and cluster."""
DEFAULTS = SandboxAttributes("", "", "")
"""What a fleet does not say."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Which kinds and attributes a context has at each moment; `written` is what a file says of it."""

    written: Any
    shapes: Mapping[Moment, Shape]
    types: Types = field(default_factory=dict)

    def context(self, attributes: SandboxAttributes, moment: Moment) -> dict[str, Any]:
        """The multi-kind context in LaunchDarkly's JSON form; a kind whose key is not known is left out."""
        made: dict[str, Any] = {"kind": "multi"}
        for kind, names in self.shapes[moment].items():
            known = {name: field for name in names if (field := _FIELDS[kind][name]) not in attributes.absent}
            if "key" in known:
                made[kind] = {name: getattr(attributes, field) for name, field in known.items()}
        for name, value in attributes.others:
            kind, attribute = kind_and_name(name)
            if kind in made:
                made[kind].setdefault(attribute, value)
        return made


def kind_and_name(word: str) -> tuple[str, str]:
    """`team.name` is an attribute of the team; a name without a kind before its dot is one of the sandbox."""
    kind, dot, name = word.partition(".")
    return (kind, name) if dot and name and kind in KINDS else ("sandbox", word)


_RESERVED = ("kind", "key", "_meta")


def further_problem(word: str, value: Any) -> str | None:
    """Why LaunchDarkly takes no such further attribute, as SandboxAttributes writes it; None where it does."""
    _, name = kind_and_name(word)
    if name in _RESERVED:
        return f'no attribute can be named "{name}"'
    if name == "anonymous" and not isinstance(value, bool):
        return "anonymous is true or false, which CSV cannot say"
    if name == "name" and not isinstance(value, str):
        return "a name is text"
    if isinstance(value, str | bool | int | float) and (not isinstance(value, float) or math.isfinite(value)):
        return None
    return "expected text, a number, true or false"


def type_of(value: Attribute) -> ValueType:
    """Of one value."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    return "whole" if isinstance(value, int) else "fraction"


def further_types(fleet: Iterable[SandboxAttributes]) -> dict[str, frozenset[ValueType]]:
    """The further attributes of these sandboxes, each with the types of its values."""
    found: dict[str, set[ValueType]] = {}
    for each in fleet:
        for word, value in each.others:
            found.setdefault(word, set()).add(type_of(value))
    return {word: frozenset(types) for word, types in found.items()}


def with_further(contexts: Contexts, found: Mapping[str, frozenset[ValueType]]) -> Contexts:
    """What lint may expect where sandboxes have these further attributes, as further_types() finds them."""
    further: dict[str, tuple[str, ...]] = {}
    types: dict[tuple[str, str], frozenset[ValueType]] = {}
    for word, of_it in found.items():
        kind, name = kind_and_name(word)
        further[kind] = (*further.get(kind, ()), name)
        types[kind, name] = of_it | TEXT if name in ATTRIBUTES[kind] else of_it
    shapes = {
        moment: {kind: (*known, *(each for each in further.get(kind, ()) if each not in known))
                 for kind, known in shape.items()}
        for moment, shape in contexts.shapes.items()
    }  # fmt: skip
    return Contexts(contexts.written, shapes, types)


def field_of(kind: str, attribute: str) -> str | None:
    """The field of SandboxAttributes that an attribute of a kind has its value from; None for a further one."""
    return _FIELDS.get(kind, {}).get(attribute)


def _whole(*kinds: str) -> Shape:
    return {kind: ATTRIBUTES[kind] for kind in kinds}


_AT_A_PAUSE = _whole("sandbox", "deployment", "orchestrator")
_WITH_TEAM = _whole("sandbox", "team", "deployment", "orchestrator")
_OF_NO_SANDBOX = _whole("deployment", "orchestrator")
ORIGINAL = Contexts(
    "original",
    {
        "create": _WITH_TEAM,
        "resume": _WITH_TEAM,
        "pause": _AT_A_PAUSE,
        "checkpoint": _AT_A_PAUSE,
        "in-place": _OF_NO_SANDBOX,
    },
)
"""As the original does: a flag learns the team at create and resume, never at a pause or checkpoint; whether a
checkpoint is in place is decided without any sandbox."""
ALL = Contexts("all", dict.fromkeys(MOMENTS, _whole(*KINDS)))
"""Every kind at every moment."""
PRESETS = {"original": ORIGINAL, "all": ALL}


def contexts_of(written: Any) -> Contexts:
    """`original`, `all`, or a table such as {pause: [sandbox, team, orchestrator.commit]}.

    A kind has all its attributes unless some are named; a moment that is not named is as in the original. UserError
    for anything else.
    """
    if isinstance(written, str) and written in PRESETS:
        return PRESETS[written]
    if not isinstance(written, Mapping) or not written:
        raise UserError("contexts are original, all, or a table such as {pause: [sandbox, team]}")
    shapes = dict(ORIGINAL.shapes)
    for moment, words in written.items():
        if moment not in MOMENTS:
            raise UserError(f'contexts: no moment "{moment}"; use one of: {", ".join(MOMENTS)}')
        shapes[moment] = _shape(moment, words)
    return Contexts({moment: list(words) for moment, words in written.items()}, shapes)


def _shape(moment: str, words: Any) -> Shape:
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) for word in words):
        raise UserError(f"contexts: {moment} takes a list of kinds, such as [sandbox, team]")
    shape: dict[str, tuple[str, ...]] = {}
    for word in words:
        kind, dot, name = word.partition(".")
        if kind not in KINDS:
            raise UserError(f'contexts: no kind "{kind}"; use one of: {", ".join(KINDS)}')
        if dot and name not in ATTRIBUTES[kind]:
            raise UserError(f'contexts: {kind} has no "{name}"; use one of: {", ".join(ATTRIBUTES[kind])}')
        named = {"key", name} if dot else set(ATTRIBUTES[kind])
        shape[kind] = tuple(each for each in ATTRIBUTES[kind] if each in named | {*shape.get(kind, ())})
    return shape


def has_memfd(firecracker_version: str) -> bool:
    """True from Firecracker 1.14 on: older ones cannot give their guest's memory away, whatever `use-memfd` says."""
    numbers = [int(part) for part in firecracker_version.lstrip("v").split(".")[:2] if part.isdecimal()]
    return numbers >= [1, 14]
