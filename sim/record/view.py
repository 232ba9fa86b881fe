"""What is known of a run at one moment: the frozen view that the screen, the reports and the rules all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.events import Stranded
from sim.files.wrong_engines import wrong_engine
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.record.rollout_view import RolloutView
from sim.record.stages import NO_TRACK, OWN_PACE, Pace, Sample, Track

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
SALVAGE = "memfd-salvage-on-failure"
"""As flags.catalog has them: a recording is folded without loading flags."""
LOST_AT_CHECKPOINT = "lost-at-checkpoint"
"""A sandbox that was to go on, and was discarded because the copy failed past the point of no return."""


def is_unserved(evaluation: Mapping[str, Any]) -> bool:
    """The SDK had no answer for the flag, so that its safe value was used."""
    return str(evaluation.get("reason", "")).startswith("ERROR:")


@dataclass(frozen=True, slots=True)
class FlagChange:
    """When a flag was last set, by what (scenario or screen), and whether the change reached the node."""

    t: float
    by: str
    effective: bool


@dataclass(frozen=True, slots=True)
class SourceView:
    """The node's flag client and its source; `t` is when the client's state was last reported.

    `outage` is the fault of the source, None while the source works. The lease is None if there is none.
    """

    state: str | None = None
    error: str | None = None
    t: float = 0.0
    outage: str | None = None
    lease: source_events.LeaseMeasured | None = None
    lease_t: float = 0.0


@dataclass(frozen=True, slots=True)
class Switch:
    """The punch flag was turned on for some or all, or off for every sandbox (the kill switch), at its source at `t`.

    `took_ms` until the node had it; None if that was not awaited, as in an outage.
    """

    t: float
    on: bool
    took_ms: float | None = None


def on_for_some(value: Any) -> bool:
    """True for a flag value, as a scenario writes it, that is on for at least one sandbox."""
    return bool(value) if not isinstance(value, dict) else value.get("rollout") != "0%"


def next_source(source: SourceView, entry: Entry) -> SourceView:
    """The source after the entry."""
    match entry.event:
        case source_events.FlagSourceChanged(state, error):
            return replace(source, state=state, error=error, t=entry.t)
        case source_events.OutageBegan(fault, detail):
            return replace(source, outage=f"{fault} ({detail})" if detail else fault)
        case source_events.OutageEnded():
            return replace(source, outage=None)
        case source_events.LeaseMeasured() as lease:
            return replace(source, lease=lease, lease_t=entry.t)
    return source


@dataclass(frozen=True, slots=True)
class PauseView:
    """One pause of one sandbox so far; bytes, milliseconds, `t` seconds since the run began.

    Its plan, its copy so far and, once it is `settled`, its end. `successor` is the guest that goes on after a
    checkpoint that is not in place. `answered`: success, while the copy went on. `peak` is the largest sum of memfd
    and cache at a chunk; 0 if there is no memfd. Of a pause that is `read` at once: when its reader came, and how long
    it waited for a running guest; None where it got none.
    `strand` says what was left to copy, where a failed copy was to be salvaged.
    """

    id: str
    sandbox: str
    began: float
    incarnation: str = ""
    successor: str | None = None
    decision: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: str | None = None
    punch: bool = False
    punch_reason: str | None = None
    punch_code: str | None = None
    notes: tuple[str, ...] = ()
    chunks: int = 0
    published: int = 0
    published_bytes: int = 0
    punched_chunks: int = 0
    dirty_bytes: int | None = None
    punched_bytes: int = 0
    condemned_at: float | None = None
    returned_at: float | None = None
    answered: bool = False
    blocked_ms: float | None = None
    strand: Stranded | None = None
    settled_at: float | None = None
    settled: events.PauseSettled | None = None
    peak: int = 0
    track: Track = NO_TRACK
    reader_came_at: float | None = None
    reader_waited_ms: float | None = None

    @property
    def salvage_served(self) -> bool | None:
        """What the flag said of salvage; None where it was not served: then the option of the engine decided."""
        flag = self.decision.get(SALVAGE)
        if flag is None or is_unserved(flag):
            return None
        return flag["value"] is True

    @property
    def stranded(self) -> bool:
        """Its copy failed past the point of no return, and its build can still be completed."""
        return self.strand is not None and self.settled_at is None

    @property
    def outcome(self) -> str | None:
        """How it ended; this and the following properties are None (or False) until it has settled."""
        return self.settled.outcome if self.settled else None

    @property
    def build(self) -> str | None:
        """The build that it made, or should have made."""
        return self.settled.build if self.settled else None

    @property
    def content_hash(self) -> str | None:
        """Of the finished build."""
        return self.settled.content_hash if self.settled else None

    @property
    def checkpoint(self) -> bool:
        """True where it was a checkpoint."""
        return self.settled is not None and self.settled.checkpoint

    @property
    def read(self) -> bool:
        """True where its sandbox was to be resumed as soon as it had its answer."""
        return self.settled is not None and self.settled.read

    @property
    def read_while_copied(self) -> bool:
        """True where the reader came before the copy had ended; also where it got nothing."""
        came, ended = self.reader_came_at, self.settled_at
        return self.read and came is not None and (ended is None or came < ended)

    @property
    def consumed(self) -> bool:
        """True where its guest was to end with it: every pause, and a checkpoint that was not in place."""
        if self.settled is None or self.settled.consumed is None:
            return not self.checkpoint
        return self.settled.consumed

    @property
    def outcome_code(self) -> str | None:
        """Its outcome, where a checkpoint that cost its sandbox is `lost-at-checkpoint`."""
        return LOST_AT_CHECKPOINT if self.checkpoint and self.outcome == "discarded" else self.outcome

    @property
    def error(self) -> str | None:
        """Why it failed."""
        return self.settled.error if self.settled else None

    @property
    def punch_error(self) -> str | None:
        """Why punching ended early."""
        return self.settled.punch_error if self.settled else None

    @property
    def condemn_error(self) -> str | None:
        """Why its guest could not be condemned."""
        return self.settled.condemn_error if self.settled else None

    @property
    def peak_over(self) -> int | None:
        """Bytes beyond the guest, at the peak; of a stranded build so far."""
        told = self.settled or self.strand
        return told.peak_over if told else None

    @property
    def copier_bytes(self) -> int | None:
        """Memory that its copying threads took for themselves: in no peak."""
        return self.settled.copier_bytes if self.settled else None

    @property
    def peak_ratio(self) -> float | None:
        """The peak, in units of what the guest held at the freeze."""
        return self.settled.peak_ratio if self.settled else None

    @property
    def copy_ms(self) -> float | None:
        """From its beginning to the end of its copy."""
        return self.settled.copy_ms if self.settled else None

    @property
    def cpu_seconds(self) -> float | None:
        """CPU that its own threads took."""
        return self.settled.cpu_seconds if self.settled else None

    @property
    def paced(self) -> bool:
        """True if it was slowed or held from the screen: it is in no figure."""
        return self.track.paced

    @property
    def condemned(self) -> bool:
        """True past the point of no return."""
        return self.condemned_at is not None


@dataclass(frozen=True, slots=True)
class SandboxView:
    """One sandbox now. `resident` and `cached` are bytes; `pause` is the one in flight, else the last.

    `peaks` are of the last few pauses that have ended, each in units of what the guest held at the freeze, the
    latest at the end.
    """

    name: str
    memory: int
    page_size: int
    block_size: int
    template: str
    team: str
    cluster: str
    state: str = "created"
    reason: str = ""
    stop_reason: str | None = None
    incarnation: str | None = None
    pid: int | None = None
    tracker: str | None = None
    guest: str | None = None  # of its newest guest: process | vm
    vm_end: events.VmEnded | None = None  # of that one, if it is a virtual machine that has ended
    build: str | None = None
    resident: int = 0
    cached: int = 0
    punched: int = 0
    peaks: tuple[float, ...] = ()
    pause: PauseView | None = None
    refused: events.RequestRefused | None = None
    pace: Pace = OWN_PACE


@dataclass(frozen=True, slots=True)
class FaultView:
    """An armed fault and how often it has fired."""

    fault_id: int
    fault: str
    error: str
    at: str
    sandboxes: str
    fired: int = 0
    fired_on: dict[str, int] = field(default_factory=dict)
    by_kernel: bool = False


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Node memory, bytes: guests plus caches now, the largest sum seen, the amount granted, and the budget.

    `hugetlb` is the guests' other pool, and counts; `page_cache` is of finished builds on disk, and does not: the
    kernel gives it up when it must.
    """

    guests: int = 0
    caches: int = 0
    peak: int = 0
    planned: int = 0
    budget: int = 0
    hugetlb: int = 0
    page_cache: int = 0
    peak_with_page_cache: int = 0

    @property
    def now(self) -> int:
        """Guests of both pools, and caches."""
        return self.guests + self.hugetlb + self.caches


