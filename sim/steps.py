"""The steps of a scenario: one frozen model a kind, each with `kind` for the runner to switch on."""

from __future__ import annotations

import errno as errno_names
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    create_model,
    model_validator,
)

from flags.catalog import FLAGS, Flag, did_you_mean
from flags.inline import InlineValue, Rollout, RolloutKind
from sim.places import AtChunk, AtWord, FaultPoint, Place, in_words_of_delay
from sim.strict import Strict
from sim.units import PERCENT, Duration, Percent, parse_percent, show

State = Literal["running", "pausing", "paused", "checkpointing", "resuming", "discarded", "killed"]
AtLeastOne = Annotated[int, Field(ge=1)]
ChunkIndex = Annotated[int, Field(ge=0)]

_COMPARISONS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`>=1`: what a count must satisfy."""

    operator: str
    number: int

    def holds(self, count: int) -> bool:
        return bool(_COMPARISONS[self.operator](count, self.number))

    def __str__(self) -> str:
        return f"{self.operator}{self.number}"


def _comparison(value: Any) -> Any:
    if isinstance(value, Comparison):
        return value
    found = re.fullmatch(r"(>=|<=|==|!=|>|<|)\s*([0-9]{1,9})", str(value))
    if found is None or isinstance(value, bool):
        raise ValueError(f'expected a comparison such as ">=1", "3" or "<2", got {show(value)}')
    return Comparison(found[1] or "==", int(found[2]))


Count = Annotated[Comparison, BeforeValidator(_comparison, json_schema_input_type=str | int)]


class _RolloutForm(Strict):
    rollout: Percent
    by: RolloutKind = "sandbox"


def _object_form(flag: Flag) -> type[Strict]:
    """What a JSON flag's object may hold, as the catalogue says."""
    kinds: dict[type, Any] = {bool: bool, int: Annotated[int, Field(ge=0)]}
    fields: dict[str, Any] = {each.name: (kinds[type(each.default)], each.default) for each in flag.settings}
    return create_model(f"{flag.key} object", __base__=Strict, **fields)


def _object_rollout_form(key: str, form: type[Strict]) -> type[_RolloutForm]:
    fields: dict[str, Any] = {"value": (form, None)}
    return create_model(f"{key} rollout", __base__=_RolloutForm, **fields)


_OBJECT_FORMS = {each.key: _object_form(each) for each in FLAGS.values() if each.type == "json"}
_OBJECT_ROLLOUT_FORMS = {key: _object_rollout_form(key, form) for key, form in _OBJECT_FORMS.items()}


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A flag's value together with the key that says of which type it must be."""

    key: str
    value: Any


def _with_keys(values: Any) -> Any:
    return {key: _Keyed(key, value) for key, value in values.items()} if isinstance(values, Mapping) else values


def _flag_value(given: Any, info: ValidationInfo) -> Any:
    key, value = given.key, given.value
    if isinstance(value, Rollout) or key not in FLAGS:
        return value
    form, rollout_form = _OBJECT_FORMS.get(key), _OBJECT_ROLLOUT_FORMS.get(key, _RolloutForm)
    if form is None and isinstance(value, bool):
        return value
    if isinstance(value, Mapping) and (form is None or "rollout" in value):
        return _rollout(rollout_form.model_validate(value, context=info.context))
    if form is not None and isinstance(value, Mapping):
        return form.model_validate(value, context=info.context).model_dump(exclude_unset=True)
    forms = "true, false or {rollout: 50%, by: sandbox}" if form is None else "{enabled: true} or {rollout: 50%}"
    raise ValueError(f"expected {forms}, got {show(value)}")


def _rollout(form: Any) -> Rollout:
    """Of either rollout form; only that of a JSON flag has a value."""
    value = getattr(form, "value", None)
    return Rollout(form.rollout, form.by, value.model_dump(exclude_unset=True) if value else None)


def _flag_key(key: str) -> str:
    if key not in FLAGS:
        raise ValueError(f"unknown flag; {did_you_mean(key, FLAGS)}")
    return key


FlagKey = Annotated[str, AfterValidator(_flag_key)]
_FLAG_FORMS = reduce(operator.or_, [*_OBJECT_FORMS.values(), *_OBJECT_ROLLOUT_FORMS.values()], bool | _RolloutForm)
FlagValue = Annotated[InlineValue, PlainValidator(_flag_value, json_schema_input_type=_FLAG_FORMS)]
FlagValues = Annotated[Mapping[FlagKey, FlagValue], BeforeValidator(_with_keys)]
"""Flag values as a scenario writes them, each of its flag's type."""


def _errno(name: str) -> str:
    known = set(errno_names.errorcode.values())
    if name not in known:
        near = did_you_mean(name.upper(), known)
        raise ValueError(f"unknown errno; {near if near.startswith('did') else 'use a name such as EIO or ENOSPC'}")
    return name


