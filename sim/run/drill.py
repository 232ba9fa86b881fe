"""One run: folder, ledger, node, flags."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.events import Event
from flags.inline import InlineValue, as_written
from sim import rules
from sim.files.faults import FaultPoint, Harm, Place, describe_place, to_json
from sim.files.flag_values import ServedFlags
from sim.files.scenario import Scenario
from sim.files.steps import Outage
from sim.node.cgroup import OVERHEAD, MemoryCgroup
from sim.node.config import Known, NodeConfig
from sim.node.zygote_link import ZYGOTE_SOCKET
from sim.record import events, owner, source_events
from sim.record.digest import digest
from sim.record.folder import SCENARIO_FILE, RunRecord, make, point_latest_at, remove, write_record
from sim.record.ledger import EVENTS_FILE, Entry, drop_torn_line
from sim.record.leftovers import retire_ended
from sim.record.names import CONDEMNED
from sim.record.scenario_copy import store
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding
from sim.rules.heartbeat import Heartbeats
from sim.rules.reality import Reality
from sim.run.build_folders import BuildFolders
from sim.run.flag_source import FlagService, check_source, open_service
from sim.run.judging import after_failures, judge_run, lost_lines
from sim.run.needs import check_limits, set_up_error
from sim.run.node_link import (
    NodeDiedError,
    NodeFailedError,
    NodeLink,
    NodeStarter,
    death_is_recorded,
    end_zygote,
    execute_node,
    outlived,
    raise_failures,
    shielded,
)
from sim.run.node_start import known, run_started, sandbox_configs
from sim.run.run_ledger import RunLedger

GRACE = 30.0
"""Seconds that a zygote waits for a node after a crash."""


class Drill:
    """One run of a scenario's fleet, from start to teardown; teardown always runs, last made first ended. A `long` one
    may go on for hours.

    Facts are in the ledger alone: a request's outcome is in the view, never in a method's return value.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        runs_dir: Path,
        seed: int | None = None,
        only: tuple[str, ...] = (),
        cache_dir: Path | None = None,
        keep: str = "never",
        trace: bool = False,
        heartbeat: float = 0.0,
        start_node: NodeStarter = execute_node,
        long: bool = False,
    ) -> None:
        self.scenario = scenario
        self.seed = scenario.seed if seed is None else seed
        self.run = secrets.token_hex(4)
        self.only = only
        self._runs_dir = runs_dir
        self._cache_parent = cache_dir
        self._keep = keep
        self._trace = trace
        self._start_node_process = start_node
        self._fleet = contextlib.AsyncExitStack()
        self._kept = False
        self._fault_ids = 0
        self._node: NodeLink | None = None
        self._node_expected = self._asked_to_die = False
        self.died: NodeDiedError | None = None
        """Its node or zygote died, and nothing in this run had asked for it."""
        self._judge: Callable[[], dict[str, Finding]] = lambda: {name: Finding() for name in rules.RULES}
        self._looking = asyncio.Lock()
        self.heartbeats = Heartbeats()
        self._sandboxes = sandbox_configs(scenario, only, heartbeat)
        self.run_dir = self.socket_dir = Path()
        self._cgroup_base: int | None = None
        self.cgroup: MemoryCgroup | None = None
        self._ledger = RunLedger(self.heartbeats.take, long=long)

    # -- making and ending a run

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException as error:
            await self.tear_down()
            if isinstance(error, OSError):
                raise set_up_error(error) from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.tear_down()

    async def _start(self) -> None:
        check_source(self.scenario)
        self.run_dir = make(self._runs_dir, self.scenario.name, self.seed, datetime.now(UTC)).absolute()
        self._fleet.callback(owner.give_up, owner.take(self.run_dir))  # last of all
        store(self.scenario, self.run_dir / SCENARIO_FILE)
        self.began = time.monotonic()
        self._ledger.open(self.run_dir / EVENTS_FILE, self.began, len(self._sandboxes))
        try:
            self._folders = BuildFolders.make(
                self.scenario.node, self._cache_parent, self.run_dir, self.run, kept=self._keep != "never"
            )
        except OSError:
            remove(self.run_dir)  # nothing has begun
            raise
        self.cache_dir, spill = self._folders.cache, self._folders.spill
        # If a process is left the run has not ended: `snapdrill clean` may end it once this process is gone.
        self._fleet.callback(lambda: self._write_record(ended=not outlived(self.run)))
        self._fleet.callback(self._remove_cache)
        point_latest_at(self.run_dir)
        self._write_record(ended=False)  # so that `clean` finds it if this process is killed
        self.socket_dir = Path(tempfile.mkdtemp(prefix=f"snapdrill-{self.run}-"))
        self._fleet.callback(shutil.rmtree, self.socket_dir, ignore_errors=True)
        where = self.run_dir, self.cache_dir, self.socket_dir
        self.reality = Reality(self.run, self.seed, *where, heartbeats=self.heartbeats, spill=spill)
        check_limits(len(self._sandboxes), self.socket_dir / ZYGOTE_SOCKET)
        self.cgroup = MemoryCgroup.make(self.run, self.scenario.node.memory + OVERHEAD)
        if self.cgroup is not None:
            self._fleet.callback(self.cgroup.remove)
        self._write_record(ended=False)
        facts = self._folders.facts() | {"cgroup": self.cgroup is not None}
        self.note(run_started(self.scenario, self.run, self.seed, self.only, facts))
        self._open_flags()
        self._fleet.push_async_callback(self._end_node)
        async with self._outlives_a_death():
            await self._start_node({})
            await self._ask("create")
        self._cgroup_base = self.cgroup.usage() if self.cgroup else None
        self._write_record(ended=False)

    def _open_flags(self) -> None:
        self._flags: FlagService = open_service(self.scenario, self.run_dir, self.note)
        self._fleet.callback(self._flags.close)
        for key, value in self.scenario.flag_values.items():
            self.note(events.FlagSet(key, as_written(value)))
        if isinstance(self.scenario.flags, ServedFlags) and self.scenario.flags.start == "down":
            self.note(source_events.OutageBegan("down", "from the start"))

    async def _start_node(self, sandboxes: dict[str, Known]) -> None:
        config = NodeConfig(
            run=self.run,
            run_dir=str(self.run_dir),
            builds=str(self.cache_dir),
            spill=str(self._folders.spill) if self._folders.spill else None,
            socket_dir=str(self.socket_dir),
            seed=self.seed,
            began=self.began,
            grace=GRACE,
            cgroup=str(self.cgroup.folder) if self.cgroup else None,
            **self.scenario.node_settings(),
            sandboxes=self._sandboxes,
            tick=self.view().tick,
            trace=self._trace,
            known=sandboxes,
            **self._flags.node_settings(),
        )
        self._node = await NodeLink.start(config, self.run_dir / "node.json", self._start_node_process)
        self._node_expected, self._asked_to_die = True, False

    def _write_record(self, *, ended: bool) -> None:
        cgroup = self.cgroup.folder if self.cgroup else None
        where, spill = (self.cache_dir, self.socket_dir, cgroup), self._folders.spill
        write_record(self.run_dir, RunRecord.of(self.run, self.entries, *where, ended=ended, spill_dir=spill))

    @contextlib.asynccontextmanager
    async def _outlives_a_death(self) -> AsyncIterator[None]:
        """A process that dies while the fleet is started ends the run with a verdict (`died`), not with an error."""
        try:
            yield
        except NodeDiedError as error:
            self.died = error
        except NodeFailedError as error:
            if not await death_is_recorded(self._entries_by_now):
                raise
            self.died = NodeDiedError(str(error))

    def _entries_by_now(self) -> Sequence[Entry]:
        self.view()
        return self.entries

    async def _end_node(self) -> None:
        """The node ends its guests and zygote when we close; after a crash the zygote obeys us directly."""
        try:
            if self._node is not None:
                await self._node.reap()
        finally:
            await asyncio.to_thread(end_zygote, self.socket_dir)
            self.view()
            retire_ended(self.run_dir / CONDEMNED, self.cache_dir, self.entries, self.note, self._folders.spill)

    async def tear_down(self) -> None:
        """End every process and remove everything that was made; harmless when done already.

        A cancellation takes effect after it is done.
        """
        await shielded(self._fleet.aclose())
        self.heartbeats.close()
        self._ledger.close()

    async def finish(self, expectations: Callable[[View], list[events.Judged]] = lambda _view: []) -> View:
        """Judge everything, with the fleet alive and then after teardown, and write the verdict; the final view."""
        await self._notice_death()
        self._ledger.recall()
        if not self.is_down():
            await self.observe()
        expected = expectations(self.view())
        judged = partial(judge_run, self.scenario, whole_fleet=not self.only)
        failed = self._keep == "failed" and judged(self.findings, expected)[0] != Verdict.HELD
        self.reality.cache_kept = self._kept = failed or self._keep == "always"
        cgroup_peak = self.cgroup.peak() if self.cgroup else None
        await shielded(self._fleet.aclose())
        self.view()
        self.heartbeats.close()  # anything that it still holds would be a leak
        self.reality.torn_down = True
        await self.observe()
        raise_failures(self.entries, self._node)
        expected += lost_lines(self.entries, self._ledger.lost)
        expected = after_failures(self.scenario, self.entries, expected)
        verdict, everything = judged(self.findings, expected)
        for each in everything:
            self.note(each)
        view = self.view()
        deaths = self.findings[rules.deaths_explained.NAME]
        ended = events.RunEnded(
            verdict=verdict,
            exit_code=Verdict(verdict).exit_code,
            counts=view.counts,
            digest=digest(self.entries) if self.scenario.claims_digest and not deaths.missing else None,
            peak_memory=view.memory.peak,
            cgroup_peak=cgroup_peak,
            cgroup_base=self._cgroup_base,
            peak_with_page_cache=view.memory.peak_with_page_cache,
        )
        self.note(ended)
        await self.tear_down()
        return self.view()

    def _remove_cache(self) -> None:
        if not self._kept:
            self._folders.remove()

    def is_down(self) -> bool:
        """True between a crash of the node and its restart."""
        return not self._node_expected

    def view(self) -> View:
        """The ledger up to now, folded; empty before the run has one."""
        return self._ledger.view()

    @property
    def entries(self) -> list[Entry]:
        """The ledger as of the last view; of a long run, until it ends, what is judged."""
        return self._ledger.entries

    async def observe(self) -> None:
        """Have every rule look at reality, now. What a long run shows is judged at once, else when it is asked for."""
        async with self._looking:
            view = self.view()  # first: it reads the ledger on
            evidence = Evidence(list(self.entries), view, self.reality)
            await asyncio.to_thread(rules.observe, evidence)
            judge = cache(partial(rules.judge, evidence))
            if self._ledger.long:
                findings = (await asyncio.to_thread(judge)).values()
                self._ledger.judged(view, {found.get("pause", "") for each in findings for found in each.violations})
            self._judge = judge

    @property
    def findings(self) -> dict[str, Finding]:
        """What the rules found at the last barrier, by the rule's name; nothing before the first one."""
        return self._judge()

    def violations(self) -> list[dict[str, Any]]:
        """The violations that the rules have found so far."""
        return [each for finding in self.findings.values() for each in finding.violations]

    # -- requests

    async def _ask(self, op: str, *, within: float | None = None, **args: Any) -> None:
        if self._node is None:
            raise NodeDiedError("the node is down")
        try:
            async with asyncio.timeout(within):
                await self._node.ask(op, **args)
        except NodeDiedError:
            await self._notice_death()
            raise
        finally:
            self.view()

    async def tick(self, count: int = 1) -> None:
        """Every running guest works, but not while a rule reads its memory."""
        async with self._looking:
            await self._ask("tick", count=count)

    async def pause(
        self,
        names: Sequence[str],
        *,
        concurrency: int = 4,
        until: str = "settled",
        deadline: float = 60.0,
        wave: bool = False,
    ) -> None:
        """Pause; raises TimeoutError after `deadline` seconds, NodeDiedError if an armed crash fired.

        With `wave` the first `concurrency` of them are all frozen before any is copied.
        """
        settled = until == "settled"
        await self.act("pause", names, deadline, concurrency=concurrency, settled=settled, wave=wave)

    async def checkpoint(self, names: Sequence[str], *, deadline: float = 60.0) -> None:
        """Checkpoint; the sandboxes go on, in place or with new guests."""
        await self.act("checkpoint", names, deadline)

    async def resume(self, names: Sequence[str], *, deadline: float = 60.0) -> None:
        """Resume; a refusal is in the view."""
        await self.act("resume", names, deadline)

    async def kill(self, names: Sequence[str]) -> None:
        """End sandboxes for good."""
        await self.act("kill", names)

    async def act(self, op: str, names: Sequence[str], deadline: float | None = None, **how: Any) -> None:
        """Have the node act on sandboxes (`salvage` too), and look at what it did; raises as `pause` does."""
        await self._ask(op, within=deadline, names=list(names), **how)
        await self.observe()

    async def set_flag(self, key: str, value: InlineValue, *, by: str = "scenario") -> None:
        """Returns when the change is effective, or at once in an outage; raises TimeoutError if it never is."""
        began = time.monotonic()
        try:
            effective = await self._flags.set(key, value, self._ask)
        except TimeoutError:
            self.note(events.FlagSet(key, as_written(value), effective=False, by=by))
            raise
        took_ms = round((time.monotonic() - began) * 1e3, 3) if effective else None
        self.note(events.FlagSet(key, as_written(value), effective, took_ms, by))

    async def outage(self, outage: Outage) -> None:
        """Break the flag source, or repair it; raises TimeoutError if the node does not recover."""
        if outage.fault == "recover":
            await self._flags.recover(self._ask)
            self.note(source_events.OutageEnded())
            return
        self.note(source_events.OutageBegan(outage.fault, outage.detail))
        await self._flags.fail(outage, self._ask)

    async def inject(
        self,
        fault: FaultPoint,
        harm: Harm,
        at: Place,
        sandboxes: str,
        count: int | None = None,
        *,
        nth: int | None = None,
        by_kernel: bool = False,
        rate: float | None = None,
    ) -> int:
        """Arm a fault, with a `rate` in that share (0 to 1) of the pauses. Gives its id."""
        self._fault_ids += 1
        number, share = self._fault_ids, "" if rate is None else f", in {rate * 100:g} % of them"
        at_place = describe_place(fault, at, nth) + share
        self.note(events.FaultArmed(number, fault, harm.error, at_place, sandboxes, by_kernel, harm.kind, harm.seconds))
        what = {"fault_id": number, "point": fault, "harm": asdict(harm), "at": to_json(at), "sandboxes": sandboxes}
        drawn = {} if rate is None else {"rate": rate, "seed": self.seed}
        await self._ask("arm", **what, count=count, nth=nth, by_kernel=by_kernel, **drawn)
        return number

    async def clear(self) -> None:
        """Disarm every fault."""
        await self._ask("clear")
        self.note(events.FaultsCleared())

    async def pace(self, sandboxes: str, *, factor: float = 1.0, held: bool = False, steps: int = 0) -> None:
        """Slow copies down, hold them at chunk boundaries, let `steps` pass; a name or a glob."""
        await self._ask("pace", sandboxes=sandboxes, factor=factor, held=held, steps=steps)

    async def crash(self) -> None:
        """SIGKILL the node now."""
        await self._notice_death()
        if self._node is not None:
            self._asked_to_die = True
            await self._node.kill()
            self._record_crash()

    async def _notice_death(self) -> None:
        if self._node is not None and self._node.died.is_set():
            await self._node.reap()
            self._node.raise_own_failure(self._entries_by_now())
            self._record_crash()

    def _record_crash(self) -> None:
        if self._node_expected and self._node is not None:
            self._node_expected = False
            drop_torn_line(self.run_dir / EVENTS_FILE)
            self.note(events.NodeCrashed(self._node.process.pid, self._asked_to_die))
            self.view()

    async def restart(self) -> None:
        """Start the node again; it recovers what the crash left."""
        await self.crash()
        if self.view().faults:
            self.note(events.FaultsCleared())
        await self._start_node({name: known(each, self.entries) for name, each in self.view().sandboxes.items()})
        await self._ask("recover")
        self._write_record(ended=False)
        await self.observe()

    def note(self, event: Event) -> None:
        """Append an event of the runner itself."""
        self._ledger.note(event)
