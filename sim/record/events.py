"""What happened around the engine: frozen, past-tense facts. Bytes; milliseconds unless named otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.events import Event


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """The first line of a ledger: everything needed to run it again."""

    version: int
    snapdrill: str
    run: str
    name: str
    seed: int
    only: list[str]
    started: str  # UTC, ISO 8601
    budget: int
    cache: str
    mutant: str | None
    drawn: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
    flag_source: str = "inline"  # inline | file | relay | launchdarkly
    profile: str | None = None  # a wrong engine with several weaknesses, except the mended ones
    mended: list[str] = field(default_factory=list)
    lease: float | None = None  # seconds for which a heartbeat allows punching; None: no lease, or not known
    obey_unsafe: bool = False  # True: a flag with a dangerous mistake was obeyed, as in production
    contexts: Any = "all"  # which kinds a flag is evaluated for; older ledgers had every kind
    known_as: str = "here"  # here | original: when a copy that fails after its pause's answer is known
    verify: str = "off"  # off | full: clean pages are compared with the parent before anything is punched
    on_copy_failure: str = "discard"  # discard | salvage, where no flag decides
    spill: str | None = None  # a folder, or tmpfs, for what the caches of stranded builds do not take
    guest: str | None = None  # process | vm | auto: what --guest made of every sandbox; None: as the scenario says
    asks_keeper: bool = False  # True: with salvage, `keeper_asked` comes before a guest is condemned in mid-copy


@dataclass(frozen=True, slots=True)
class SandboxCreated(Event):
    """A sandbox exists; it has no guest yet."""

    memory: int
    page_size: int
    block_size: int
    template: str
    team: str
    cluster: str


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    """The node process is up; `recovered` after a crash."""

    pid: int
    start_time: int
    zygote_pid: int
    zygote_start_time: int
    recovered: bool


@dataclass(frozen=True, slots=True)
class NodeCrashed(Event):
    """The node was ended by SIGKILL. `asked`: a step or the screen asked for it; None: not recorded."""

    pid: int
    asked: bool | None = None


@dataclass(frozen=True, slots=True)
class GuestSpawned(Event):
    """A new incarnation; `memfd_fd` and `side_fd` are fd numbers in the guest, for a look at /proc/PID/fd."""

    incarnation: str
    pid: int
    start_time: int
    memfd_inode: int
    memfd_fd: int
    side_fd: int
    tracker: str
    spawn_ms: float
    build: str | None
    use_memfd: bool = True  # latched for the whole life of this incarnation
    heartbeat: float = 0.0  # seconds between two beats in its side memfd; 0: none
    use_sync_wp: bool = False  # latched as `use_memfd` is
    tracker_refused: str | None = None  # errno's name, where the kernel refused to note its writes
    tracker_why: str | None = None
    guest: str = "process"  # or "vm"


@dataclass(frozen=True, slots=True)
class SuccessorSpawned(Event):
    """A checkpoint's next guest exists, empty, before the guest that it is to replace is frozen.

    A guest of the sandbox once `guest_spawned` names it, filled from the build; if the checkpoint fails it ends."""

    incarnation: str
    replaces: str
    pid: int
    start_time: int
    spawn_ms: float


@dataclass(frozen=True, slots=True)
class Ticked(Event):
    """Every running guest has rewritten its working set."""

    tick: int


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """A legal transition of the lifecycle; `stop_reason` if the new state has no guest."""

    old: str
    new: str
    reason: str
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decided(Event):
    """The flag evaluations of one pause, pinned: flag key -> value, reason, variation, version, rule, source_state.

    `evaluations` are the same under OpenTelemetry's names, for its tools: for each flag the attributes of one
    `feature_flag.evaluation` event. Rule and source state have no name there.
    """

    flags: dict[str, dict[str, Any]]
    evaluations: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GuestFrozen(Event):
    """The guest is confirmed stopped. `threads`: time slices and run time (ns) of each; `beat`: its last heartbeat."""

    incarnation: str
    freeze_ms: float
    threads: dict[str, list[int]] | None = None
    beat: int | None = None
    processor: str | None = None  # of a virtual machine: the digest of its processor's state


@dataclass(frozen=True, slots=True)
class MemoryMapped(Event):
    """What the scan found in memory, as at most 1,024 cells of equal size, in runs: `12d 4c 100z 3m`.

    d: dirty, all of it. m: in part. c: clean, as in the parent build. z: zero.
    """

    runs: str


@dataclass(frozen=True, slots=True)
class BoundaryReached(Event):
    """A slowed or held copy reached a boundary; its times are left out of every figure.

    `before`: chunk (which one, `length` bytes of memory from `start`), the point of no return, or the finish.
    """

    before: str
    chunk: int | None = None
    start: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class PaceSet(Event):
    """Copies of the sandbox are slowed `factor` times from now on, and held at boundaries or not."""

    factor: float
    held: bool


@dataclass(frozen=True, slots=True)
class GuestThawed(Event):
    """An incarnation that was never condemned runs on; `code` says why it may have run before (ran, dead, ...)."""

    incarnation: str
    threads: dict[str, list[int]] | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessDied(Event):
    """A guest or the zygote died, and its node had not asked for it; `state` is that of a guest's sandbox.

    `process`: guest or zygote. `code`: died, or silent where the node killed a guest that did not answer.
    """

    process: str
    pid: int
    incarnation: str | None = None
    state: str | None = None
    code: str = "died"


@dataclass(frozen=True, slots=True)
class VmEnded(Event):
    """A guest's virtual machine did not stop where its program stops; addresses, and bytes in hex.

    `exit` is KVM's name for how it ended, `rip` its instruction pointer, `past_memory` whether that is at the end of
    RAM. It was to go on at `began`, where it had the bytes `had`, and found `found`.
    """

    incarnation: str
    exit: str
    rip: int
    past_memory: bool
    began: int
    had: str
    found: str


@dataclass(frozen=True, slots=True)
class GuestEnded(Event):
    """The pidfd confirmed the death of an incarnation."""

    incarnation: str
    why: str


@dataclass(frozen=True, slots=True)
class PauseReturned(Event):
    """The caller has its answer; a background copy goes on after it."""

    blocked_ms: float
    condemned: bool


@dataclass(frozen=True, slots=True)
class PauseSettled(Event):
    """The pause is over, its copy included. A figure that does not apply is None."""

    outcome: str
    build: str
    path: str | None = None
    punch: bool = False
    punch_reason: str | None = None
    dirty_bytes: int | None = None
    punched_bytes: int = 0
    peak_over: int | None = None
    peak_ratio: float | None = None
    copy_ms: float | None = None
    blocked_ms: float = 0.0
    condemned: bool = False
    error: str | None = None
    failed_chunk: int | None = None
    condemn_error: str | None = None
    punch_error: str | None = None
    content_hash: str | None = None
    checkpoint: bool = False
    paced: bool = False  # slowed or held from the screen: its times are in no figure
    punch_code: str | None = None  # engine.plan.PunchCode
    kill_error: str | None = None  # the condemned guest did not die: it is frozen for good
    copier_bytes: int | None = None  # memory of the copying threads themselves
    consumed: bool | None = None  # the guest was to end; None, in older ledgers: every checkpoint was in place
    cpu_seconds: float | None = None  # of the pause's own threads
    salvage: str | None = None  # of a failed copy that was to be salvaged: whole, or an engine.strand.SalvageCode
    read: bool = False  # its sandbox was to be resumed as soon as it had its answer


@dataclass(frozen=True, slots=True)
class RecordRetired(Event):
    """A condemned record was retired during clean-up: its guest is dead, its build is finished or deleted."""

    incarnation: str
    build: str | None
    outcome: str  # finished | deleted


@dataclass(frozen=True, slots=True)
class LinesLost(Event):
    """`count` events in all could not be written to the ledger, so their contents are not known."""

    count: int


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A new incarnation was filled from a finished build."""

    incarnation: str
    build: str
    written: int
    resume_ms: float
    processor: str | None = None  # of a virtual machine: the digest of the state that it goes on from


