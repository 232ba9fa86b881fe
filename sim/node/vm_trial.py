"""Whether virtual machines work here, by running one for a moment."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from sim.node.guest import side_size
from sim.node.vm import VirtualMachine
from sim.record.oracle import PAGE, ZEROED, content, key_of

_PAGES = 4
_PAGING = (("kvm_intel/parameters/ept", "Intel EPT"), ("kvm_amd/parameters/npt", "AMD NPT"))
_MODULES = Path("/sys/module")


def try_out() -> str:
    """Have a machine write two pages and look at them, then say how; raises OSError where that is refused."""
    size, key = _PAGES * PAGE, key_of(0, "trial")
    fds = [os.memfd_create("snapdrill-probe", os.MFD_CLOEXEC) for _ in range(2)]
    try:
        for fd, length in zip(fds, (size, side_size(size)), strict=True):
            os.ftruncate(fd, length)
        memory, side = mmap.mmap(fds[0], size), mmap.mmap(fds[1], side_size(size))
    finally:
        for fd in fds:
            os.close(fd)
    memory[2 * PAGE] = 1
    machine = VirtualMachine(memory, side, "snapdrill-probe", key=key)
    try:
        machine.write([(1, 5), (2, 6 | ZEROED)])
        logged = machine.written()
    finally:
        machine.close()
    if memory[:] != bytes(PAGE) + content(key, 1, 5) + bytes(2 * PAGE) or logged != b"\0\1\1\0":
        raise OSError(errno.EIO, "a virtual machine ran, and did not write what it was to write")
    return f"a virtual machine wrote two pages; {paging()}"


def paging(modules: Path = _MODULES) -> str:
    """How guest-physical addresses are translated, as far as KVM's modules say."""
    for parameter, name in _PAGING:
        try:
            if (modules / parameter).read_text().strip() in {"Y", "1"}:
                return f"paging by hardware ({name})"
        except OSError:
            continue
    if (modules / "kvm_pvm").is_dir():
        return "shadow paging (kvm_pvm): this host is a virtual machine itself, without nested virtualization"
    return "shadow paging"
