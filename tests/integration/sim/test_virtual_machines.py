"""Sandboxes that are virtual machines: the same bytes, the same digests, and a processor that goes on where it was."""

from __future__ import annotations

import asyncio
import mmap
import os
import pathlib
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.errors import FreezeError
from sim.files.guests import with_guests
from sim.files.scenario import Scenario, load_text
from sim.node.guest import side_size
from sim.node.guest_link import GuestError
from sim.node.vcpu import VCPU
from sim.node.vm import VirtualMachine, VmError
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.oracle import PAGE, ZEROED, generations, key_of, mismatches
from sim.record.vm_program import PROGRAM_PAGE
from sim.run.host import KVM, Available, capability
from sim.run.needs import missing
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

ROOT = pathlib.Path(__file__).parents[3]
MIB = 1 << 20
KEY = key_of(1, "web-0")


@pytest.fixture(autouse=True)
def kvm() -> None:
    found = capability(KVM)
    if found.available is Available.NO:
        pytest.skip(f"needs virtual machines: {found.detail}")


class Made:
    """A machine of this process, and its memory."""

    def __init__(self, size: int, *, in_ram: bool) -> None:
        self.size = size
        self.memory, self.side = mmap.mmap(-1, size), mmap.mmap(-1, side_size(size))
        self.vm = VirtualMachine(self.memory, self.side, "snapdrill-test", key=KEY, in_ram=in_ram)

    def wrong(self) -> list[int]:
        """Pages that do not hold what their generations say."""
        pages = generations(self.side[: self.size // PAGE * 4])
        return [each.page for each in mismatches(KEY, pages, iter([self.memory[:]]))]


@contextmanager
def made(size: int = MIB, *, in_ram: bool = False) -> Iterator[Made]:
    one = Made(size, in_ram=in_ram)
    try:
        yield one
    finally:
        one.vm.close()


def test_a_machine_writes_what_the_oracle_says_and_its_log_names_each_page() -> None:
    draw = random.Random(11)
    with made() as one:
        for tick in range(1, 9):
            chosen = draw.sample(range(256), draw.randrange(257))
            one.vm.write([(page, tick | ZEROED if draw.random() < 0.3 else tick) for page in chosen])
            assert one.wrong() == []
            assert [page for page, is_logged in enumerate(one.vm.written()) if is_logged] == sorted(chosen)


def test_a_machine_whose_program_was_freed_executes_zeros_to_the_end_of_its_memory() -> None:
    with made(in_ram=True) as one:
        one.memory[:PAGE] = PROGRAM_PAGE
        one.vm.write([(7, 5)])
        assert one.wrong() == [0]  # the program, which this test wrote without noting its generation
        one.memory[:] = bytes(one.size)
        died = r"KVM_EXIT_INTERNAL_ERROR at rip 0xf?ffff., at the end of its memory; "
        died += r"at 0x\w\w it had e9( \w\w){7}, now 00( 00){7}"
        with pytest.raises(VmError, match=died) as caught:
            one.vm.write([(7, 6)])
        end = caught.value.end
        assert (end["exit"], end["past_memory"], end["found"]) == ("INTERNAL_ERROR", True, "00 00 00 00 00 00 00 00")
        assert bytes.fromhex(end["had"]) == PROGRAM_PAGE[end["began"] :][:8]


def test_a_state_that_is_restored_elsewhere_goes_on_where_it_was() -> None:
    with made() as one, made() as other:
        one.vm.write([(1, 5)])
        state = one.vm.save()
        assert one.vm.save() == state
        assert other.vm.restore(state)
        other.vm.write([(2, 6)])
        assert (other.wrong(), generations(other.side[:16]).tolist()) == ([], [0, 0, 6, 0])


def test_a_state_that_the_processor_does_not_take_over_is_noticed() -> None:
    with made() as one:
        state = bytearray(one.vm.save())
        state[312 + 392 + 4096 + 128 : 312 + 392 + 4096 + 132] = b"\x01\0\0\0"  # no such mode without an APIC
        with pytest.raises(OSError, match="Invalid argument"):
            one.vm.restore(bytes(state))


def test_a_guest_that_is_a_machine_is_stopped_and_woken_and_goes_on(zygotes: Callable[..., Any]) -> None:
    zygote = zygotes()
    guest = zygote.newborn(zygote.connect(), "web-0.1", guest="vm")
    guest.receive()
    assert guest.arm().tracker == "write-protect-scan"
    for number in range(1, 4):
        guest.answer(guest.start_tick(number))
        state = guest.save_processor()
        guest.process.freeze()
        assert guest.process.is_stopped()
        assert guest.tracker is not None
        assert guest.tracker.written(rearm=False) == guest.tracker.logged()
        os.kill(guest.pid, signal.SIGCONT)
        assert guest.save_processor() == state
    guest.kill()


def test_a_process_has_no_processor_state_and_takes_none(zygotes: Callable[..., Any]) -> None:
    zygote = zygotes()
    (guest,) = zygote.spawn(zygote.connect(), "web-0.1")
    assert guest.save_processor() == b""
    with pytest.raises(GuestError, match="does not hold the processor state"):
        guest.restore_processor(bytes(10))
    guest.kill()


def test_the_state_of_a_dead_machine_cannot_be_saved(zygotes: Callable[..., Any]) -> None:
    zygote = zygotes()
    guest = zygote.newborn(zygote.connect(), "web-0.1", guest="vm")
    guest.receive()
    guest.kill()
    with pytest.raises(FreezeError, match="its processor state cannot be saved"):
        guest.save_processor()


PROGRAM_IN_RAM = """\
name: program-in-ram
fleet:
  - {name: web, count: 2, memory: 4MiB, workload: {dirty: 50%, program: ram}}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: false}
steps:
  - tick: 1
  - pause: {}
  - resume: {}
  - tick: 1
  - pause: {}
  - resume: {}
"""


def run(scenario: Scenario, folder: pathlib.Path) -> StoredRun:
    if reason := missing(scenario):
        pytest.skip(f"{scenario.title}: {reason}")
    return asyncio.run(run_scenario(scenario, RunOptions(runs_dir=folder, start_node=forked_node)))


def test_a_program_in_memory_has_the_same_digest_with_processes_and_with_machines(tmp_path: pathlib.Path) -> None:
    scenario = load_text(PROGRAM_IN_RAM, pathlib.Path("program-in-ram.yaml"))
    results = [run(with_guests(scenario, kind), tmp_path) for kind in ("process", "vm")]
    ends = [each.view.ended for each in results if each.view.ended is not None]
    assert [each.verdict for each in ends] == ["held", "held"]
    assert ends[0].digest == ends[1].digest
    kinds = [
        {each.event.guest for each in told.entries if isinstance(each.event, events.GuestSpawned)} for told in results
    ]
    assert kinds == [{"process"}, {"vm"}]


TWO_LIVES = """\
name: two-lives
fleet:
  - {name: web, count: 2, memory: 4MiB, guest: vm, workload: {dirty: 50%}}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: false}
steps:
  - tick: 1
  - pause: {}
"""


async def _resumed(folder: pathlib.Path, harm: Callable[[pathlib.Path], None]) -> Any:
    from sim.run.drill import Drill

    drill = Drill(load_text(TWO_LIVES, folder / "lives.yaml"), runs_dir=folder / "runs", start_node=forked_node)
    async with drill:
        await drill.tick()
        await drill.pause(["web-0", "web-1"])
        harm(drill.cache_dir)
        await drill.resume(["web-0"])
        return drill.view().sandboxes["web-0"]


def test_a_resume_without_its_processor_state_or_with_a_foreign_one_is_refused(tmp_path: pathlib.Path) -> None:
    lost = asyncio.run(_resumed(tmp_path, lambda builds: (builds / "web-0.p1" / VCPU).unlink()))
    assert (lost.state, "it lacks vcpu" in lost.reason) == ("paused", True)

    def swap(builds: pathlib.Path) -> None:
        (builds / "web-0.p1" / VCPU).write_bytes((builds / "web-1.p1" / VCPU).read_bytes())

    foreign = asyncio.run(_resumed(tmp_path, swap))
    assert (foreign.state, "is that of build web-1.p1 of web-1" in foreign.reason) == ("paused", True)


def test_a_zygote_of_machines_loads_no_numpy() -> None:
    code = "import sys, sim.node.zygote; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
