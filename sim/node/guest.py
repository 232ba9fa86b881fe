"""The guest process: owns its memory, writes it by its workload, and keeps the oracle's generations.

Runs in a fork of the zygote, so it imports little. It answers JSON commands on a SEQPACKET socket.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import queue
import random
import signal
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from engine import linux
from sim.node.vm import VirtualMachine, VmError
from sim.record.oracle import PAGE, PROGRAM, ZEROED, content, key_of

_GENERATION = 4  # bytes
_FEW = 32  # pages
BEAT = 4  # bytes


def side_size(memory: int) -> int:
    """Bytes of a side memfd: of each page its generation and whether it was written, and the heartbeat at the end."""
    return memory // PAGE * (_GENERATION + 1) + BEAT


def beat_of(monotonic_ns: int) -> int:
    """A time as a heartbeat writes it: microseconds modulo 2^32."""
    return monotonic_ns // 1000 & 0xFFFFFFFF


class GuestSpec(TypedDict):
    """What a guest is started with; sizes in bytes, `dirty` a share of 1."""

    run: str
    sandbox: str
    incarnation: str
    seed: int
    memory: int
    page_size: int
    block_size: int
    dirty: float
    pattern: str
    heartbeat: float  # seconds between two beats; 0: none
    guest: str  # "process", or "vm": a virtual machine in that process
    threads: NotRequired[int]  # that write; 1 where it is not given
    program: NotRequired[str]  # "ram": the first page of memory holds the program of a virtual machine


def working_set(spec: GuestSpec) -> list[int]:
    """Pages that each tick rewrites, ascending; drawn once from the sandbox's own stream."""
    blocks = spec["memory"] // spec["block_size"]
    share = min(blocks, round(blocks * spec["dirty"]))
    draw = random.Random(f"{spec['seed']}:workload:{spec['sandbox']}")
    chosen = _chosen_blocks(spec["pattern"], blocks, share, draw)
    per_block = spec["block_size"] // PAGE
    return [block * per_block + page for block in sorted(chosen) for page in range(per_block)]


