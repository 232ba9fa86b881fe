"""What is measured one call at a time."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from engine.errors import EngineError
from flags.catalog import CATALOG
from flags.context import SandboxAttributes
from flags.inline import Rollout, flag_from
from flags.launchdarkly import Items
from flags.memory import MemoryFlags
from sim.files.scenario import load
from sim.files.shipped import scenario_folder
from sim.node.config import NodeConfig
from sim.node.guest import GuestSpec
from sim.node.process import connect_zygote
from sim.node.zygote_link import ZygoteLink
from sim.rollout.bench_host import Watch
from sim.rollout.bench_ways import Bench, BenchCase, BenchTaken
from sim.run.cases import Unit, UnitResult
from sim.run.pool import LocalPool, default_memory
from sim.run.sweep import Swept

_GUESTS = 20
_DECISIONS = 2000
ENVIRONMENT = 300
"""Flags of a large LaunchDarkly environment."""
_GUEST_MEMORY = 16 << 20


def processes(_bench: Bench, _case: BenchCase) -> BenchTaken:
    """Medians of guests that are processes, in ms: `spawn_ms` from asking the zygote until memory is handed over.

    `tick_ms` for a tick that writes again what an earlier one wrote; `freeze_ms` until it is confirmed stopped.
    """
    return _guests("process")


def machines(_bench: Bench, _case: BenchCase) -> BenchTaken:
    """The same of virtual machines; a freeze saves the processor's state first."""
    return _guests("vm")


def _guests(kind: str) -> BenchTaken:
    with _zygote() as link, Watch() as watch:
        taken = [_one_guest(link, number, kind) for number in range(_GUESTS)]
    spawn, tick, freeze = (statistics.median(column) * 1e3 for column in zip(*taken, strict=True))
    return BenchTaken.by(watch, {"spawn_ms": spawn, "tick_ms": tick, "freeze_ms": freeze})


def _one_guest(link: ZygoteLink, number: int, kind: str) -> tuple[float, float, float]:
    spec = GuestSpec(
        run="bench",
        sandbox=f"web-{number}",
        incarnation=f"web-{number}.1",
        seed=1,
        memory=_GUEST_MEMORY,
        page_size=4096,
        block_size=4096,
        dirty=0.4,
        heartbeat=0.0,
        pattern="scattered",
        guest=kind,
    )
    begun = time.perf_counter()
    guest = link.spawn(spec)
    guest.receive()
    spawned = time.perf_counter()
    guest.arm()
    guest.answer(guest.start_tick(1))
    ready = time.perf_counter()
    guest.answer(guest.start_tick(2))
    ticked = time.perf_counter()
    guest.save_processor()
    guest.process.freeze()
    frozen = time.perf_counter()
    guest.kill()
    guest.close()
    return spawned - begun, ticked - ready, frozen - ticked


