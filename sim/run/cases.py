"""One run as a unit of work: its needs, its execution, and its result."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import shutil
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from engine.errors import EngineError, UserError
from engine.events import Event
from flags.catalog import PUNCH
from sim.files.scenario import Scenario, load_text
from sim.files.steps import Inject
from sim.files.units import HUGE_PAGE
from sim.node.memory import PUNCHED_PEAK, most_copier_bytes
from sim.record import events
from sim.record.folder import LATEST, RUN_FILE, StoredRun, claim, read_record
from sim.record.ledger import Entry
from sim.record.leftovers import end_leftovers
from sim.record.verdict import CUT_OFF, INVARIANT, Verdict
from sim.run.node_link import NodeStarter, execute_node
from sim.run.runner import RunOptions, run_scenario

if TYPE_CHECKING:
    from sim.run.node_server import NodeServer  # it loads the node

E = TypeVar("E", bound=Event)
HEARTBEAT = 0.001
"""Seconds between two beats of every guest that is run to find something: a witness costs 1 % of a core."""


async def run_unit(unit: Unit, start_node: NodeStarter = execute_node) -> UnitResult:
    """Run it; the result reports any failure. When cancelled, the run is torn down and its folder removed."""
    began = time.monotonic()
    folder = scratch(unit.runs_dir, os.getpid())
    options = RunOptions(
        runs_dir=folder,
        seed=unit.seed,
        cache_dir=unit.cache_dir,
        keep="never",  # the cache: guest memory, often on tmpfs
        time_limit=unit.time_limit,
        trace=unit.trace,
        heartbeat=HEARTBEAT,
        start_node=start_node,
    )
    try:
        scenario = load_text(unit.text, unit.path)
        run = await run_scenario(scenario, options)
    except UserError as error:
        return _failed(unit, began, str(error))
    except Exception:  # noqa: BLE001 - a defect in one unit must not end the others
        return _failed(unit, began, traceback.format_exc())
    else:
        verdict = run.view.ended.verdict if run.view.ended else None
        kept = _settle(run.folder, unit, keep=_is_kept(unit.keep, verdict))
        return _result(unit, run, time.monotonic() - began, kept)
    finally:
        remove_leftovers(folder)


def _failed(unit: Unit, began: float, error: str) -> UnitResult:
    """Its folder, if one was made, is kept unless `keep` is never."""
    made = [path for path in scratch(unit.runs_dir, os.getpid()).glob("*/*") if path.name != LATEST]
    kept = _settle(made[0], unit, keep=unit.keep != "never") if made else {}
    return UnitResult(unit.name, None, seconds=time.monotonic() - began, error=error, **kept)


def _is_kept(keep: Keep, verdict: str | None) -> bool:
    return keep == "always" or (keep == "failed" and verdict != "held")


def _settle(run_dir: Path, unit: Unit, *, keep: bool) -> dict[str, Any]:
    """Move a kept run to the folder of runs, or pack it; the fields of its result."""
    if not keep:
        return {}
    return {"packed": pack(run_dir)} if unit.packed else {"run_dir": claim(run_dir, unit.runs_dir)}


def _result(unit: Unit, run: StoredRun, seconds: float, kept: dict[str, Any]) -> UnitResult:
    view, kinds = run.view, (*_ENDS, *(_TRACED if unit.trace else ()))
    return UnitResult(
        name=unit.name,
        verdict=view.ended.verdict if view.ended else None,
        digest=view.ended.digest if view.ended else None,
        entries=tuple(each for each in run.entries if isinstance(each.event, kinds)),
        states={name: each.state for name, each in view.sandboxes.items()},
        seconds=seconds,
        **kept,
    )


def pack(run_dir: Path) -> bytes:
    """The folder `.../<name>/<stamp>/` with these two names, compressed."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(run_dir, f"{run_dir.parent.name}/{run_dir.name}")
    return packed.getvalue()


