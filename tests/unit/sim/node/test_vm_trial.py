"""What doctor says of virtual machines: how they run, or why there can be none, in a sentence."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest

from sim.node import vm, vm_trial
from sim.run.host import KVM, Available, capability
from tests.descriptors import open_before

SHADOW = "shadow paging (kvm_pvm): this host is a virtual machine itself, without nested virtualization"


@pytest.mark.parametrize(
    ("file", "content", "flags", "words"),
    [
        ("kvm_intel/parameters/ept", "Y\n", "vmx sse", "paging by hardware (Intel EPT)"),
        ("kvm_amd/parameters/npt", "1\n", "svm sse", "paging by hardware (AMD NPT)"),
        (
            "kvm_intel/parameters/ept",
            "Y\n",
            "vmx hypervisor",
            "paging by hardware (Intel EPT), nested: this host is a virtual machine itself",
        ),
        ("kvm_amd/parameters/npt", "0\n", "svm", "shadow paging"),
        ("kvm_pvm/version", "1", "hypervisor", SHADOW),
    ],
)
def test_how_addresses_are_translated_is_read_from_the_modules(
    file: str, content: str, flags: str, words: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: fpu {flags}\n")
    assert vm_trial.paging(tmp_path, tmp_path / "cpuinfo") == words
    assert "nested:" not in vm_trial.paging(tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("missing", "ENOENT: there is no /dev/kvm: this kernel has no KVM, or the host of this machine passes it none"),
        ("/dev/null", "ENOTTY: what is at /dev/kvm is not KVM"),
    ],
)
def test_a_host_without_kvm_is_told_so(device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "DEVICE", device)
    before = open_before()
    found = capability(KVM)
    assert (found.available, found.detail.startswith(words)) == (Available.NO, True)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "EACCES: /dev/kvm is not for this user: it is for root and the group kvm"),
        (errno.EPERM, "EPERM: opening /dev/kvm is forbidden here: by a device cgroup, a seccomp profile or a security"),
        (errno.EBUSY, "EBUSY: /dev/kvm opens and makes no virtual machine: the host or its hypervisor refuses it ("),
    ],
)
def test_a_host_that_refuses_a_machine_is_told_so(number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(vm_trial, "VirtualMachine", refused)
    found = capability(KVM)
    assert (found.available, found.detail[: len(words)]) == (Available.NO, words)


def test_a_machine_that_does_not_run_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.closed = False

        def write(self, _pages: Any) -> None:
            raise vm.VmError(
                {"exit": "FAIL_ENTRY", "rip": 0, "past_memory": False, "began": 0, "had": "e9", "found": "e9"}
            )

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(vm_trial, "VirtualMachine", Stuck)
    found = capability(KVM)
    assert found.available is Available.NO
    assert found.detail.startswith("EIO: a virtual machine was made and does not run in long mode: KVM_EXIT_FAIL_ENTRY")
