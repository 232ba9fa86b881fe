"""What is measured one call at a time: forking a guest, deciding the flags, comparing pages."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.errors import EngineError
from flags.catalog import CATALOG
from flags.context import SandboxAttributes
from flags.inline import Rollout, flag_from
from flags.launchdarkly import Items
from flags.memory import MemoryFlags
from sim.bench.candidates import Bench, Case, Taken
from sim.bench.watch import Watch
from sim.guest import GuestSpec
from sim.guest_handle import ZygoteLink
from sim.node_config import NodeConfig
from sim.node_process import connect_zygote

_GUESTS = 20
_DECISIONS = 2000
ENVIRONMENT = 300
"""Flags of a large LaunchDarkly environment."""
_GUEST_MEMORY = 16 << 20


def spawn(_bench: Bench, _case: Case) -> Taken:
    """`value` is the median ms from asking the zygote until a guest has handed its memory over."""
    with _zygote() as link, Watch() as watch:
        taken = [_spawn_one(link, number) for number in range(_GUESTS)]
    return Taken({"value": statistics.median(taken) * 1e3}, watch.noisy)


def _spawn_one(link: ZygoteLink, number: int) -> float:
    spec = GuestSpec(
        run="bench",
        sandbox=f"web-{number}",
        incarnation=f"web-{number}.1",
        seed=1,
        memory=_GUEST_MEMORY,
        page_size=4096,
        block_size=4096,
        dirty=0.4,
        pattern="scattered",
    )
    begun = time.perf_counter()
    guest = link.spawn(spec)
    guest.receive()
    seconds = time.perf_counter() - begun
    guest.kill()
    guest.close()
    return seconds


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


def decision(_bench: Bench, _case: Case) -> Taken:
    """`p50_us` and `p99_us` of one decision over the whole catalogue, every flag a percentage rollout."""
    return _decisions({})


def decision_among_others(_bench: Bench, _case: Case) -> Taken:
    """The same where the environment has hundreds of flags that no pause reads."""
    rollout = flag_from(CATALOG[0].key, Rollout(50, "sandbox"))
    return _decisions({f"other-{n}": {**rollout, "key": f"other-{n}"} for n in range(ENVIRONMENT - len(CATALOG))})


def _decisions(others: Items) -> Taken:
    client = MemoryFlags({**{flag.key: flag_from(flag.key, Rollout(50, "sandbox")) for flag in CATALOG}, **others})
    try:
        everyone = [SandboxAttributes(f"web-{n}", template="python", team=f"team-{n % 7}") for n in range(_DECISIONS)]
        client.decide(everyone[0])
        with Watch() as watch:
            taken = [_decide_one(client, attributes) for attributes in everyone]
    finally:
        client.close()
    cuts = statistics.quantiles(taken, n=100)
    return Taken({"p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6}, watch.noisy)


def _decide_one(client: MemoryFlags, attributes: SandboxAttributes) -> float:
    begun = time.perf_counter()
    made = client.decide(attributes)
    seconds = time.perf_counter() - begun
    if any(each.reason != "FALLTHROUGH" for each in made.evaluations):
        raise EngineError(f"a flag was not evaluated: {made.evaluations}")
    return seconds