def unpack(packed: bytes, runs_dir: Path) -> Path:
    """Make it a run of `runs_dir`; gives its folder. Raises tarfile.TarError if a path would be outside."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=runs_dir))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            archive.extractall(aside, filter="data")
        (run_dir,) = aside.glob("*/*")
        return claim(run_dir, runs_dir)
    finally:
        shutil.rmtree(aside)


def serve(connection: Connection[UnitResult | None, Unit], nodes: NodeServer) -> int:
    """Report that it is ready, then run what the pool sends; the exit code."""
    gc.collect()
    gc.freeze()
    try:
        connection.send(None)
    except BrokenPipeError:  # it was closed before any unit was sent
        return 0
    with asyncio.Runner() as runner:
        while True:
            try:
                unit = connection.recv()
            except (EOFError, ConnectionResetError):  # the latter if it was closed before our readiness was read
                return 0
            result = runner.run(_run(unit, connection, nodes.node))
            if result is None:
                return 0
            try:
                connection.send(result)
            except BrokenPipeError:  # the pool closed it just as the unit ended: the result is not wanted
                return 0


async def _run(
    unit: Unit, connection: Connection[UnitResult | None, Unit], start_node: NodeStarter
) -> UnitResult | None:
    """None if the pool closed the connection or died: then the run was torn down."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(run_unit(unit, start_node))

    def cancel_once() -> None:  # the pool sends nothing during a run, so readable means closed
        loop.remove_reader(connection.fileno())
        task.cancel()

    loop.add_reader(connection.fileno(), cancel_once)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        loop.remove_reader(connection.fileno())


Keep = Literal["never", "failed", "always"]
RUN_OVERHEAD = 64 << 20
"""Bytes of a run beyond its guests and caches: unshared memory of node, zygote and guests, and the rules' buffers."""
SCRATCH = ".unit-"
_HUGE = "hugetlb_mib"


@dataclass(frozen=True, slots=True)
class Unit:
    """One run to make. `path` is for messages, and flag files are looked up beside it; it needs `need` bytes at most.

    `keep` says which runs leave their folder (without caches) in `runs_dir`, or `packed` in the result; `time_limit` is
    in seconds, `cache_dir` replaces the scenario's setting. Every path must be absolute. `host_needs` are the resources
    besides memory that its host must have: names with amounts.
    """

    name: str
    text: str
    path: Path
    runs_dir: Path
    need: int
    seed: int | None = None
    time_limit: float = 120.0
    trace: bool = False
    keep: Keep = "failed"
    cache_dir: Path | None = None
    packed: bool = False
    host_needs: tuple[tuple[str, int], ...] = ()
    flag_file: Path | None = None

    @classmethod
    def of(cls, name: str, scenario: Scenario, runs_dir: Path, *, seed: int | None = None) -> Unit:
        """A unit that runs this scenario, with its needs; for other settings use dataclasses.replace."""
        path, file = scenario.path.absolute(), scenario.flag_file
        return cls(
            name,
            scenario.source_text,
            path,
            runs_dir.absolute(),
            memory_need(scenario),
            seed,
            host_needs=host_needs(scenario),
            flag_file=None if file is None else file.absolute(),
        )


DEATHS = f"{INVARIANT}deaths_explained"
_ENDS = (events.Judged, events.PauseSettled, events.FaultFired)
_TRACED = (events.StepStarted, events.PointReached)


@dataclass(frozen=True, slots=True)
class UnitResult:
    """How a unit ended. `error` is why there is no verdict; `run_dir` is None if nothing was kept.

    `entries` are the ledger's entries about judgements, ends of pauses and fired faults; for a traced run also its
    steps and fault points. `states` is each sandbox's state at the end, before teardown; `packed` is the kept folder if
    it was to be packed.
    """

    name: str
    verdict: str | None
    digest: str | None = None
    entries: tuple[Entry, ...] = ()
    states: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    run_dir: Path | None = None
    packed: bytes | None = field(default=None, repr=False)

    def each(self, kind: type[E]) -> Iterator[tuple[Entry, E]]:
        """Every event of one kind with its entry, in the ledger's order."""
        return ((entry, entry.event) for entry in self.entries if isinstance(entry.event, kind))

    @property
    def judged(self) -> tuple[events.Judged, ...]:
        """Every invariant and expectation that was judged."""
        return tuple(event for _, event in self.each(events.Judged))

    @property
    def settled(self) -> dict[str, events.PauseSettled]:
        """How each pause and checkpoint ended, by its id."""
        return {entry.pause or "": event for entry, event in self.each(events.PauseSettled)}

    @property
    def violated(self) -> tuple[events.Judged, ...]:
        """The violated judgements, expected or not."""
        return tuple(each for each in self.judged if each.verdict == Verdict.VIOLATED)

    @property
    def cut_off(self) -> events.Judged | None:
        """The judgement that it ended before its last step; None if every step was taken."""
        return next((each for each in self.judged if each.subject in CUT_OFF), None)

    @property
    def unproven(self) -> events.Judged | None:
        """Why it proves nothing, whatever else was judged: it was cut off, or a process died without a reason."""
        died = (each for each in self.judged if each.subject == DEATHS and each.verdict == Verdict.INCONCLUSIVE)
        return self.cut_off or next(died, None)

    @property
    def why_broken(self) -> str | None:
        """The last line of `error`, or that it has no verdict; None if it has one."""
        if self.error is None and self.verdict is not None:
            return None
        return (self.error or "it ended without a verdict").strip().splitlines()[-1]

    @property
    def counts(self) -> dict[str, int]:
        """Sandboxes by final state."""
        return dict(Counter(self.states.values()))


