"""The steps of a scenario: one frozen model a kind, each with `kind` for the runner to switch on."""

from __future__ import annotations

import errno as errno_names
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from flags.catalog import did_you_mean
from sim.files.counts import Count
from sim.files.faults import (
    CATALOGUE,
    AtChunk,
    AtWord,
    FaultPoint,
    Harm,
    Place,
    PointSpec,
    failing,
    points_by_kernel,
    points_with,
)
from sim.files.flag_values import FlagKey, FlagValues
from sim.files.strict import Strict, one_key
from sim.files.units import PERCENT, Duration, Percent, parse_percent, show

State = Literal["running", "pausing", "paused", "checkpointing", "resuming", "discarded", "killed"]
AtLeastOne = Annotated[int, Field(ge=1, le=1_000_000)]
ChunkIndex = Annotated[int, Field(ge=0, le=1_000_000_000)]


def _errno(name: str) -> str:
    known = set(errno_names.errorcode.values())
    if name not in known:
        raise ValueError(f"unknown errno; {did_you_mean(name.upper(), known, 'use a name such as EIO or ENOSPC')}")
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
    """Selects the sandboxes that match the glob, are in `state` and meet `where`, as far as these are given.

    If none is selected, the run is inconclusive unless `allow_empty` is true.
    """

    sandboxes: str = "*"
    state: State | None = None
    where: Where | None = None
    allow_empty: bool = False


class Tick(Strict):
    """Every running guest rewrites its working set, `ticks` times."""

    kind: Literal["tick"] = "tick"
    ticks: AtLeastOne


class PauseStep(Selection):
    """Pause the selected sandboxes, at most `concurrency` at a time; `deadline` is for the whole step.

    `burst: 256` is such a number under production's name: all are asked for at once, and so many are in flight.
    `until: settled` waits until every copy has ended; `returned` only until every pause has answered, and the run has
    no digest then. `wave: true`: of the first `concurrency` all guests are frozen before one is copied,
    and all are copied before one ends, so that the peak is that of so many whole copies; not with `until: returned`.
    """

    kind: Literal["pause"] = "pause"
    state: State | None = "running"
    concurrency: AtLeastOne = 4
    burst: AtLeastOne | None = None
    wave: bool = False
    until: Literal["settled", "returned"] = "settled"
    deadline: Duration = 60.0

    @model_validator(mode="after")
    def _a_wave_is_waited_for(self) -> Self:
        if self.wave and self.until == "returned":
            raise ValueError("with `until: returned` more pauses begin while a wave is copied; remove one of the two")
        return self

    @property
    def at_once(self) -> int:
        """How many pauses may be in flight."""
        return self.concurrency if self.burst is None else self.burst