def _chosen_blocks(pattern: str, blocks: int, share: int, draw: random.Random) -> set[int]:
    if pattern == "full":
        return set(range(share))
    if pattern == "runs":
        chosen: set[int] = set()
        length = max(1, min(64, share // 2))
        while len(chosen) < share:
            start = draw.randrange(blocks)
            chosen.update(range(start, min(blocks, start + length, start + share - len(chosen))))
        return chosen
    return set(draw.sample(range(blocks), share))


class _Guest:
    """One incarnation's memory and workload."""

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.size = spec["memory"]
        self.key = key_of(spec["seed"], spec["sandbox"])
        self._pages: list[int] | None = None
        self.fd = _memfd(f"snapdrill-{spec['run']}-{spec['incarnation']}", self.size, huge=spec["page_size"] > PAGE)
        self.memory = mmap.mmap(self.fd, self.size)
        count, size = self.size // PAGE, side_size(self.size)
        self.side_fd = _memfd(f"snapdrill-{spec['run']}-{spec['incarnation']}-side", size)
        self.side = mmap.mmap(self.side_fd, size)
        self.generations = memoryview(self.side)[: count * _GENERATION].cast("I")
        self.written = memoryview(self.side)[count * _GENERATION : count * (_GENERATION + 1)]
        self.tracking_fd = -1
        self.threads = spec.get("threads", 1)
        self._work = [queue.SimpleQueue[tuple[Sequence[int], int]]() for _ in range(self.threads - 1)]
        self._done = queue.SimpleQueue[None]()
        self.program_in_ram = spec.get("program") == "ram"
        self.vm: VirtualMachine | None = None
        if spec["guest"] == "vm":
            name = f"snapdrill-{spec['run']}-{spec['incarnation']}-machine"
            self.vm = VirtualMachine(self.memory, self.side, name, key=self.key, in_ram=self.program_in_ram)

    def beat(self) -> None:
        """Write what the clock says, for ever: a holder of the side memfd sees whether any thread here still runs."""
        interval, at = self.spec["heartbeat"], len(self.side) - BEAT
        while True:
            self.side[at:] = beat_of(time.monotonic_ns()).to_bytes(BEAT, "little")
            time.sleep(interval)

    def arm(self) -> dict[str, Any]:
        """Ask the kernel to note writes from here on; where it refuses, note them in the shared bitmap."""
        try:
            self.tracking_fd = linux.write_protect_tracking(linux.address_of(self.memory), self.size)
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, str(error.errno))
            return {"tracker": "shared-bitmap", "code": code, "why": f"userfaultfd is refused: {error.strerror}"}
        return {"tracker": "write-protect-scan"}

    def obey(self, command: dict[str, Any], control: socket.socket) -> dict[str, Any]:
        """Do what a node asks for; gives what the answer says besides that it is done."""
        match command["op"]:
            case "arm":
                return self.arm()
            case "tick":
                return self.tick(command["number"])
            case "save":
                return self.save()
            case "restore":
                return self.restore(command["state"])
            case "write-a-little":
                return self.write_a_little()
            case "free-pages":
                self.free()
            case "second-writer":
                self.fork_a_writer(control)
        return {}

    def free(self) -> None:
        """Free every third page that was written (a unit of the memory's page size): it is zero from then on."""
        unit = self.spec["page_size"] // PAGE
        for first in range(0, self.size // PAGE, 3 * unit):
            pages = range(first, first + unit)
            if any(self.generations[page] for page in pages):
                self.memory.madvise(mmap.MADV_REMOVE, first * PAGE, unit * PAGE)
                for page in pages:
                    self.generations[page] |= ZEROED

    def write_a_little(self) -> dict[str, Any]:
        """Rewrite a few pages of the working set, the last among them: a copy that is under way is torn by it."""
        pages = self._pages or working_set(self.spec)
        few = [page for page in (*pages[:: 1 + len(pages) // _FEW], *pages[-1:]) if self.generations[page] != PROGRAM]
        items = [(page, (self.generations[page] & ~ZEROED) + 1) for page in dict.fromkeys(few)]
        if self.vm is not None:
            return self._run(self.vm, items)
        for page, generation in items:
            self._write(page, generation)
        return {}

    def fork_a_writer(self, control: socket.socket) -> None:
        """A child writes the first page of the working set anew, by no mapping that is tracked, and stays."""
        pages = self._pages or working_set(self.spec)
        done, told = os.pipe()
        guest = os.getpid()
        if os.fork() == 0:
            try:
                control.close()
                linux.set_parent_death_signal(signal.SIGKILL)
                for page in pages[:1]:
                    generation = (self.generations[page] & ~ZEROED) + 1
                    self.memory[page * PAGE : (page + 1) * PAGE] = content(self.key, page, generation)
                    self.generations[page] = generation
                os.write(told, b".")
                while os.getppid() == guest:
                    time.sleep(1)
            finally:
                os._exit(0)
        os.close(told)
        os.read(done, 1)
        os.close(done)

    def save(self) -> dict[str, Any]:
        """The processor's state, in hex; what KVM's log says was written joins the pages noted in the side memfd."""
        if self.vm is None:
            return {"refused": "it is no virtual machine"}
        both = int.from_bytes(self.written, "little") | int.from_bytes(self.vm.written(), "little")
        self.written[:] = both.to_bytes(len(self.written), "little")
        return {"state": self.vm.save().hex()}

    def restore(self, state: str) -> dict[str, Any]:
        """Go on where another incarnation's processor was."""
        return {"same": self.vm is not None and self.vm.restore(bytes.fromhex(state))}

    def tick(self, number: int) -> dict[str, Any]:
        """Rewrite the working set; `number` is its new generation. A hot guest fills all its memory once.

        Gives how a virtual machine ended, where it did.
        """
        if self._pages is None:
            self._pages = working_set(self.spec)
        pages: list[int] | range = self._pages
        if self.spec["pattern"] == "hot" and not any(self.generations):
            pages = range(self.size // PAGE)
        if self.program_in_ram:
            self._load()
            pages = [page for page in pages if page != 0]
        if self.vm is not None:
            return self._run(self.vm, [(page, self._next_generation(page, number)) for page in pages])
        shares = [pages[first :: self.threads] for first in range(self.threads)]
        for work, share in zip(self._work, shares[1:], strict=True):
            work.put((share, number))
        self._write_all(shares[0], number)
        for _ in self._work:
            self._done.get()
        return {}

    def _load(self) -> None:
        """Put the program into the first page; also noted for a virtual machine, whose own log is blind to this."""
        if self.generations[0] != PROGRAM:
            self._write(0, PROGRAM)
            self.written[0] = 1

    @staticmethod
    def _run(vm: VirtualMachine, items: list[tuple[int, int]]) -> dict[str, Any]:
        try:
            vm.write(items)
        except VmError as error:
            return {"failed": str(error), "end": error.end}
        return {}

    def _write_all(self, pages: Sequence[int], number: int) -> None:
        for page in pages:
            self._write(page, self._next_generation(page, number))

    def write_for_ever(self, work: queue.SimpleQueue[tuple[Sequence[int], int]]) -> None:
        """One more writing thread: its share of each tick."""
        while True:
            self._write_all(*work.get())
            self._done.put(None)

    def start_threads(self) -> None:
        """The writing threads besides this one."""
        for number, work in enumerate(self._work, 2):
            threading.Thread(target=self.write_for_ever, args=[work], name=f"writer-{number}", daemon=True).start()

    def _next_generation(self, page: int, number: int) -> int:
        """`zero` writes zeros to every second page, `same` gives every second page the bytes that it has."""
        pattern = self.spec["pattern"]
        if pattern == "zero" and (page + number) % 2:
            return number | ZEROED
        if pattern == "same" and page % 2 and self.generations[page]:
            return self.generations[page]
        return number

    def _write(self, page: int, generation: int) -> None:
        if self.tracking_fd < 0:
            self.written[page] = 1
        self.memory[page * PAGE : (page + 1) * PAGE] = content(self.key, page, generation)
        self.generations[page] = generation


def _memfd(name: str, size: int, *, huge: bool = False) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | (os.MFD_HUGETLB | os.MFD_HUGE_2MB if huge else 0)
    fd = os.memfd_create(name, flags)
    os.ftruncate(fd, size)
    return fd


def run(spec: GuestSpec, control: socket.socket, zygote_pid: int) -> None:
    """The life of a guest: hand the memory over, or say why there is none; then obey until the socket closes."""
    linux.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != zygote_pid:  # the zygote died before the signal was set
        os._exit(1)
    try:
        guest = _Guest(spec)
    except OSError as error:
        control.send(json.dumps({"id": 0, "refused": error.strerror}).encode())
        raise
    _hand_over(guest, control)
    linux.set_process_name(f"guest {spec['sandbox']}")
    guest.start_threads()
    if spec["heartbeat"]:
        threading.Thread(target=guest.beat, name="heartbeat", daemon=True).start()
    while request := control.recv(65536):
        command = json.loads(request)
        reply: dict[str, Any] = {"id": command["id"]}
        if "node" in command:  # where Yama hides processes from all but their ancestors
            linux.allow_tracer(command["node"])
        match command["op"]:
            case "hand-over":
                _hand_over(guest, control)
                continue
            case _:
                reply |= guest.obey(command, control)
        control.send(json.dumps(reply).encode())


def _hand_over(guest: _Guest, control: socket.socket) -> None:
    """Give memory and generations to the node; fd numbers are for readers of /proc."""
    hello = {
        "id": 0,
        "address": linux.address_of(guest.memory),
        "memfd_fd": guest.fd,
        "side_fd": guest.side_fd,
        "tracker": "write-protect-scan" if guest.tracking_fd >= 0 else "shared-bitmap",
    }
    socket.send_fds(control, [json.dumps(hello).encode()], [guest.fd, guest.side_fd])