def first_reason(judged: events.Judged) -> dict[str, Any]:
    """Its first violation; if it has none, a reason that says so."""
    return judged.violations[0] if judged.violations else {"reason": f"{judged.subject} is {judged.verdict}"}


def why(judged: events.Judged) -> str:
    """Its first reason, in words."""
    return str(first_reason(judged).get("reason", judged.verdict))


def memory_need(scenario: Scenario) -> int:
    """Bytes at most: guests, copies (twice the dirty memory if nothing is punched), copiers, and the run's processes.

    The node's budget caps guests and copies. A `hot` guest writes all of its memory once.
    """
    punched = _always_punches(scenario)
    sandboxes = scenario.sandboxes()
    copies = 0
    for each in sandboxes:
        share = 1.0 if each.workload.pattern == "hot" else each.workload.dirty / 100
        dirty = int(each.memory * share)
        copies += min(PUNCHED_PEAK, dirty) if punched else 2 * dirty
        copies += most_copier_bytes(each.memory, each.page_size, each.block_size)
    guests = sum(each.memory for each in sandboxes)
    largest = max(each.memory for each in sandboxes)  # a rule reads one snapshot at a time
    return min(scenario.node.memory, guests + copies) + largest + RUN_OVERHEAD


def host_needs(scenario: Scenario) -> tuple[tuple[str, int], ...]:
    """What its host must have besides memory: its requirements, huge pages in MiB, virtual machines, a system call
    filter, a key."""
    huge = sum(each.memory for each in scenario.sandboxes() if each.page_size == HUGE_PAGE)
    needs = dict.fromkeys(map(str, scenario.requires), 1)
    if any(each.guest == "vm" for each in scenario.sandboxes()):
        needs["kvm"] = 1
    if huge:
        needs[_HUGE] = huge >> 20
    if any(isinstance(step, Inject) and step.by == "kernel" for step in scenario.steps):
        needs["call_filter"] = 1
    if scenario.flag_source == "launchdarkly":
        needs["launchdarkly"] = 1
    return tuple(needs.items())


def _always_punches(scenario: Scenario) -> bool:
    """True if every sandbox always has punching on, whatever the steps do."""
    written = [scenario.flag_values.get(PUNCH)]
    written += [step.values[PUNCH] for step in scenario.steps if step.kind == "flag" and PUNCH in step.values]
    return scenario.flag_source == "inline" and all(value is True for value in written)


def scratch(runs_dir: Path, worker_pid: int) -> Path:
    """The folder in which a worker makes its runs; a kept run is moved out when it is over."""
    return runs_dir / f"{SCRATCH}{worker_pid}"


def remove_leftovers(folder: Path) -> None:
    """End and remove what the runs of a dead worker have left: processes, caches, cgroups, and the folder itself.

    If something of a run remains, so does its folder, for `snapdrill clean` to find it.
    """
    for file in list(folder.glob(f"*/*/{RUN_FILE}")):
        try:
            if not (record := read_record(file.parent)).ended:
                end_leftovers(record, file.parent)
        except (UserError, EngineError):
            continue
        shutil.rmtree(file.parent, ignore_errors=True)
    if not any(folder.glob(f"*/*/{RUN_FILE}")):
        shutil.rmtree(folder, ignore_errors=True)