@contextlib.contextmanager
def _zygote() -> Iterator[ZygoteLink]:
    """A zygote as a node has one; it and its guests are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="snapdrill-bench-"))
    where = str(folder)
    config = NodeConfig(
        run="bench",
        run_dir=where,
        builds=where,
        socket_dir=where,
        seed=1,
        began=time.monotonic(),
        budget=0,
        grace=1.0,
        cgroup=None,
        mutant=None,
        sandboxes=[],
        inline_flags=None,
        flag_file=None,
    )
    try:
        link, pid = connect_zygote(config)
        try:
            yield link
        finally:
            link.end()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def decision(_bench: Bench, _case: BenchCase) -> BenchTaken:
    """`p50_us` and `p99_us` of one decision over the whole catalogue, every flag a percentage rollout."""
    return _decisions({})


def decision_among_others(_bench: Bench, _case: BenchCase) -> BenchTaken:
    """The same where the environment has hundreds of flags that no pause reads."""
    rollout = flag_from(CATALOG[0].key, Rollout(50, "sandbox"))
    return _decisions({f"other-{n}": {**rollout, "key": f"other-{n}"} for n in range(ENVIRONMENT - len(CATALOG))})


def _decisions(others: Items) -> BenchTaken:
    client = MemoryFlags({**{flag.key: flag_from(flag.key, Rollout(50, "sandbox")) for flag in CATALOG}, **others})
    try:
        everyone = [SandboxAttributes(f"web-{n}", template="python", team=f"team-{n % 7}") for n in range(_DECISIONS)]
        client.decide(everyone[0])
        with Watch() as watch:
            taken = [_decide_one(client, attributes) for attributes in everyone]
    finally:
        client.close()
    cuts = statistics.quantiles(taken, n=100)
    return BenchTaken.by(watch, {"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6})


def _decide_one(client: MemoryFlags, attributes: SandboxAttributes) -> float:
    begun = time.perf_counter()
    made = client.decide(attributes)
    seconds = time.perf_counter() - begun
    if any(each.reason != "FALLTHROUGH" for each in made.evaluations):
        raise EngineError(f"a flag was not evaluated: {made.evaluations}")
    return seconds


WORKERS = 2
_ALONE = 4
"""Runs that are made one at a time; side by side it is twice as many."""
_LOOK = 0.2  # seconds in which nothing of ours runs: what disturbs then disturbs the runs too


def runs(_bench: Bench, _case: BenchCase) -> BenchTaken:
    """`first_ms` from the pool's start until a first run has ended; runs a second of one worker at a time, and of two.

    A run is that of a case, with no fault.
    """
    with Watch() as watch:
        time.sleep(_LOOK)
    with tempfile.TemporaryDirectory(prefix="snapdrill-bench-") as folder:
        units = _units(Path(folder))
        begun = time.perf_counter()
        with LocalPool(WORKERS, default_memory()) as pool:
            _held(pool.run([next(units)]))
            first = time.perf_counter() - begun
            _held(pool.run(itertools.islice(units, 2 * WORKERS)))  # now both have begun
            together = _per_second(pool, [list(itertools.islice(units, 2 * _ALONE))])
            alone = _per_second(pool, [[each] for each in itertools.islice(units, _ALONE)])
    return BenchTaken.by(watch, {"first_ms": first * 1e3, "alone_per_s": alone, "together_per_s": together})


def _units(runs_dir: Path) -> Iterator[Unit]:
    scenario = load(scenario_folder("sweep") / "small.yaml")
    unit = Unit.of("run", scenario, runs_dir)
    text = Swept(scenario, scenario.seed).clean()
    return (replace(unit, name=f"run-{number}", text=text, keep="never") for number in itertools.count())


def _per_second(pool: LocalPool, batches: list[list[Unit]]) -> float:
    """One batch after the other."""
    begun = time.perf_counter()
    for batch in batches:
        _held(pool.run(batch))
    return sum(map(len, batches)) / (time.perf_counter() - begun)


def _held(results: Iterable[UnitResult]) -> None:
    for result in results:
        if result.verdict != "held":
            raise EngineError(f"a run of the pool did not hold: {result.error or result.verdict}")


_PATIENCE = 60.0
"""Seconds for a measurement of six."""


def fleet_screen(_bench: Bench, _case: BenchCase) -> BenchTaken:
    """`value`: percent of a core that 1,000 sandboxes take at `hz` frames a second; EngineError where it cannot run."""
    with Watch() as watch:
        ran = subprocess.run(
            [sys.executable, "-m", "sim.tui.screen_cost"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    if ran.returncode != 0:
        said = ran.stderr.strip().splitlines()
        raise EngineError(f"the screen cannot be drawn: {said[-1] if said else f'exit code {ran.returncode}'}")
    found = json.loads(ran.stdout)
    return BenchTaken.by(watch, {"value": found["cpu_percent"], "hz": found["hz"]})


def reason_to_leave_out() -> str | None:
    """Why there is no screen on this host; None where there is one."""
    return None if importlib.util.find_spec("textual") else "textual is not installed"
