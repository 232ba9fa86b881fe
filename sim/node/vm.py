"""A virtual machine with one processor, by /dev/kvm (x86-64): its RAM is the guest's memory.

Made, run, saved and restored by the guest's own process alone: KVM refuses every other one. It runs in long mode at CPL
3, which is native also where only shadow paging is to be had. Layouts and numbers: Linux, include/uapi/linux/kvm.h.
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import platform
import struct
from typing import NamedTuple, TypedDict

from engine import linux
from sim.node.vm_layout import Places, page_tables, parameters, places, registers
from sim.record.page_words import PAGE, TABLE
from sim.record.vm_program import PROGRAM_PAGE

DEVICE = "/dev/kvm"
LARGEST = 32 << 30
"""Bytes of RAM: all addresses fit into the 36 bits that a processor without CPUID has."""
_CREATE_VM, _GET_VCPU_MMAP_SIZE, _CREATE_VCPU, _RUN = 0xAE01, 0xAE04, 0xAE41, 0xAE80
_SET_USER_MEMORY_REGION, _GET_DIRTY_LOG = 0x4020AE46, 0x4010AE42
_GET_REGS, _SET_REGS, _GET_SREGS, _SET_SREGS = 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
_LOG_DIRTY_PAGES = 1
_IMMEDIATE_EXIT, _EXIT_REASON, _MMIO_ADDRESS = 1, 8, 32  # offsets in struct kvm_run
_MMIO = 6
_EXITS = {2: "IO", 5: "HLT", 6: "MMIO", 8: "SHUTDOWN", 9: "FAIL_ENTRY", 10: "INTR", 17: "INTERNAL_ERROR"}
_NUMBERED = [f"r{number}" for number in range(8, 16)]
_REGISTERS = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *_NUMBERED, "rip", "rflags"]


class _StatePart(NamedTuple):
    """A part of a processor's state, `size` bytes."""

    name: str
    size: int
    get: int
    put: int


_STATE = (
    _StatePart("sregs", 312, _GET_SREGS, _SET_SREGS),
    _StatePart("xcrs", 392, 0x8188AEA6, 0x4188AEA7),
    _StatePart("xsave", 4096, 0x9000AEA4, 0x5000AEA5),
    _StatePart("debugregs", 128, 0x8080AEA1, 0x4080AEA2),
    _StatePart("mp_state", 4, 0x8004AE98, 0x4004AE99),
    _StatePart("regs", 144, _GET_REGS, _SET_REGS),
)
"""In the order in which it is restored."""
_SHOWN, _LONGEST = 8, 15  # bytes shown at an instruction pointer; of an instruction
STATE_SIZE = sum(part.size for part in _STATE)

_IN_USE = 512  # offset in the XSAVE area: a bit for each group of registers that may hold something
_VECTORS = ((2, 160, 416), (4, 576, 832))  # SSE and AVX: bit, and [start, end) of their registers


def without_idle_parts(xsave: bytearray) -> bytes:
    """The XSAVE area: registers that hold zeros are not in use. The processor may say either (Intel SDM 1, 13.6)."""
    for bit, start, end in _VECTORS:
        if not any(xsave[start:end]):
            xsave[_IN_USE] &= ~bit
    return bytes(xsave)


def prepare(memory: int) -> None:
    """Make what the machines of this size share, before the first of them is forked."""
    if memory <= LARGEST:
        page_tables(places(memory).tables)


class VmEnd(TypedDict):
    """How a machine ended that did not stop where its program stops; addresses, and bytes in hex.

    `exit`: KVM's name for it, or a number. `past_memory`: its instruction pointer `rip` is at the end of RAM. It was to
    go on at `began`, where it had `had`, and found `found`.
    """

    exit: str
    rip: int
    past_memory: bool
    began: int
    had: str
    found: str


class VmError(Exception):
    """The machine did not stop where its program stops; `end` says where it is instead."""

    def __init__(self, end: VmEnd) -> None:
        where = f"rip {end['rip']:#x}" + (", at the end of its memory" if end["past_memory"] else "")
        found = "as before" if end["found"] == end["had"] else f"now {end['found']}"
        super().__init__(f"KVM_EXIT_{end['exit']} at {where}; at {end['began']:#x} it had {end['had']}, {found}")
        self.end = end