@dataclass(frozen=True, slots=True)
class View:
    """The whole run, frozen. `log` holds the latest entries, oldest first."""

    t: float = 0.0
    run: events.RunStarted | None = None
    ended: events.RunEnded | None = None
    tick: int = 0
    node: str = "starting"
    node_pid: int | None = None
    step: events.StepStarted | None = None
    sandboxes: dict[str, SandboxView] = field(default_factory=dict)
    pauses: tuple[PauseView, ...] = ()
    flags: dict[str, Any] = field(default_factory=dict)
    flag_changes: dict[str, FlagChange] = field(default_factory=dict)
    source: SourceView = field(default_factory=SourceView)
    switches: tuple[Switch, ...] = ()
    faults: tuple[FaultView, ...] = ()
    memory: MemoryView = MemoryView()
    samples: tuple[Sample, ...] = ()
    judged: tuple[events.Judged, ...] = ()
    log: tuple[Entry, ...] = ()
    rollout: RolloutView | None = None

    @property
    def measured(self) -> tuple[PauseView, ...]:
        """The pauses that were not slowed or held: figures are made from these."""
        return tuple(each for each in self.pauses if not each.paced)

    def after_kill(self, pause: PauseView) -> float | None:
        """Seconds from the kill switch to this pause's decision; None if no kill switch was in force at the source."""
        before = [each for each in self.switches if each.t <= pause.began]
        return pause.began - before[-1].t if before and not before[-1].on else None

    @property
    def wrong_engine(self) -> str | None:
        """`resume-after-punch (wrong on purpose)`; None where the engine is the sound one."""
        return wrong_engine(self.run.mutant, self.run.profile, self.run.mended) if self.run else None

    @property
    def counts(self) -> dict[str, int]:
        """Sandboxes by state."""
        found: dict[str, int] = {}
        for sandbox in self.sandboxes.values():
            found[sandbox.state] = found.get(sandbox.state, 0) + 1
        return found
