"""One maker of ledgers: what a node records, told by a test, and the views and findings that follow from it."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from engine import events as copying
from engine.events import Event
from sim.files.faults import KINDS, Harm, failing
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry, Ledger
from sim.record.names import incarnation_name, pause_name, sandbox_of
from sim.record.view import BACKGROUND, PUNCH, PauseView, SandboxView, View
from sim.rules import judge, observe
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding
from sim.rules.reality import Reality

MIB = 1 << 20
MEMORY = 8 * MIB
REASONS = {
    True: ("legal", "the memfd is consumed and the guest will be condemned first"),
    False: ("off", f"{PUNCH} is off"),
}


def run_started(**changes: Any) -> events.RunStarted:
    """The first line of a run of `told`, seed 7."""
    made = events.RunStarted(1, "0.1.0", "r1", "told", 7, [], "2026-01-02T03:04:05Z", 64 * MIB, "disk", None)
    return dataclasses.replace(made, **changes)


def run_ended(verdict: str = "held", exit_code: int = 0, **changes: Any) -> events.RunEnded:
    """The last one."""
    return dataclasses.replace(events.RunEnded(verdict, exit_code, {}, None, 0), **changes)


def created(memory: int = MEMORY, **changes: Any) -> events.SandboxCreated:
    """A sandbox of team acme."""
    return dataclasses.replace(events.SandboxCreated(memory, 4096, 4096, "base", "acme", "local"), **changes)


def spawned(incarnation: str = "web-0.1", **changes: Any) -> events.GuestSpawned:
    """A guest with a memfd."""
    return dataclasses.replace(events.GuestSpawned(incarnation, 20, 1, 30, 3, 4, "none", 1.0, None), **changes)


def decided(*, punch: bool = True, background: bool = False, **flags: Any) -> events.Decided:
    """One pause's flags; others by their names with `_` for `-`."""
    values = {PUNCH: punch, BACKGROUND: background} | {name.replace("_", "-"): value for name, value in flags.items()}
    return events.Decided({key: {"value": value, "version": 1} for key, value in values.items()})