class VirtualMachine:
    """One machine over `memory`; the program's own memory is a memfd called `name`.

    `side` is where it notes each page's generation. Its program lies beside RAM, or, `in_ram`, in the first page of it,
    which must be PROGRAM_PAGE then. Raises OSError where /dev/kvm refuses.
    """

    def __init__(self, memory: mmap.mmap, side: mmap.mmap, name: str, *, key: int, in_ram: bool = False) -> None:
        if platform.machine() != "x86_64" or len(memory) > LARGEST:
            raise OSError(errno.ENOTSUP, "a virtual machine needs x86_64, and at most 32 GiB of memory")
        self._key = key
        self._memory = memory
        self._at = places(len(memory))
        kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        self._fds: list[int] = []
        try:
            self._make(kvm, side, name)
        except OSError:
            self._close_fds()
            raise
        finally:
            os.close(kvm)
        self._put(self._at.tables, page_tables(self._at.tables))
        self._put(self._at.filler, TABLE)
        self._put(self._at.program, PROGRAM_PAGE)
        program = 0 if in_ram else self._at.program
        self._start(self._at, program)
        self._goes_on = program, PROGRAM_PAGE[:_SHOWN]

    def _make(self, kvm: int, side: mmap.mmap, name: str) -> None:
        self._vm = self._opened(fcntl.ioctl(kvm, _CREATE_VM, 0))
        own = self._opened(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(own, self._at.size)
        self._own = mmap.mmap(own, self._at.size)
        self._log = mmap.mmap(-1, -(-len(self._memory) // PAGE // 64) * 8)
        self._slot(0, 0, self._memory, log=True)
        self._slot(1, self._at.tables, self._own)
        self._slot(2, self._at.generations, side)
        self._cpu = self._opened(fcntl.ioctl(self._vm, _CREATE_VCPU, 0))
        self._run = mmap.mmap(self._cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))

    def _opened(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _close_fds(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def close(self) -> None:
        """Give all of it back; for those that outlive their machine."""
        self._run.close()
        self._own.close()
        self._close_fds()

    def _slot(self, number: int, address: int, memory: mmap.mmap, *, log: bool = False) -> None:
        size = -(-len(memory) // PAGE) * PAGE
        region = number, _LOG_DIRTY_PAGES if log else 0, address, size, linux.address_of(memory)
        fcntl.ioctl(self._vm, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", *region))

    def _put(self, address: int, data: bytes) -> None:
        offset = address - self._at.tables
        self._own[offset : offset + len(data)] = data

    def _start(self, at: Places, program: int) -> None:
        """Long mode at CPL 3: flat segments, paging on; the first instruction is at `program`."""
        state = bytearray(312)
        fcntl.ioctl(self._cpu, _GET_SREGS, state)
        for index in range(6):  # cs, ds, es, fs, gs, ss
            is_code = index == 0
            selector, kind = (0x33, 11) if is_code else (0x2B, 3)
            segment = (0, 0xFFFFFFFF, selector, kind, 1, 3, not is_code, 1, is_code, 1, 0, 0, 0)
            struct.pack_into("<QIH10B", state, 24 * index, *segment)
        control = struct.unpack_from("<Q", state, 224)[0] | 0x80000001  # cr0: PG, PE
        struct.pack_into("<6Q", state, 224, control, 0, at.tables, 1 << 5, 0, 0x500)  # cr0, 2, 3, 4: PAE, 8; EFER
        fcntl.ioctl(self._cpu, _SET_SREGS, state)
        held = registers(at, program)
        fcntl.ioctl(self._cpu, _SET_REGS, struct.pack("<18Q", *(held.get(name, 0) for name in _REGISTERS)))

    def write(self, pages: list[tuple[int, int]]) -> None:
        """Have the machine write these pages, (number, generation) each; raises VmError where it ends elsewhere."""
        listed = array.array("I", (word for item in pages for word in item))
        self._put(self._at.pages, listed.tobytes())
        self._put(self._at.parameters, parameters(self._key, len(pages)))
        reason = self._enter()
        at_door = struct.unpack_from("<Q", self._run, _MMIO_ADDRESS)[0] == self._at.door
        if reason != _MMIO or not at_door:
            raise VmError(self._end(reason))
        self._goes_on = self._next()

    def _enter(self) -> int:
        """Run until it leaves; a stop by a signal is no end of it. Gives KVM's reason."""
        while True:
            try:
                fcntl.ioctl(self._cpu, _RUN, 0)
            except InterruptedError:
                continue
            return int(struct.unpack_from("<I", self._run, _EXIT_REASON)[0])

    def _next(self) -> tuple[int, bytes]:
        """Where it goes on, and the bytes there."""
        state = bytearray(144)
        fcntl.ioctl(self._cpu, _GET_REGS, state)
        rip = int(struct.unpack_from("<Q", state, 8 * _REGISTERS.index("rip"))[0])
        return rip, self._bytes_at(rip)

    def _bytes_at(self, address: int) -> bytes:
        """The longest that an instruction is read in here; nothing where there is no memory."""
        if address < self._at.tables:
            return self._memory[address : address + _SHOWN]
        return self._own[address - self._at.tables : address - self._at.tables + _SHOWN]

    def _end(self, reason: int) -> VmEnd:
        """Why it left and where, and what it found instead of what it was to go on with."""
        began, before = self._goes_on
        rip, _ = self._next()
        return {
            "exit": _EXITS.get(reason, str(reason)),
            "rip": rip,
            "past_memory": rip < len(self._memory) <= rip + _LONGEST,
            "began": began,
            "had": before.hex(" "),
            "found": self._bytes_at(began).hex(" "),
        }

    def save(self) -> bytes:
        """The processor's state, STATE_SIZE bytes, once the store that it left by is completed."""
        self._run[_IMMEDIATE_EXIT] = 1
        try:
            fcntl.ioctl(self._cpu, _RUN, 0)
        except InterruptedError:
            pass  # as it must: it has run nothing
        finally:
            self._run[_IMMEDIATE_EXIT] = 0
        return self._state()

    def _state(self) -> bytes:
        parts = []
        for part in _STATE:
            data = bytearray(part.size)
            fcntl.ioctl(self._cpu, part.get, data)
            parts.append(without_idle_parts(data) if part.name == "xsave" else bytes(data))
        return b"".join(parts)

    def restore(self, state: bytes) -> bool:
        """Take over a state that `save` gave; False where the processor then holds another one."""
        offset = 0
        for part in _STATE:
            fcntl.ioctl(self._cpu, part.put, bytearray(state[offset : offset + part.size]))
            offset += part.size
        self._goes_on = self._next()
        return self._state() == state

    def written(self) -> bytes:
        """Pages that it wrote since the last call, by KVM's own log: a byte 0 or 1 each. Blind to all other writers."""
        fcntl.ioctl(self._vm, _GET_DIRTY_LOG, struct.pack("<IIQ", 0, 0, linux.address_of(self._log)))
        return b"".join([_BITS[each] for each in self._log[:]])[: len(self._memory) // PAGE]


_BITS = [bytes(each >> bit & 1 for bit in range(8)) for each in range(256)]
