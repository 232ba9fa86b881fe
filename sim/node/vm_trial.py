"""Whether virtual machines work here, by running one for a moment."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from sim.node.guest import side_size
from sim.node.vm import DEVICE, VirtualMachine, VmError
from sim.record.oracle import PAGE, ZEROED, content, key_of

_PAGES = 4
_PAGING = (("kvm_intel/parameters/ept", "Intel EPT"), ("kvm_amd/parameters/npt", "AMD NPT"))
_MODULES, _CPUINFO = Path("/sys/module"), Path("/proc/cpuinfo")
_REFUSALS = {
    errno.ENOENT: f"there is no {DEVICE}: this kernel has no KVM, or the host of this machine passes it none",
    errno.EACCES: f"{DEVICE} is not for this user: it is for root and the group kvm",
    errno.EPERM: f"opening {DEVICE} is forbidden here: by a device cgroup, a seccomp profile or a security module",
    errno.ENOTTY: f"what is at {DEVICE} is not KVM",
}
_NO_MACHINE = f"{DEVICE} opens and makes no virtual machine: the host or its hypervisor refuses it"


def try_out() -> str:
    """Have a machine write two pages and look at them; says how that went, or raises OSError with a sentence."""
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
    try:
        machine = VirtualMachine(memory, side, "snapdrill-probe", key=key)
    except OSError as error:
        raise OSError(error.errno, refusal(error)) from error
    try:
        machine.write([(1, 5), (2, 6 | ZEROED)])
        logged = machine.written()
    except VmError as error:
        what = f"a virtual machine was made and does not run in long mode: {error}"
        raise OSError(errno.EIO, what) from error
    finally:
        machine.close()
    if memory[:] != bytes(PAGE) + content(key, 1, 5) + bytes(2 * PAGE) or logged != b"\0\1\1\0":
        raise OSError(errno.EIO, "a virtual machine ran, and did not write what it was to write")
    return f"a virtual machine wrote two pages; {paging()}"


def refusal(error: OSError) -> str:
    """Why there is no machine, in a sentence."""
    if error.errno == errno.ENOTSUP:  # ours, which says it itself
        return str(error.strerror)
    return _REFUSALS.get(error.errno or 0, f"{_NO_MACHINE} ({error.strerror})")


def paging(modules: Path = _MODULES, cpuinfo: Path = _CPUINFO) -> str:
    """How guest-physical addresses are translated, as far as KVM's modules say, and whether this host is a machine."""
    for parameter, name in _PAGING:
        try:
            if (modules / parameter).read_text().strip() in {"Y", "1"}:
                nested = ", nested: this host is a virtual machine itself" if _is_machine(cpuinfo) else ""
                return f"paging by hardware ({name}){nested}"
        except OSError:
            continue
    if (modules / "kvm_pvm").is_dir():
        return "shadow paging (kvm_pvm): this host is a virtual machine itself, without nested virtualization"
    return "shadow paging"


def _is_machine(cpuinfo: Path) -> bool:
    try:
        return " hypervisor" in cpuinfo.read_text()
    except OSError:
        return False
