"""Disks that say more than they give. Few kernels are built with a quota format, so the quota is made up."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest

from engine import linux
from sim.files.scenario import load_text
from sim.run import needs, own_limits

TEXT = "name: x\nfleet: [{name: web, memory: 16MiB, workload: {dirty: 100%}}]\nsteps: [{tick: 1}, {pause: {}}]\n"
SHM = pathlib.Path("/dev/shm")  # noqa: S108 - a tmpfs


@pytest.fixture
def disk(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(own_limits, "filesystem_magic", lambda _: 0)  # whatever holds the folders of tests
    return tmp_path


def refuse(_fd: int, size: int) -> None:
    raise OSError(errno.EDQUOT, f"{size} bytes")


def missing(folder: pathlib.Path) -> list[str]:
    return list(needs._disk(load_text(TEXT, folder / "x.yaml"), folder, None))


def test_what_a_run_writes_is_reserved_on_its_disk_and_given_back(
    disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved, really = [], linux.reserve_beyond_end

    def reserve(fd: int, size: int) -> None:
        really(fd, size)
        reserved.append((size, os.fstat(fd).st_blocks * 512))

    monkeypatch.setattr(own_limits, "reserve_beyond_end", reserve)
    assert missing(disk) == []
    ((asked, taken),) = reserved
    assert 16 << 20 < asked <= taken
    assert list(disk.iterdir()) == []


def test_a_quota_that_is_too_small_is_named_before_the_start(
    disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_limits, "reserve_beyond_end", refuse)
    (found,) = missing(disk)
    assert found.startswith("it writes 1")
    assert found.endswith(f"MiB to {disk}: a quota does not allow that")


def test_no_memory_is_taken_to_try_a_tmpfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_limits, "reserve_beyond_end", refuse)
    assert own_limits.reserve_refusal(SHM, 1 << 20) is None


def test_a_disk_that_cannot_reserve_says_nothing_of_quotas(disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_fd: int, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no such call")

    monkeypatch.setattr(own_limits, "reserve_beyond_end", cannot)
    assert own_limits.reserve_refusal(disk, 1 << 20) is None