def _states(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Errno = Annotated[str, AfterValidator(_errno)]
States = Annotated[
    tuple[State, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(_states, json_schema_input_type=State | list[State]),
]


class _AtChunkForm(Strict):
    chunk: ChunkIndex


def _at(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, AtChunk) or (isinstance(value, float) and info.context is None):
        return value
    if isinstance(value, Mapping):
        return AtChunk(_AtChunkForm.model_validate(value, context=info.context).chunk)
    if isinstance(value, str) and re.match(PERCENT, value):
        return parse_percent(value)
    if value not in get_args(AtWord):
        raise ValueError(f"unknown place {show(value)}; use {{chunk: 3}}, first, last, 50% or after_condemn")
    return value


At = Annotated[Place, BeforeValidator(_at, json_schema_input_type=_AtChunkForm | str)]


class Where(Strict):
    """A filter by what the last pause of a sandbox did: whether it punched."""

    punched: bool


class Selection(Strict):
    """Which sandboxes: those that match the glob, are in `state` and meet `where`; all three where given.

    An empty selection makes the run inconclusive unless `allow_empty`.
    """

    sandboxes: str = "*"
    state: State | None = None
    where: Where | None = None
    allow_empty: bool = False


class Tick(Strict):
    """Every running guest works for `ticks` ticks."""

    kind: Literal["tick"] = "tick"
    ticks: AtLeastOne


class Pause(Selection):
    """Pause the selected sandboxes, at most `concurrency` at a time; `deadline` in seconds, for the whole step.

    `until: settled` ends when every copy ended; `returned` when every pause answered, and claims no digest.
    """

    kind: Literal["pause"] = "pause"
    state: State | None = "running"
    concurrency: AtLeastOne = 4
    until: Literal["settled", "returned"] = "settled"
    deadline: Duration = 60.0


class Checkpoint(Selection):
    """Export the memory of the selected sandboxes while the same guests go on; `deadline` in seconds."""

    kind: Literal["checkpoint"] = "checkpoint"
    state: State | None = "running"
    deadline: Duration = 60.0


class Resume(Selection):
    """Resume the selected sandboxes from their newest snapshot; `deadline` in seconds."""

    kind: Literal["resume"] = "resume"
    state: State | None = "paused"
    deadline: Duration = 60.0


class Kill(Selection):
    """Kill the selected sandboxes, in whatever live state they are."""

    kind: Literal["kill"] = "kill"


class FlagStep(Strict):
    """Change flags; ends when the change is effective."""

    kind: Literal["flag"] = "flag"
    values: Annotated[FlagValues, Field(min_length=1)]


class Inject(Strict):
    """Arm a fault on every sandbox that matches, until `clear`, or until it fired `count` times on it.

    It fails the act with `errno`, or holds it up for `delay` seconds.
    """

    kind: Literal["inject"] = "inject"
    fault: FaultPoint
    errno: Errno | None = None
    delay: Duration | None = None
    at: At = "first"
    sandboxes: str = "*"
    count: AtLeastOne | None = None

    @model_validator(mode="after")
    def _fails_or_delays(self) -> Self:
        if self.errno is not None and self.delay is not None:
            raise ValueError("a fault fails or delays; remove errno or delay")
        return self

    @property
    def error(self) -> str:
        """What the fault gives: an errno name (EIO unless given), or `delay 300 ms`."""
        return in_words_of_delay(self.delay) if self.delay is not None else self.errno or "EIO"

    @property
    def errno_number(self) -> int:
        return int(getattr(errno_names, self.errno or "EIO"))


class Clear(Strict):
    """Disarm every fault."""

    kind: Literal["clear"] = "clear"


class CrashPoint(Strict):
    """The node dies at this act, just before it is done."""

    fault: FaultPoint
    chunk: ChunkIndex = 0


class Crash(Strict):
    """SIGKILL the node, at once without `at`; the next `restart` recovers.

    With `at`, the crash is armed here and fires in a later `pause` of a sandbox that matches.
    """

    kind: Literal["crash"] = "crash"
    at: CrashPoint | None = None
    sandboxes: str = "*"

    @model_validator(mode="after")
    def _a_crash_at_once_has_no_target(self) -> Self:
        if self.at is None and self.sandboxes != "*":
            raise ValueError("a crash without `at` kills the node at once; remove `sandboxes`, or add `at`")
        return self


class Restart(Strict):
    """Start the node again; it recovers what the crash left."""

    kind: Literal["restart"] = "restart"


class Wait(Strict):
    """Let the clock run on, in seconds."""

    kind: Literal["wait"] = "wait"
    seconds: Duration


class StateExpectation(Strict):
    """Every sandbox that matches is in one of `state`; and `counts` says how many of them are in which state."""

    sandboxes: str = "*"
    state: States | None = None
    counts: Annotated[Mapping[State, Count], Field(min_length=1)] | None = None
    allow_empty: bool = False

    @model_validator(mode="after")
    def _something_is_expected(self) -> Self:
        if self.state is None and self.counts is None:
            raise ValueError("nothing is expected; add state or counts")
        return self


class Expect(StateExpectation):
    """Judge states at this point of the run."""

    kind: Literal["expect"] = "expect"


Step = Tick | Pause | Checkpoint | Resume | Kill | FlagStep | Inject | Clear | Crash | Restart | Wait | Expect
STEPS: dict[str, type[Step]] = {model.model_fields["kind"].default: model for model in get_args(Step)}
BODIES = {"tick": "ticks", "flag": "values", "wait": "seconds"}
"""Steps that are written as one value, `tick: 10`, and the field that holds it."""


def _from_one_key(value: Any) -> Any:
    """`{pause: {...}}` as the fields of a Pause."""
    if isinstance(value, get_args(Step)):
        return value
    if not isinstance(value, Mapping) or len(value) != 1:
        found = ", ".join(value) if isinstance(value, Mapping) else show(value)
        raise ValueError(f"a step is one key and its settings, such as `pause: {{concurrency: 3}}`; found {found}")
    ((kind, body),) = value.items()
    if kind not in STEPS:
        raise ValueError(f'unknown step "{kind}"; {did_you_mean(kind, STEPS)}')
    if kind in BODIES:
        return {"kind": kind, BODIES[kind]: body}
    if not isinstance(body, Mapping):
        raise ValueError(f"{kind} takes settings; write `{kind}: {{}}` for the defaults")  # noqa: TRY004 - same
    if "kind" in body:
        raise ValueError(f'{kind} has no setting "kind"; remove it')
    return {**body, "kind": kind}


AnyStep = Annotated[Annotated[Step, Field(discriminator="kind")], BeforeValidator(_from_one_key)]
