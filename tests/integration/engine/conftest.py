"""Fixtures of the engine's tests; what they give is made in `rig`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import linux
from engine.errors import EngineError
from engine.holders import Holders
from sim.files.units import HUGE_PAGE
from sim.rollout.bench_host import pool_of
from tests.integration.engine.rig import (
    DEADLINE,
    ILL_TYPED,
    MIB,
    SHM,
    Faults,
    Guest,
    Guests,
    Pauser,
    WaitForReaders,
    wait_until,
)
from tests.story import checked_message


@pytest.fixture
def wait_for_readers() -> WaitForReaders:
    """Returns once so many readers wait for something of the cache."""
    return lambda cache, count: wait_until(lambda: len(vars(cache._changed)["_waiters"]) >= count)


class NobodyElse(Holders):
    """A look at all processes in the background would open descriptors that a test counts."""

    def of(self, inode: int, but: set[int]) -> set[int]:
        return set()


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dirty._HOLDERS", NobodyElse())


@pytest.fixture(autouse=True)
def _errors_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineError, "__init__", checked_message, raising=False)


@pytest.fixture(autouse=True)
def _events_say_what_they_are_declared_to() -> Iterator[None]:
    ILL_TYPED.clear()
    yield
    assert not ILL_TYPED


@pytest.fixture
def guests() -> Iterator[Guests]:
    made = Guests()
    yield made
    made.end()


@pytest.fixture
def guest(guests: Guests) -> Guest:
    """8 MiB, every page written, four chunks."""
    return guests.fresh()


@pytest.fixture
def sparse_guest(guests: Guests) -> Guest:
    """8 MiB, every sixteenth page written, four chunks."""
    return guests.fresh(pages=range(0, 2048, 16))


@pytest.fixture
def pauser(tmp_path: Path) -> Pauser:
    return Pauser(tmp_path)


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def shm_pauser() -> Iterator[Pauser]:
    """Builds on tmpfs."""
    if not os.access(SHM, os.W_OK):
        pytest.skip(f"needs a writable {SHM}")
    with tempfile.TemporaryDirectory(dir=SHM, prefix="snapdrill-test-") as folder:
        with open(os.path.join(folder, "probe"), "wb") as file:
            if linux.filesystem_magic(file.fileno()) != linux.TMPFS_MAGIC:
                pytest.skip(f"needs a tmpfs at {SHM}")
        yield Pauser(Path(folder))


@pytest.fixture
def write_protection(guests: Guests) -> None:
    """Skips where the kernel's tracker cannot be had."""
    if refused := guests.start(1 * MIB).ask("track"):
        pytest.skip(f"needs userfaultfd write-protection (Linux 6.7, no seccomp filter against it): {refused}")


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """5 MiB of tmpfs in a private user and mount namespace, reached through /proc/PID/root."""
    mount = tmp_path / "small"
    mount.mkdir()
    script = f"mount -t tmpfs -o size=5m,mode=777 none {mount} && echo ready && exec cat"
    try:
        keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        pytest.skip("needs unshare(1) of util-linux")
    with keeper:
        assert keeper.stdin
        assert keeper.stdout
        ready = keeper.stdout.readline()
        if ready:
            yield Path(f"/proc/{keeper.pid}/root{mount}")
        keeper.stdin.close()
        keeper.wait(DEADLINE)
    if not ready:
        pytest.skip("needs a user and mount namespace without privileges")


@pytest.fixture
def huge_pages() -> Iterator[int]:
    """A pool of at least 12 free 2 MiB pages, for one test at a time; given back afterwards."""
    with pool_of(12 * HUGE_PAGE) as refusal:
        if refusal is not None:
            pytest.skip(refusal)
        yield 12