class Checkpoint(Selection):
    """Export the memory of the selected sandboxes, which go on; `deadline` is for the whole step.

    In place with the same guest where `use-sync-wp`, latched at its start, and `in-place-checkpoint` are on. Otherwise
    the memory is consumed as by a pause, and a new guest goes on from the build.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    state: State | None = "running"
    deadline: Duration = 60.0


class Resume(Selection):
    """Resume the selected sandboxes from their newest snapshot; `deadline` is for the whole step."""

    kind: Literal["resume"] = "resume"
    state: State | None = "paused"
    deadline: Duration = 60.0


class Kill(Selection):
    """Kill the selected sandboxes, in whichever live state they are."""

    kind: Literal["kill"] = "kill"


class Salvage(Selection):
    """Copy once more what is left of stranded builds: those of the selected sandboxes that have one.

    A copy that fails past the point of no return strands its build where `engine: {on_copy_failure: salvage}` or the
    flag `memfd-salvage-on-failure` says so. `deadline` is for the whole step.
    """

    kind: Literal["salvage"] = "salvage"
    deadline: Duration = 60.0


class FlagStep(Strict):
    """Change flags, and wait until the node has the change; in an outage that keeps it from the node, do not wait."""

    kind: Literal["flag"] = "flag"
    values: Annotated[FlagValues, Field(min_length=1)]


OutageFault = Literal["down", "drop", "freeze", "refuse", "slow", "malformed", "flap", "delete", "tear", "recover"]
_FAULT_OF = {"status": "refuse", "flag": "delete", "delay": "slow", "every": "flap", "keep": "tear"}


class Outage(Strict):
    """Break the flag source until `fault: recover`, which waits until the node has every flag again.

    A relay can be `down`, `drop` its streams, `freeze` (half-open), `refuse` with an HTTP `status`, be `slow` by
    `delay` seconds, send a `malformed` patch, `flap` `every` so many seconds or `delete` a `flag`. A flag file can
    `tear`: the node finds only the first `keep` percent of it.
    """

    kind: Literal["outage"] = "outage"
    fault: OutageFault
    status: Annotated[int, Field(ge=400, le=599)] = 503
    flag: FlagKey | None = None
    delay: Duration = 0.3
    every: Duration = 0.3
    keep: Percent = 40.0

    @field_validator(*_FAULT_OF)
    @classmethod
    def _belongs_to_the_fault(cls, given: Any, info: ValidationInfo) -> Any:
        fault, wanted = info.data.get("fault"), _FAULT_OF[info.field_name or ""]
        if fault not in {None, wanted}:
            raise ValueError(f"{info.field_name} goes with fault: {wanted}; remove it")
        return given

    @model_validator(mode="after")
    def _says_what_to_delete(self) -> Self:
        if self.fault == "delete" and self.flag is None:
            raise ValueError("delete needs the key of a flag; add flag: memfd-punch-on-snapshot")
        return self

    @property
    def detail(self) -> str:
        """The setting that goes with the fault, as the file writes it; empty where there is none."""
        settings = {
            "refuse": f"HTTP {self.status}",
            "delete": self.flag or "",
            "slow": Harm("delay", seconds=self.delay).error,
            "flap": f"every {self.every:g} s",
            "tear": f"{self.keep:g}% kept",
        }
        return settings.get(self.fault, "")


How = Literal["short", "corrupt", "cancel", "wake-guest", "trace-guest", "free-pages", "second-writer", "kill-guest"]
"""What a fault does to an act, besides failing or delaying it."""


def _spec(info: ValidationInfo) -> PointSpec | None:
    """Of the step's `fault`; None if that is itself a mistake."""
    fault = info.data.get("fault")
    return CATALOGUE[fault] if fault is not None else None


def _written(spec: PointSpec) -> tuple[str, ...]:
    """The kinds that an `inject` may ask for there."""
    return tuple(kind for kind in spec.kinds if kind != "kill-node")


def _later_incarnation(nth: int | None, spec: PointSpec | None) -> int | None:
    if nth == 1 and spec is not None and spec.of_resume:
        raise ValueError(f"no resume starts incarnation 1; {spec.point} takes nth: 2 or more")
    return nth