def planned(*, punch: bool = True, path: str = "memfd", **changes: Any) -> copying.Planned:
    """Half of the memory, in two chunks."""
    code, reason = REASONS[punch]
    made = copying.Planned(path, punch, reason, 2, MEMORY // 2, punch_code=code)
    return dataclasses.replace(made, **changes)


def settled(pause: str = "web-0.p1", **changes: Any) -> events.PauseSettled:
    """A finished pause of a guest whose half was dirty, and that was punched."""
    punch = bool(changes.get("punch", True))
    code, reason = REASONS[punch]
    made = events.PauseSettled(
        "finished",
        pause,
        "memfd",
        punch,
        reason,
        dirty_bytes=MEMORY // 2,
        punched_bytes=MEMORY if punch else 0,
        peak_over=MEMORY // 4,
        peak_ratio=1.25,
        copy_ms=12.5,
        blocked_ms=3.25,
        condemned=True,
        content_hash="aa",
        punch_code=code,
    )
    return dataclasses.replace(made, **changes)


def at_its_end(pause: PauseView, **changes: Any) -> PauseView:
    """The view of a pause that has settled, with these in its `pause_settled`."""
    last = pause.settled or events.PauseSettled("finished", pause.id)
    return dataclasses.replace(pause, settled=dataclasses.replace(last, **changes))


def judged(rule: str, verdict: str = "held", checked: int = 1, *violations: dict[str, Any]) -> events.Judged:
    """What a run said of one rule."""
    return events.Judged(f"invariant:{rule}", verdict, checked, list(violations))


def harm(written: str) -> Harm:
    """What a fault does, in short: `EIO`, `corrupt`, `delay 20 ms`."""
    kind, _, time = written.partition(" ")
    known = next((each for each in KINDS if each == kind), None)
    if known is None:
        return failing(written)
    return Harm(known, seconds=float(time.removesuffix(" ms")) / 1e3 if time else None)


def view_of(entries: Iterable[Entry], *more: Event) -> View:
    """Everything that is known after them, and after `more` of the run itself."""
    fold = Fold()
    fold.apply([*entries, *(Entry(9.0, event, None, None) for event in more)])
    return fold.view()


CODES = {
    "bytes_exact": "flip-unseen|guest|never-finished|processor|snapshot|two-contents|unreadable",
    "deaths_explained": "",
    "decision_pinned": "decisions|evaluation|freed-unasked|given-up|illegal-punch|in-place|not-punched|path|"
    "punched-unasked",
    "dirty_agrees": "missed|unlogged",
    "failed_copy_discards": "cache|guest|keeper|outcome|record|salvage|state",
    "legal_transitions": "gap|older-build|[a-z]+-to-[a-z]+",
    "never_resumed": "alive|heartbeat|paused|punched-alive|punched-first|resumed|runs|runs-freed|slices|started|thawed",
    "no_leaks": "cache|folder|guest|machine|memory|process",
    "no_unpublished": "freed-early|punched-early|unfinished-build",
    "off_arrives": "punches",
    "peak_bounded": "above",
    "rollback_intact": "bytes|condemned|forgotten|not-running",
}
"""What a violation of each rule may have for a code."""
PLACES = {"expected", "found", "page"}
DETAILS = {
    "bytes_exact": {"pause"},
    "bytes_exact:guest": {"pause", "incarnation", *PLACES},
    "bytes_exact:never-finished": {"pause", "incarnation"},
    "bytes_exact:processor": {"pause", "incarnation"},
    "bytes_exact:snapshot": {"pause", *PLACES},
    "bytes_exact:two-contents": set[str](),
    "decision_pinned:decisions": {"pause"},
    "legal_transitions": set[str](),
    "never_resumed:runs-freed": {"incarnation", *PLACES},
    "no_leaks": set[str](),
    "no_unpublished:unfinished-build": {"pause"},
    "off_arrives": {"pause"},
    "rollback_intact:bytes": {"pause", "incarnation", *PLACES},
    "rollback_intact:condemned": {"pause"},
}
"""What a violation of a rule, or of one code of it, says beside its sandbox; others say pause and incarnation."""
MISSING = {
    "deaths_explained": {"pid", "t"},
    "dirty_agrees": {"pause", "incarnation"},
    "legal_transitions": set[str](),
    "no_leaks": set[str](),
}
"""What a rule says of evidence that is missing, beside the sandbox; others say the pause or the incarnation."""


def whole(rule: str, finding: Finding) -> Finding:
    """The finding of a rule, once what it notes is what programs and people need of it."""
    unknown = [each["code"] for each in finding.violations if not re.fullmatch(CODES[rule], each["code"])]
    assert not unknown, f"{rule} has no such code: programs compare them, so they stay as they are"
    for each in finding.violations:
        owed = DETAILS.get(f"{rule}:{each['code']}", DETAILS.get(rule, {"pause", "incarnation"}))
        assert owed <= each.keys(), f"{rule}, {each['code']}: {owed - each.keys()}"
        of_all = {"folder", "machine", "memory", "process"} if rule == "no_leaks" else set[str]()
        assert each["sandbox"] != "*" or each["code"] in of_all, f"{rule}, {each['code']}: whose is it?"
    for each in finding.missing:
        said = MISSING[rule] <= each.keys() if rule in MISSING else {"pause", "incarnation"} & each.keys()
        assert each["sandbox"] == "*" or said, (rule, each)
    for each in (*finding.violations, *finding.missing):
        assert each["reason"], rule
        assert "None" not in each["reason"], each["reason"]
        owners = {sandbox_of(each[kind]) for kind in ("pause", "incarnation") if each.get(kind)}
        assert owners <= {each["sandbox"]}, (rule, each)
    return finding


def checked_message(error: Exception, *arguments: object) -> None:
    """In place of an error's `__init__`: what it says is a sentence."""
    assert arguments
    assert isinstance(arguments[0], str)
    assert arguments[0]
    assert not re.search(r"\bNone\b", arguments[0])
    Exception.__init__(error, *arguments)


@dataclass
class Story:
    """A ledger that grows, one entry a second. Incarnations are `web-0.1`, pauses `web-0.p1`, unless named."""

    entries: list[Entry] = field(default_factory=list)
    reality: Reality | None = None

    # -- telling

    def tell(self, event: Event, sandbox: str | None = "web-0", pause: str | None = None) -> Self:
        """One entry; that of a pause belongs to the pause's sandbox."""
        self.entries.append(Entry(float(len(self.entries)), event, sandbox_of(pause) if pause else sandbox, pause))
        return self

    def begin(self, *names: str, **guest: Any) -> Self:
        """A node, and a running guest for each sandbox (web-0)."""
        self.tell(run_started(), None)
        self.tell(events.NodeStarted(10, 1, 11, 1, recovered=False), None)
        for name in names or ("web-0",):
            self.tell(created(), name)
            self.spawn(incarnation_name(name, 1), **guest)
            self.go("created", "running", sandbox=name)
        return self

    def go(self, *states: str, sandbox: str = "web-0") -> Self:
        """Transitions; the first state is where it is now."""
        for old, new in itertools.pairwise(states):
            self.tell(events.StateChanged(old, new, "as the test wants it"), sandbox)
        return self

    def spawn(self, incarnation: str = "web-0.1", **changes: Any) -> Self:
        """A new guest."""
        return self.tell(spawned(incarnation, **changes), sandbox_of(incarnation))

    def freeze(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> Self:
        """The pause has its guest."""
        return self.tell(events.GuestFrozen(incarnation, 0.1), pause=pause)

    def scan(self, pause: str = "web-0.p1", *, dirty: int = MEMORY // 2, resident: int | None = MEMORY) -> Self:
        """What the kernel says of the frozen guest."""
        return self.tell(copying.Scanned("none", dirty, 0, resident, 0.1), pause=pause)

    def publish(self, chunk: int, pause: str = "web-0.p1", *, resident: int | None = MEMORY, **changes: Any) -> Self:
        """A quarter of the memory is in the cache."""
        cached = (chunk + 1) * MEMORY // 4
        made = copying.ChunkPublished(chunk, MEMORY // 4, MEMORY // 2, resident, cached)
        return self.tell(dataclasses.replace(made, **changes), pause=pause)

    def begin_pause(self, pause: str = "web-0.p1", incarnation: str = "web-0.1", *, punch: bool = True) -> Self:
        """Up to the plan."""
        self.go("running", "pausing", sandbox=sandbox_of(pause))
        self.tell(decided(punch=punch), pause=pause)
        return self.freeze(pause, incarnation).scan(pause).tell(planned(punch=punch), pause=pause)

    def copy(self, pause: str = "web-0.p1", *, punch: bool = True) -> Self:
        """Both chunks, condemned after the first."""
        self.publish(0, pause)
        self.tell(copying.Condemned(pause), pause=pause)
        if punch:
            self.tell(copying.ChunkPunched(0, MEMORY // 2), pause=pause)
        self.publish(1, pause, resident=MEMORY // 2 if punch else MEMORY)
        if punch:
            self.tell(copying.ChunkPunched(1, MEMORY), pause=pause)
        return self

    def settle(self, pause: str = "web-0.p1", **changes: Any) -> Self:
        """Nothing more happens in a pause."""
        return self.tell(settled(pause, **changes), pause=pause)

    def finish(self, pause: str = "web-0.p1", incarnation: str = "web-0.1", **changes: Any) -> Self:
        """The build has its name, the guest is dead, the sandbox paused."""
        self.tell(copying.BuildFinished(pause, MEMORY // 2, "aa", 1.0), pause=pause)
        self.settle(pause, **changes)
        self.tell(events.GuestEnded(incarnation, "paused"), sandbox_of(pause))
        return self.go("pausing", "paused", sandbox=sandbox_of(pause))

    def pause(self, pause: str = "web-0.p1", incarnation: str = "web-0.1", *, punch: bool = True) -> Self:
        """A whole pause."""
        self.begin_pause(pause, incarnation, punch=punch).copy(pause, punch=punch)
        return self.finish(pause, incarnation, punch=punch)

    def resume(self, incarnation: str = "web-0.2", build: str = "web-0.p1") -> Self:
        """A new guest from a build."""
        sandbox = sandbox_of(incarnation)
        self.go("paused", "resuming", sandbox=sandbox).spawn(incarnation, build=build)
        self.tell(events.Resumed(incarnation, build, MEMORY // 2, 1.0), sandbox)
        return self.go("resuming", "running", sandbox=sandbox)

    def roll_back(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> Self:
        """The first chunk fails; nothing was condemned."""
        self.tell(copying.CopyFailed(0, "copy.write", "ENOSPC", condemned=False), pause=pause)
        self.tell(copying.CacheDeleted(pause), pause=pause)
        self.settle(pause, outcome="rolled-back", error="ENOSPC", condemned=False, punched_bytes=0, content_hash=None)
        self.tell(events.GuestThawed(incarnation), sandbox_of(pause))
        return self.go("pausing", "running", sandbox=sandbox_of(pause))

    def discard(self, pause: str = "web-0.p1", incarnation: str = "web-0.1") -> Self:
        """A later chunk fails."""
        self.tell(copying.CopyFailed(1, "copy.write", "ENOSPC", condemned=True), pause=pause)
        self.tell(copying.CacheDeleted(pause), pause=pause)
        self.settle(pause, outcome="discarded", error="ENOSPC", failed_chunk=1, content_hash=None)
        self.tell(events.GuestEnded(incarnation, "discarded"), sandbox_of(pause))
        return self.go("pausing", "discarded", sandbox=sandbox_of(pause))

    def end(self, *judgements: events.Judged, ended: str | None = None) -> Self:
        """The run's last lines; `ended` is the last guest."""
        if ended is not None:
            self.tell(events.GuestEnded(ended, "the run ended"))
        for each in judgements:
            self.tell(each, None)
        return self.tell(run_ended(), None)

    # -- another ledger

    def without(self, *kinds: type[Event]) -> Story:
        """The same, with no event of these kinds."""
        return Story([entry for entry in self.entries if not isinstance(entry.event, kinds)], self.reality)

    def swapped(self, first: type[Event], second: type[Event]) -> Story:
        """The same, with the first event of two kinds in each other's place."""
        one, other = (
            next(at for at, entry in enumerate(self.entries) if isinstance(entry.event, kind))
            for kind in (first, second)
        )
        found = list(self.entries)
        found[one], found[other] = found[other], found[one]
        return Story(found, self.reality)

    def changed(self, kind: type[Event], **changes: Any) -> Story:
        """The same, with something else in every event of a kind."""
        return Story(
            [
                dataclasses.replace(each, event=dataclasses.replace(each.event, **changes))
                if isinstance(each.event, kind)
                else each
                for each in self.entries
            ],
            self.reality,
        )

    # -- what follows from it

    def view(self) -> View:
        """Everything that is known."""
        return view_of(self.entries)

    def sandbox(self, name: str = "web-0") -> SandboxView:
        """One of them."""
        return self.view().sandboxes[name]

    def the_pause(self, pause: str | None = None) -> PauseView:
        """One of them: by its name, else the first."""
        name = pause or pause_name("web-0", 1)
        return next(each for each in self.view().pauses if each.id == name)

    def evidence(self) -> Evidence:
        """What a rule judges. With a reality, the fleet lives until the run's end is told."""
        view = self.view()
        if self.reality is not None and view.ended is not None:
            self.reality.torn_down = True
        return Evidence(self.entries, view, self.reality)

    def found(self, rule: str) -> Finding:
        """What a rule says of it, after a look at reality where there is one."""
        return {name: whole(name, each) for name, each in self.findings().items()}[rule]

    def findings(self) -> dict[str, Finding]:
        """What all rules say of it, after a look at reality where there is one."""
        evidence = self.evidence()
        observe(evidence)
        return judge(evidence)

    def reasons(self, rule: str) -> list[str]:
        """What did not hold, in words."""
        return [each["reason"] for each in self.found(rule).violations]

    def missing(self, rule: str) -> list[str]:
        """Which evidence is not there, in words."""
        return [each["reason"] for each in self.found(rule).missing]

    def write(self, path: Path) -> Path:
        """As a file of JSON lines."""
        ledger = Ledger(path, began=0.0)
        for entry in self.entries:
            ledger.append(entry.event, sandbox=entry.sandbox, pause=entry.pause)
        ledger.close()
        return path