@dataclass(frozen=True, slots=True)
class RequestRefused(Event):
    """A pause, resume or kill that the lifecycle does not allow; `reason` in words."""

    request: str
    reason: str
    code: str | None = None  # sim.files.lifecycle.RefusalCode


@dataclass(frozen=True, slots=True)
class FlagSet(Event):
    """A flag has a new value, written as in a scenario file; if not `effective`, it has not reached the node.

    `took_ms`: from the change at the source until the node had it, None if not awaited. `by`: scenario or screen.
    """

    flag: str
    value: Any
    effective: bool = True
    took_ms: float | None = None
    by: str = "scenario"


@dataclass(frozen=True, slots=True)
class FaultArmed(Event):
    """A fault is armed at a named point; `at` as in a scenario file."""

    fault_id: int
    fault: str
    error: str
    at: str
    sandboxes: str
    by_kernel: bool = False
    kind: str | None = None  # sim.files.faults.Kind
    seconds: float | None = None  # of a delay or a hang


@dataclass(frozen=True, slots=True)
class FaultFired(Event):
    """An armed fault fired; `chunk` is None if the point has none."""

    fault_id: int
    fault: str
    error: str
    chunk: int | None
    kind: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FaultsCleared(Event):
    """All faults are disarmed."""


@dataclass(frozen=True, slots=True)
class PointReached(Event):
    """A fault point is about to be passed; in traced runs. `nth`: of pauses and checkpoints, or of incarnations."""

    fault: str
    chunk: int | None
    nth: int


