from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import linux
from engine.linux import TMPFS_MAGIC, filesystem_magic
from sim.files.fleet import NodeSpec
from sim.run import private_tmpfs
from sim.run.build_folders import BuildFolders
from tests.descriptors import open_before

RUN = f"{os.getpid():012x}"  # its folders may lie in /dev/shm, beside those of tests in other processes


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., BuildFolders]]:
    """Makes folders; they are removed afterwards."""
    all_made: list[BuildFolders] = []

    def make(parent: Path | None = None, *, tmpfs: bool = True, kept: bool = False) -> BuildFolders:
        node = NodeSpec(cache="tmpfs" if tmpfs else "disk")
        all_made.append(BuildFolders.make(node, parent, tmp_path, RUN, kept=kept))
        return all_made[-1]

    yield make
    for each in all_made:
        if each.cache.exists():
            each.remove()


@pytest.fixture
def huge() -> None:
    if not private_tmpfs.has_huge():
        pytest.skip("no huge-page caches here: see snapdrill doctor")


def magic_of(folder: Path) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return filesystem_magic(fd)
    finally:
        os.close(fd)


@pytest.mark.usefixtures("huge")
def test_caches_on_a_tmpfs_are_in_huge_pages_and_in_no_mount_table(made: Callable[..., BuildFolders]) -> None:
    mounts = Path("/proc/self/mountinfo").read_bytes()
    caches = made()
    assert caches.huge
    assert caches.facts() == {"huge_cache": True}
    assert magic_of(caches.cache) == TMPFS_MAGIC
    assert Path("/proc/self/mountinfo").read_bytes() == mounts
    caches.remove()
    assert not caches.cache.exists()


@pytest.mark.usefixtures("huge")
def test_another_process_finds_them_by_the_same_path_and_nobody_once_their_maker_is_killed(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    maker = os.fork()
    if maker == 0:
        os.write(theirs, str(BuildFolders.make(NodeSpec(cache="tmpfs"), None, tmp_path, RUN).cache).encode())
        signal.pause()
        os._exit(0)
    path = Path(os.read(ours, 4096).decode())
    (path / "a-file").write_bytes(b"x")
    os.kill(maker, signal.SIGKILL)
    os.waitpid(maker, 0)
    assert not path.exists()
    os.close(ours)
    os.close(theirs)


@pytest.mark.usefixtures("huge")
def test_who_may_not_mount_here_gets_them_from_a_child(
    made: Callable[..., BuildFolders], monkeypatch: pytest.MonkeyPatch
) -> None:
    me, mount = os.getpid(), linux.detached_tmpfs

    def refused_here(options: dict[str, str]) -> int:
        if os.getpid() == me:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return mount(options)

    monkeypatch.setattr(linux, "detached_tmpfs", refused_here)
    caches = made()
    assert caches.huge
    (caches.cache / "ours").write_bytes(b"x")
    assert (caches.cache / "ours").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("why", [errno.EPERM, errno.ENOSYS, errno.EINVAL])
def test_where_there_are_none_they_lie_in_dev_shm(
    made: Callable[..., BuildFolders], monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(linux, "detached_tmpfs", refuse)
    caches = made()
    assert (caches.cache.parent, caches.facts()) == (Path("/dev/shm"), {"huge_cache": False})  # noqa: S108


def test_a_tmpfs_without_huge_pages_is_not_taken(
    made: Callable[..., BuildFolders], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_tmpfs, "_HUGE", {"mode": "700", "huge": "never"})
    fds = open_before()
    assert not made().huge
    assert len(os.listdir("/proc/self/fd")) == fds


def test_what_is_kept_or_has_a_place_given_is_in_a_folder_with_a_name(
    made: Callable[..., BuildFolders], tmp_path: Path
) -> None:
    kept = made(kept=True)
    assert kept.cache.parent == Path("/dev/shm")  # noqa: S108
    kept.remove()
    given = made(tmp_path / "..", tmpfs=True)
    assert (given.huge, given.facts()) == (False, {})
    given.remove()
    on_disk = made(tmpfs=False)
    assert (on_disk.cache.parent, on_disk.facts()) == (tmp_path, {})
