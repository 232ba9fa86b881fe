"""A real follower of a real file: whatever happens to it, off is obeyed within its bound, or nothing is punched."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flags.client import FlagClientMisusedError
from flags.context import SandboxAttributes
from flags.file import FileFlags
from flags.inline import flag_from
from flags.lease import LEASE_EXPIRED, Lease
from tests.unit.flags.test_any_flag_file import RICH, edited

PUNCH = "memfd-punch-on-snapshot"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
POLL, LEASE, DEADLINE = 0.002, 0.4, 20.0
ON = json.dumps({"flags": {PUNCH: flag_from(PUNCH, True)}})
OFF = json.dumps({"flags": {PUNCH: {**flag_from(PUNCH, True), "on": False}}})
EDITS = 1_000
SEED = int(os.environ.get("FLAG_SEED", "18"))
NOBODY = 65_534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "flags.json").write_text(ON)
    return tmp_path / "flags.json"


@pytest.fixture
def followed(path: Path) -> Iterator[FileFlags]:
    with contextlib.closing(FileFlags(path, poll=POLL, lease=Lease(LEASE))) as source:
        assert source.decide(WEB).is_on(PUNCH)
        yield source


def until(source: FileFlags, *reasons: str) -> float:
    """Seconds until the punch flag is decided for one of these reasons."""
    began = time.monotonic()
    while (found := source.decide(WEB).evaluation(PUNCH)).reason not in reasons:
        assert time.monotonic() < began + DEADLINE, found
        time.sleep(POLL / 4)
    return time.monotonic() - began


def obeys_off(source: FileFlags, where: str) -> None:
    """Off is in the file: a decision that begins when half of the lease is over does not punch."""
    written = time.monotonic()
    while True:
        began = time.monotonic()
        found = source.decide(WEB).evaluation(PUNCH)
        assert found.value is False or began <= written + LEASE / 2, where
        if found.reason == "OFF":
            return
        assert began < written + DEADLINE, where


def replaced(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def test_off_is_obeyed_within_half_of_the_lease_among_a_thousand_random_edits(path: Path, followed: FileFlags) -> None:
    """No refresh() here: the follower looks by itself. Edits in place and by replacing, faster than it looks."""
    draw, kills = random.Random(SEED), 0
    for number in range(EDITS):
        write = replaced if draw.random() < 0.5 else lambda where, text: where.write_text(text, encoding="utf-8")
        write(path, edited(draw, RICH))
        followed.decide(WEB)
        if draw.random() < 0.3:
            write(path, OFF)
            obeys_off(followed, f"FLAG_SEED={SEED}, edit {number}")
            kills += 1
    assert kills > 200
    assert followed._poller.is_alive()


def cut(path: Path) -> None:
    os.truncate(path, len(ON) // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def deleted(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


LOSSES: list[Callable[[Path], None]] = [cut, emptied, deleted, a_folder, a_link_to_nothing]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda each: each.__name__)
def test_a_lost_file_is_obeyed_until_its_lease_ends_and_off_after_it(
    lose: Callable[[Path], None], path: Path, followed: FileFlags
) -> None:
    lose(path)
    assert until(followed, LEASE_EXPIRED) < DEADLINE
    assert followed.status().state == "INTERRUPTED"
    if path.is_dir():
        path.rmdir()
    replaced(path, OFF)
    until(followed, "OFF")
    replaced(path, ON)
    until(followed, "FALLTHROUGH")


def test_a_config_map_swap_is_obeyed(tmp_path: Path) -> None:
    for folder, text in (("..1", ON), ("..2", OFF)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "flags.json").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "flags.json").symlink_to("..data/flags.json")
    with contextlib.closing(FileFlags(tmp_path / "flags.json", poll=POLL, lease=Lease(LEASE))) as source:
        assert source.decide(WEB).is_on(PUNCH)
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        until(source, "OFF")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: a child gives up the right to read the file")
@pytest.mark.privileged
def test_a_file_that_may_no_longer_be_read_is_obeyed_until_its_lease_ends(path: Path) -> None:
    """In a child that is not root, whom no permission would keep out."""
    for folder in (path.parent, *path.parent.parents):
        if folder.stat().st_mode & 0o011 != 0o011 and folder.is_relative_to("/tmp"):  # noqa: S108 - pytest's own
            folder.chmod(folder.stat().st_mode | 0o011)
    path.chmod(0o644)
    codecs.lookup("utf-8-sig")  # now: the child may not read Python's own files where those are root's
    news, ours = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(NOBODY)
            with contextlib.closing(FileFlags(path, poll=POLL, lease=Lease(LEASE))) as source:
                until(source, "FALLTHROUGH")
                os.write(ours, b"1")
                until(source, LEASE_EXPIRED)
                assert "Permission denied" in str(source.status().error)
                os.write(ours, b"2")
                until(source, "OFF")
                code = 0
        finally:
            os._exit(code)
    os.close(ours)
    assert os.read(news, 1) == b"1"
    path.chmod(0)
    assert os.read(news, 1) == b"2"
    path.write_text(OFF)
    path.chmod(0o644)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(news)


def test_a_forked_copy_refuses_and_its_parent_obeys_off(path: Path, followed: FileFlags) -> None:
    child = os.fork()
    if child == 0:
        try:
            followed.decide(WEB)
        except FlagClientMisusedError as error:
            os._exit(0 if "make a client in each process" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    replaced(path, OFF)
    until(followed, "OFF")