@dataclass(frozen=True, slots=True)
class MemorySampled(Event):
    """Memory of the node as the kernel counts it; `planned` is the amount that admission has granted.

    `guests` are the guests' 4 KiB pages, `hugetlb` their 2 MiB pages (a separate pool); `caches` are those being
    written or on tmpfs; `page_cache` is the cached part of finished builds on disk, which the kernel may take back.
    """

    guests: int
    caches: int
    planned: int
    hugetlb: int = 0
    page_cache: int = 0


@dataclass(frozen=True, slots=True)
class SettlingFailed(Event):
    """The node could not carry out a pause's outcome: a defect, or the ledger could not be written at that moment."""

    error: str


@dataclass(frozen=True, slots=True)
class GuestMeasured(Event):
    """Resident bytes of one guest's memory."""

    resident: int


@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    """A step begins; line and column, from 1, are in the scenario's file, or in `file`, which it extends."""

    index: int
    step: str
    line: int
    column: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class StepEnded(Event):
    """A step is over; a step is a barrier."""

    index: int


@dataclass(frozen=True, slots=True)
class Judged(Event):
    """One invariant or expectation was judged; each violation names sandbox, code, reason and place.

    `place` is where the expectation is written (line, column, file if it is another one); None for an invariant.
    """

    subject: str
    verdict: str
    checked: int
    violations: list[dict[str, Any]] = field(default_factory=list)
    place: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    """The last line of a ledger; its absence says that the run was cut off.

    `peak_memory` covers guests and caches; `peak_with_page_cache` adds the cached part of finished builds on disk.
    `cgroup_peak` is the memory cgroup's own peak, `cgroup_base` its use before any guest had written.
    """

    verdict: str
    exit_code: int
    counts: dict[str, int]
    digest: str | None  # None if another run may differ: a pause was not waited for
    peak_memory: int
    cgroup_peak: int | None = None
    cgroup_base: int | None = None
    peak_with_page_cache: int = 0
