"""What `flags:` of a scenario may say: values, each of its flag's type, and what serves them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    create_model,
    field_validator,
)

from flags.catalog import FLAGS, Flag, did_you_mean
from flags.inline import InlineValue, Rollout, RolloutKind, Share
from flags.lease import LEASE_SECONDS
from sim.files.sources import Source
from sim.files.strict import Strict
from sim.files.units import Duration, Percent, format_duration, show


class _RolloutForm(Strict):
    rollout: Percent
    by: RolloutKind = "sandbox"


class _ShareForm(Strict):
    """An edit of the flag that a file serves: the share of its default rule, or of the rule with that id."""

    share: Percent
    by: RolloutKind = "sandbox"
    rule: str | None = None


def _object_form(flag: Flag) -> type[Strict]:
    """What a JSON flag's object may hold, as the catalogue says."""
    kinds: dict[type, Any] = {bool: bool, int: Annotated[int, Field(ge=0, le=(1 << 53))]}
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
    if isinstance(value, Rollout | Share) or key not in FLAGS:
        return value
    if isinstance(value, Mapping) and "share" in value:
        share = _ShareForm.model_validate(value, context=info.context)
        return Share(share.share, share.by, share.rule)
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
_FLAG_FORMS = reduce(
    operator.or_, [*_OBJECT_FORMS.values(), *_OBJECT_ROLLOUT_FORMS.values()], bool | _RolloutForm | _ShareForm
)
FlagValue = Annotated[InlineValue, PlainValidator(_flag_value, json_schema_input_type=_FLAG_FORMS)]
FlagValues = Annotated[Mapping[FlagKey, FlagValue], BeforeValidator(_with_keys)]
"""Flag values as a scenario writes them, each of its flag's type."""


def _lease(value: Any, info: ValidationInfo) -> Any:
    return NO_LEASE if value == "none" else _DURATION.validate_python(value, context=info.context)


NO_LEASE = 0.0
_DURATION: TypeAdapter[float] = TypeAdapter(Duration)
Lease = Annotated[float | None, PlainValidator(_lease, json_schema_input_type=str)]
"""Seconds, NO_LEASE for `none`; None if it is not given."""


def lease_seconds(lease: float | None, source: str) -> float | None:
    """The lease of flags from this source: by default 5 s for a file and a relay, none for the others."""
    if lease is None:
        return LEASE_SECONDS if source in {"file", "relay"} else None
    return lease or None


def written_lease(lease: float | None) -> str:
    """As a file writes it: `none`, `2s`."""
    return format_duration(lease) if lease else "none"


def _beside_values(schema: dict[str, Any]) -> None:
    """In the file the values stand beside the settings, by flag key."""
    schema["additionalProperties"] = schema["properties"].pop("values")["additionalProperties"]


class ServedFlags(Strict):
    """Flags that a flag service streams to the node.

    `relay` is a service on this machine that an `outage` step can break; `launchdarkly` serves your own flags, read
    with the key in LAUNCHDARKLY_SDK_KEY. With `lease` (by default 5 s for a relay, none for LaunchDarkly) nothing
    punches unless the last heartbeat is younger than that. A flag with a mistake that punches more than was written
    serves its safe value, unless `obey_unsafe` is true. With `start: down` the relay is not running when the node
    starts.
    """

    model_config = ConfigDict(json_schema_extra=_beside_values)

    source: Literal["inline", "relay", "launchdarkly"] = "inline"
    lease: Lease = None
    obey_unsafe: bool = False
    start: Literal["up", "down"] = "up"
    values: FlagValues = Field(default_factory=dict)

    @field_validator("lease")
    @classmethod
    def _has_a_heartbeat(cls, lease: float | None, info: ValidationInfo) -> float | None:
        if lease and info.data.get("source") == "inline":
            raise ValueError("a lease needs a flag service whose heartbeat it watches; add source: relay")
        return lease

    @field_validator("start")
    @classmethod
    def _is_ours_to_start(cls, start: str, info: ValidationInfo) -> str:
        if info.data.get("source", "relay") != "relay":
            raise ValueError("only a relay can be down at the start; use source: relay")
        return start

    @field_validator("values")
    @classmethod
    def _are_ours_to_set(cls, values: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        if values and info.data.get("source") == "launchdarkly":
            raise ValueError(f"LaunchDarkly serves its own flags; remove {', '.join(values)}, or use source: relay")
        return values


SETTINGS = frozenset(ServedFlags.model_fields) - {"values"}
"""Keys of `flags:` that name no flag."""


def served(written: Mapping[str, Any]) -> dict[str, Any]:
    """A file's `flags:` as the fields of ServedFlags."""
    values = {key: value for key, value in written.items() if key not in SETTINGS}
    settings = {key: value for key, value in written.items() if key in SETTINGS}
    return settings | {"values": values}


class FlagFile(Strict):
    """A file in LaunchDarkly's JSON form, beside the scenario; the run follows its own copy, in the run folder.

    Nothing punches once the last whole reading of that is older than `lease` (by default 5 s). A flag with a mistake
    that punches more than was written serves its safe value, unless `obey_unsafe`. A file with errors of lint is
    refused; with `obey_unsafe` it is taken as LaunchDarkly takes it.
    """

    file: str
    lease: Lease = None
    obey_unsafe: bool = False

    @field_validator("file")
    @classmethod
    def _is_there(cls, file: str, info: ValidationInfo) -> str:
        source = info.context
        if isinstance(source, Source) and not (source.path.parent / file).is_file():
            here = f"beside the {source.kind}; the path is relative to the {source.kind}'s folder"
            raise ValueError(f'no file "{file}" {here}')
        return file


_INLINE_FLAGS: TypeAdapter[Mapping[str, Any]] = TypeAdapter(FlagValues)


def _flags(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, FlagFile | ServedFlags):
        return value
    if isinstance(value, Mapping) and "file" in value:
        return FlagFile.model_validate(value, context=info.context)
    if isinstance(value, Mapping) and SETTINGS & value.keys():
        return ServedFlags.model_validate(served(value), context=info.context)
    return _INLINE_FLAGS.validate_python(value, strict=True, context=info.context)


AnyFlags = FlagFile | ServedFlags | FlagValues
Flags = Annotated[AnyFlags, PlainValidator(_flags, json_schema_input_type=AnyFlags)]
FlagSource = Literal["file", "inline", "relay", "launchdarkly"]


def source_of(flags: AnyFlags) -> FlagSource:
    """Where a node gets these flags."""
    if isinstance(flags, FlagFile):
        return "file"
    return flags.source if isinstance(flags, ServedFlags) else "inline"
