"""A zygote that stalls: what it is asked for is given up in time, and its late answers are taken for nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from sim.node import keeping, zygote_link
from sim.node.guest import GuestSpec
from sim.node.guest_link import Guest, GuestError
from sim.node.keeping import ZygoteKeeper
from sim.node.zygote_link import ZygoteLink, ZygoteSilentError

SPEC = cast("GuestSpec", {"incarnation": "web-0.1", "guest": "process", "heartbeat": 0})


class Stalling:
    """A zygote that answers when the test wants it."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.send(json.dumps({"pid": os.getpid()}).encode())
        self.link = ZygoteLink(ours)
        self.children: list[subprocess.Popen[bytes]] = []

    def asked(self) -> dict[str, Any]:
        """The next request."""
        message, fds, _, _ = socket.recv_fds(self.socket, 65536, 1)
        for fd in fds:
            os.close(fd)
        return dict(json.loads(message))

    def is_asked(self) -> bool:
        self.socket.setblocking(False)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(10)

    def answer(self, request: dict[str, Any]) -> None:
        about: dict[str, Any] = {"id": request["id"], "op": request["op"]}
        if request["op"] != "spawn":
            self.socket.send(json.dumps({**about, "kept": request["build"], "held": True}).encode())
            return
        child = subprocess.Popen(["sleep", "60"])
        self.children.append(child)
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pidfd = os.pidfd_open(child.pid)
        message = json.dumps({**about, "pid": child.pid, "spec": request["spec"]}).encode()
        socket.send_fds(self.socket, [message], [control.fileno(), pidfd])
        os.close(pidfd)
        control.close()
        theirs.close()

    def answers(self) -> threading.Thread:
        """It answers the next request as soon as that comes."""
        thread = threading.Thread(target=lambda: self.answer(self.asked()))
        thread.start()
        return thread


@pytest.fixture
def zygote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stalling]:
    made = Stalling()
    monkeypatch.setattr(zygote_link, "DEADLINE", 0.05)
    monkeypatch.setattr(keeping, "_PATIENCE", 0.05)
    yield made
    for child in made.children:
        child.kill()
        child.wait()
    made.socket.close()
    made.link._connection.close()
    os.close(made.link.pidfd)


def spawned(zygote: Stalling, monkeypatch: pytest.MonkeyPatch) -> Guest:
    monkeypatch.setattr(zygote_link, "DEADLINE", 10.0)
    answering = zygote.answers()
    guest = zygote.link.spawn(SPEC)
    answering.join(10)
    return guest


def test_a_guest_that_comes_too_late_is_killed_whatever_is_asked_next(zygote: Stalling) -> None:
    with pytest.raises(GuestError, match="does not answer"):
        zygote.link.spawn(SPEC)
    zygote.answer(zygote.asked())
    answering = zygote.answers()
    ZygoteKeeper(zygote.link).keep("web-0.p1", 0)
    answering.join(10)
    assert zygote.children[0].wait(10) == -signal.SIGKILL


def test_a_late_guest_of_the_same_name_is_not_the_one_that_is_asked_for(
    zygote: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZygoteSilentError):
        zygote.link.spawn(SPEC)
    zygote.answer(zygote.asked())
    guest = spawned(zygote, monkeypatch)
    assert guest.pid == zygote.children[1].pid
    assert zygote.children[0].wait(10) == -signal.SIGKILL
    guest.close()


def test_after_one_keep_without_an_answer_the_next_ones_fail_at_once_until_it_answers(
    zygote: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = ZygoteKeeper(zygote.link)
    with pytest.raises(ZygoteSilentError):
        keeper.keep("web-0.p1", 0)
    late = zygote.asked()
    monkeypatch.setattr(keeping, "_PATIENCE", 30.0)
    begun = time.monotonic()
    with pytest.raises(ZygoteSilentError):
        keeper.keep("web-1.p1", 0)
    assert time.monotonic() - begun < 5
    assert not zygote.is_asked()
    zygote.answer(late)
    answering = zygote.answers()
    keeper.keep("web-2.p1", 0)
    answering.join(10)


def test_a_late_acknowledgement_costs_no_guest(zygote: Stalling, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZygoteSilentError):
        ZygoteKeeper(zygote.link).keep("web-0.p1", 0)
    zygote.answer(zygote.asked())
    spawned(zygote, monkeypatch).close()


def test_a_silent_zygote_is_asked_to_let_go_all_the_same(zygote: Stalling) -> None:
    keeper = ZygoteKeeper(zygote.link)
    with pytest.raises(ZygoteSilentError):
        keeper.keep("web-0.p1", 0)
    keeper.drop("web-0.p1")
    assert [zygote.asked()["op"], zygote.asked()["op"]] == ["keep", "drop"]


def test_a_keep_does_not_wait_for_as_long_as_a_guest_that_is_being_forked(
    zygote: Stalling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote_link, "DEADLINE", 10.0)
    forking = threading.Thread(target=lambda: zygote.link.spawn(SPEC).close())
    forking.start()
    request = zygote.asked()
    with pytest.raises(ZygoteSilentError, match="another request"):
        ZygoteKeeper(zygote.link).keep("web-0.p1", 0)
    zygote.answer(request)
    forking.join(10)
