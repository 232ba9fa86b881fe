"""A new guest's memory and processor as a build has them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from engine.cache import Cache
from engine.effects import Effects
from engine.resume import fill
from engine.snapshot import Build, Header
from sim.node.guest_link import Guest
from sim.node.sandbox import Sandbox
from sim.node.vcpu import VCPU, opened
from sim.record.oracle import GENERATIONS


def refill(
    sandbox: Sandbox, guest: Guest, builds: Path, header: Header, copying: Cache | None, effects: Effects
) -> int:
    """From finished builds, and from the one that is still being copied: its readers wait chunk by chunk.

    A finished build's own header says what it holds: a restarted node may know no more of it than its name.

    Gives the bytes that were filled; raises CorruptBuildError, GuestError, OSError.
    """
    if copying is not None:
        guest.restore_generations(sandbox.generations)
    else:
        with closing(Build.open(builds, header.build)) as build:
            header = sandbox.header = build.header
            guest.restore_generations(build.attachment(GENERATIONS))
            if guest.is_vm:
                sandbox.processor = opened(build.attachment(VCPU), sandbox.config.name, header.build)
    written = fill(guest.memory(), builds, header, copying, effects)
    if guest.is_vm:
        guest.restore_processor(sandbox.processor)
    return written
