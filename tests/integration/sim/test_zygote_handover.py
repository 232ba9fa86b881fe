"""A zygote outlives its nodes: a node's death costs no guest, none is kept for ever, none runs that was stopped."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
from collections.abc import Callable
from typing import Any

import pytest

from engine.incarnation import start_time_of, state_of
from sim.files.units import HUGE_PAGE
from sim.node import zygote_link
from sim.node.guest_link import Guest, GuestError
from sim.node.zygote import request
from sim.node.zygote_link import ZygoteLink, open_zygote

Zygotes = Callable[..., Any]
WaitUntil = Callable[..., Any]


def names(guests: list[Guest]) -> list[str]:
    found = sorted(guest.name for guest in guests)
    for guest in guests:
        guest.close()
    return found


def test_a_node_that_dies_as_it_asks_for_a_guest_costs_no_other_guest(zygotes: Zygotes) -> None:
    zygote = zygotes()
    link = zygote.connect()
    (first,) = zygote.spawn(link, "web-0.1")
    zygote.process.send_signal(signal.SIGSTOP)  # it finds the request and the death at the same time
    for name in ("web-1.1", "web-2.1", "web-3.1"):
        request(link._connection, op="spawn", spec={**first.spec, "incarnation": name})
    link._connection.close()
    zygote.process.send_signal(signal.SIGCONT)
    assert "web-0.1" in names(zygote.connect().living())
    assert zygote.process.poll() is None
    assert first.ask("tick", number=1)


def test_a_node_that_dies_as_it_connects_costs_no_guest(zygotes: Zygotes) -> None:
    zygote = zygotes()
    first = zygote.connect()
    zygote.spawn(first, "web-0.1")
    first._connection.close()
    for _ in range(20):
        open_zygote(zygote.address).close()
    assert names(zygote.connect().living()) == ["web-0.1"]


def test_the_next_node_has_the_same_guest_and_the_same_memory(zygotes: Zygotes) -> None:
    zygote = zygotes()
    first = zygote.connect()
    (guest,) = zygote.spawn(first, "web-0.1")
    guest.ask("tick", number=1)
    inode, generations = guest.memory().inode, guest.generations()
    guest.start_tick(2)  # its answer comes when nobody waits for it any more
    first._connection.close()
    (again,) = zygote.connect().living()
    again.hand_over_again()
    assert (again.pid, again.memory().inode) == (guest.pid, inode)
    assert again.generations() != generations
    assert again.ask("tick", number=3)["id"] == again._request
    again.close()


def test_a_zygote_left_alone_ends_its_guests_after_the_grace_frozen_or_not(
    zygotes: Zygotes, wait_until: WaitUntil
) -> None:
    zygote = zygotes(grace=0.3)
    link = zygote.connect()
    running, frozen = zygote.spawn(link, "web-0.1", "web-1.1")
    frozen.process.freeze()
    assert not select.select([], [], [], 0.5)[0], "longer than the grace, and a node is there"
    assert zygote.process.poll() is None
    link._connection.close()
    assert zygote.process.wait(10) == 0
    wait_until(lambda: running.is_dead() and frozen.is_dead())


def test_guests_die_with_their_zygote_frozen_or_not(zygotes: Zygotes, wait_until: WaitUntil) -> None:
    zygote = zygotes()
    running, frozen = zygote.spawn(zygote.connect(), "web-0.1", "web-1.1")
    frozen.process.freeze()
    zygote.process.kill()
    zygote.process.wait()
    wait_until(lambda: running.is_dead() and frozen.is_dead())


def test_zygote_and_guests_have_a_session_of_their_own(zygotes: Zygotes) -> None:
    zygote = zygotes()
    (guest,) = zygote.spawn(zygote.connect(), "web-0.1")
    assert os.getsid(zygote.process.pid) == zygote.process.pid
    assert os.getsid(guest.pid) == os.getpgid(guest.pid) == zygote.process.pid


def test_a_hang_up_and_an_interrupt_reach_no_zygote_and_no_guest(zygotes: Zygotes) -> None:
    zygote = zygotes()
    link = zygote.connect()
    running, frozen = zygote.spawn(link, "web-0.1", "web-1.1")
    frozen.process.freeze()
    for number in (signal.SIGHUP, signal.SIGINT):
        os.killpg(zygote.process.pid, number)
    assert running.ask("tick", number=1)
    assert state_of(frozen.pid) == "T"
    assert names(link.living()) == ["web-0.1", "web-1.1"]


def test_sigterm_ends_a_zygote_with_its_guests(zygotes: Zygotes, wait_until: WaitUntil) -> None:
    zygote = zygotes()
    (guest,) = zygote.spawn(zygote.connect(), "web-0.1")
    zygote.process.terminate()
    assert zygote.process.wait(10) == -signal.SIGTERM
    wait_until(guest.is_dead)


def test_a_zygote_reaps_its_guests_whatever_signals_its_starter_ignored(
    zygotes: Zygotes, wait_until: WaitUntil
) -> None:
    def ignore() -> None:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    zygote = zygotes(preexec_fn=ignore)
    link = zygote.connect()
    first, second = zygote.spawn(link, "web-0.1", "web-1.1")
    open_before = len(zygote.descriptors())
    first.kill()
    wait_until(lambda: start_time_of(first.pid) is None)
    assert names(link.living()) == ["web-1.1"]
    assert len(zygote.descriptors()) == open_before - 2
    zygote.process.terminate()
    assert zygote.process.wait(10) == -signal.SIGTERM
    wait_until(second.is_dead)


def test_to_end_it_twice_is_harmless(zygotes: Zygotes) -> None:
    zygote = zygotes()
    link = zygote.connect()
    (guest,) = zygote.spawn(link, "web-0.1")
    link.end()
    assert zygote.process.wait(1) == 0
    assert guest.is_dead()
    link.end()


def test_a_zygote_that_does_not_obey_is_killed(zygotes: Zygotes, monkeypatch: pytest.MonkeyPatch) -> None:
    zygote = zygotes()
    link = zygote.connect()
    (guest,) = zygote.spawn(link, "web-0.1")
    zygote.process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(zygote_link, "DEADLINE", 0.2)
    link.end()
    assert zygote.process.wait(1) == -signal.SIGKILL
    assert guest.process.kill(5.0) is None


def test_a_late_answer_is_not_taken_for_another_guest(zygotes: Zygotes, monkeypatch: pytest.MonkeyPatch) -> None:
    zygote = zygotes()
    link = zygote.connect()
    zygote.answer_too_late(link, "web-0.1")
    (guest,) = zygote.spawn(link, "web-1.1")
    assert guest.name == "web-1.1"
    link._connection.close()
    assert names(zygote.connect().living()) == ["web-1.1"]


def test_a_guest_that_cannot_be_forked_is_refused_and_the_others_live_on(
    zygotes: Zygotes, wait_until: WaitUntil
) -> None:
    few = 16
    zygote = zygotes(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)))
    link = zygote.connect()
    made: list[Guest] = []

    def spawn_many() -> None:
        for index in range(few):
            made.extend(zygote.spawn(link, f"web-{index}.1"))

    with pytest.raises(GuestError, match="cannot fork: Too many open files"):
        spawn_many()
    assert len(made) > 2
    assert all(guest.ask("tick", number=1) for guest in made)
    before = len(zygote.descriptors())
    made[0].kill()
    wait_until(lambda: len(zygote.descriptors()) == before - 2)
    zygote.spawn(link, "again-0.1")


def test_a_guest_whose_memory_the_host_refuses_says_so_before_it_dies(zygotes: Zygotes) -> None:
    zygote = zygotes()
    guest = zygote.newborn(zygote.connect(), "web-0.1", memory=1 << 40, page_size=HUGE_PAGE)  # more than any pool has
    with pytest.raises(GuestError, match=r"^web-0\.1 has no memory of 1024GiB: ."):
        guest.receive()


def test_a_zygote_keeps_nothing_of_dead_guests_and_dead_nodes(zygotes: Zygotes, wait_until: WaitUntil) -> None:
    zygote = zygotes()
    link = zygote.connect()
    before = len(zygote.descriptors())
    guests = zygote.spawn(link, "web-0.1", "web-1.1")
    assert len(zygote.descriptors()) == before + 4
    for guest in guests:
        guest.kill()
    wait_until(lambda: len(zygote.descriptors()) == before)
    for _ in range(3):
        link._connection.close()
        link = zygote.connect()
    assert len(zygote.descriptors()) == before


def test_a_guest_holds_nothing_of_its_zygote_or_of_its_siblings(zygotes: Zygotes) -> None:
    zygote = zygotes()
    _, guest = zygote.spawn(zygote.connect(), "web-0.1", "web-1.1")
    folder = f"/proc/{guest.pid}/fd"
    found = [os.readlink(f"{folder}/{fd}").partition(" ")[0] for fd in os.listdir(folder) if int(fd) > 2]
    memory = {"/memfd:snapdrill-zygote-test-web-1.1", "/memfd:snapdrill-zygote-test-web-1.1-side"}
    (control,) = [name for name in found if name.startswith("socket:")]
    assert memory <= set(found) <= {*memory, control, "anon_inode:[userfaultfd]"}


def test_a_node_short_of_descriptors_is_told_so_and_loses_none(zygotes: Zygotes) -> None:
    """In a process of its own: the limit cannot be lifted again."""
    zygote = zygotes()
    link = zygote.connect()
    pid = os.fork()
    if pid == 0:
        os._exit(_spawn_without_descriptors(link))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _spawn_without_descriptors(link: ZygoteLink) -> int:
    """0 where the error says what to do and no fd is left over."""
    before = os.listdir("/proc/self/fd")
    highest = max(map(int, before)) + 2  # room for one more
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = [os.dup(0) for _ in range(highest - len(before))]
    spec = json.loads(json.dumps({"incarnation": "web-0.1", "run": "r", "sandbox": "web-0", "guest": "process"}))
    try:
        link.spawn(spec)
    except GuestError as error:
        for fd in taken:
            os.close(fd)
        return 0 if "ulimit -n" in str(error) and len(os.listdir("/proc/self/fd")) == len(before) else 2
    except BaseException:  # noqa: BLE001 - a forked child may not return into pytest
        return 3
    return 4