class Inject(Strict):
    """Arm a fault on every matching sandbox, until `clear`, or until it has fired `count` times on that sandbox.

    The act at the fault point fails with `errno`; or is delayed by `delay` seconds; or hangs for `hang` seconds and
    then fails with ETIMEDOUT; or is disturbed as `how` says. With `by: kernel` the kernel itself returns the errno to
    the copying thread. `nth` limits the fault to a sandbox's n-th pause or checkpoint; at a point of a resume, to its
    n-th incarnation. With `rate`, only in that share of them, which the seed draws.
    """

    kind: Literal["inject"] = "inject"
    fault: FaultPoint
    errno: Errno | None = None
    delay: Duration | None = None
    hang: Duration | None = None
    how: How | None = None
    by: Literal["kernel"] | None = None
    at: At = "first"
    sandboxes: str = "*"
    count: AtLeastOne | None = None
    nth: AtLeastOne | None = None
    rate: Annotated[Percent, Field(gt=0)] | None = None

    @field_validator("how")
    @classmethod
    def _is_known_at_the_point(cls, how: How | None, info: ValidationInfo) -> How | None:
        spec = _spec(info)
        if spec is not None and how is not None and how not in spec.kinds:
            fitting = ", ".join(points_with(how))
            raise ValueError(f"{spec.point} has no {how}; it has {', '.join(_written(spec))}; {how} is for {fitting}")
        return how

    @field_validator("by")
    @classmethod
    def _can_come_from_the_kernel(cls, by: str | None, info: ValidationInfo) -> str | None:
        spec = _spec(info)
        if by is None or spec is None:
            return by
        if not spec.by_kernel:
            raise ValueError(f"by: kernel is for {', '.join(points_by_kernel())}; remove it at {spec.point}")
        if found := [name for name in ("delay", "hang", "how") if info.data.get(name) is not None]:
            raise ValueError(f"by: kernel returns an errno; remove {found[0]}")
        if info.data.get("errno") == "EINTR":
            raise ValueError("the call would be made again for ever after EINTR; use another errno, or remove by")
        return by

    @field_validator("at")
    @classmethod
    def _has_chunks(cls, at: Place, info: ValidationInfo) -> Place:
        spec = _spec(info)
        if spec is not None and not spec.chunked:
            raise ValueError(f"{spec.point} has no chunks; remove at")
        return at

    @field_validator("count")
    @classmethod
    def _can_be_counted(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and info.data.get("by") and info.data.get("errno") in {"EAGAIN", "ENOMEM"}:
            raise ValueError("the kernel returns it to every retry until the pause ends; remove count")
        return count

    @field_validator("nth")
    @classmethod
    def _comes_after_this_step(cls, nth: int | None, info: ValidationInfo) -> int | None:
        return _later_incarnation(nth, _spec(info))

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        found = [name for name in ("errno", "delay", "hang", "how") if getattr(self, name) is not None]
        if len(found) > 1:
            raise ValueError(f"a fault does one thing; remove {' or '.join(found)}")
        return self

    @property
    def harm(self) -> Harm:
        """What the fault does; it fails the act with EIO unless another thing is given."""
        if self.delay is not None:
            return Harm("delay", seconds=self.delay)
        if self.hang is not None:
            return Harm("hang", seconds=self.hang)
        return Harm(self.how) if self.how is not None else failing(self.errno or "EIO")


class Clear(Strict):
    """Disarm every fault."""

    kind: Literal["clear"] = "clear"


class CrashPoint(Strict):
    """The node dies just before this act is done: at `chunk` (0 unless given) if the point has chunks.

    `nth` limits it to a sandbox's n-th pause or checkpoint; at a point of a resume, to its n-th incarnation.
    """

    fault: FaultPoint
    chunk: ChunkIndex | None = None
    nth: AtLeastOne | None = None

    @field_validator("chunk")
    @classmethod
    def _has_chunks(cls, chunk: int | None, info: ValidationInfo) -> int | None:
        spec = _spec(info)
        if chunk is not None and spec is not None and not spec.chunked:
            raise ValueError(f"{spec.point} has no chunks; remove chunk")
        return chunk

    @field_validator("nth")
    @classmethod
    def _comes_after_this_step(cls, nth: int | None, info: ValidationInfo) -> int | None:
        return _later_incarnation(nth, _spec(info))

    @property
    def place(self) -> Place:
        """The chunk; meaningless if the point has none."""
        return AtChunk(self.chunk or 0)


class Crash(Strict):
    """SIGKILL the node; the next `restart` recovers.

    Without `at` it dies at once. With `at` the crash is armed, and fires in a later pause, checkpoint or resume of a
    matching sandbox.
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
    """Wait for this long, in seconds."""

    kind: Literal["wait"] = "wait"
    seconds: Duration


class Eventually(Strict):
    """Allows up to `within` ticks; passes at the first tick after which it holds."""

    within: AtLeastOne


class StateExpectation(Strict):
    """Every matching sandbox is in one of `state`, and `counts` says how many of them are in which state.

    If none matches, the run is inconclusive unless `allow_empty` is true.
    """

    sandboxes: str = "*"
    where: Where | None = None
    state: States | None = None
    counts: Annotated[Mapping[State, Count], Field(min_length=1)] | None = None
    allow_empty: bool = False
    eventually: Eventually | None = None

    @model_validator(mode="after")
    def _something_is_expected(self) -> Self:
        if self.state is None and self.counts is None:
            raise ValueError("nothing is expected; add state or counts")
        return self


class Expect(StateExpectation):
    """Judge states at this point of the run."""

    kind: Literal["expect"] = "expect"


Act = PauseStep | Checkpoint | Resume | Kill | Salvage
Step = Tick | Act | FlagStep | Outage | Inject | Clear | Crash | Restart | Wait | Expect
STEPS: dict[str, type[Step]] = {model.model_fields["kind"].default: model for model in get_args(Step)}
BODIES = {"tick": "ticks", "flag": "values", "wait": "seconds"}
"""Steps that are written as one value, `tick: 10`, and the field that holds it."""


AnyStep = Annotated[Annotated[Step, Field(discriminator="kind")], one_key(STEPS, BODIES, "pause: {concurrency: 3}")]
