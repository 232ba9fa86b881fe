"""Hosts that give a run less than it needs: each lack is named before anything starts, and none is a defect."""

from __future__ import annotations

import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from sim.node.cgroup import hierarchies

ROOT = pathlib.Path(__file__).parents[3]
SCENARIO = """
version: 1
name: small
fleet: [{name: web, count: 2, memory: 8MiB}]
flags: {memfd-punch-on-snapshot: true}
steps: [{tick: 1}, {pause: {}}, {resume: {}}]
"""
RELAYED = SCENARIO.replace("flags: {", "flags: {source: relay, ")
MAIN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sim.cli import main; sys.exit(main())"
# A seccomp filter for this process and all that it starts: these calls are refused.
REFUSING = f"""
import errno, os, sys
sys.path.insert(0, {str(ROOT)!r})
from engine import linux
linux._check(linux._libc.prctl(linux._PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
numbers = {{"memfd_create": (319, 279), "pidfd_open": (434, 434), "fallocate": (285, 47)}}
number = numbers[sys.argv.pop(1)][os.uname().machine == "aarch64"]
linux._install(linux._filter([(4, linux._AUDIT_ARCH[os.uname().machine]), (0, number)], errno.EPERM))
from sim.cli import main
sys.exit(main())
"""
as_root = [
    pytest.mark.privileged,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare(1)"),
]


@pytest.fixture
def scenario(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


def run(command: list[str], folder: pathlib.Path, **options: Any) -> tuple[int, str]:
    """The exit code, and everything that was printed."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    done = subprocess.run(command, cwd=folder, timeout=60, check=False, **pipes)
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        (resource.RLIMIT_FSIZE, 1 << 20, "a guest needs a memfd of 8MiB and files may have 1024 KiB (ulimit -f)"),
        (resource.RLIMIT_AS, 600 << 20, "of address space and may have 600 MiB (ulimit -v)"),
        (resource.RLIMIT_NOFILE, 40, " open files and the hard limit is 40: raise ulimit -Hn"),
    ],
)
def test_a_limit_of_the_shell_is_named(scenario: pathlib.Path, limit: int, value: int, said: str) -> None:
    def limited() -> None:
        resource.setrlimit(limit, (value, value))

    command = [sys.executable, "-c", MAIN, "run", scenario.name]
    code, printed = run(command, scenario.parent, preexec_fn=limited)
    assert (code, said in printed) == (4, True), printed


@pytest.mark.skipif(os.uname().machine not in {"x86_64", "aarch64"}, reason="no system call numbers for this machine")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("memfd_create", "memfd and seals: EPERM: Operation not permitted; no guest has memory"),
        ("pidfd_open", "pidfd: EPERM: Operation not permitted; no guest's death can be confirmed"),
        ("fallocate", "punch a memfd: EPERM: Operation not permitted; no memory can be punched"),
    ],
)
def test_a_refused_system_call_is_named(scenario: pathlib.Path, call: str, said: str) -> None:
    code, printed = run([sys.executable, "-c", REFUSING, call, "run", scenario.name], scenario.parent)
    assert (code, said in printed) == (4, True), printed


NO_PROC = ["unshare", "--mount", "sh", "-c", 'umount -l /proc; exec "$@"', "-"]
OTHER_PROC = ["unshare", "--pid", "--fork"]
LO_DOWN = ["unshare", "--net"]


def mounted(options: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o {options} none runs; exec "$@"', "-"]


@pytest.mark.parametrize(
    ("host", "text", "said"),
    [
        pytest.param(NO_PROC, SCENARIO, "/proc is not mounted here", marks=as_root),
        pytest.param(OTHER_PROC, SCENARIO, "/proc is that of another PID namespace", marks=as_root),
        pytest.param(LO_DOWN, RELAYED, "its flags come over 127.0.0.1, which cannot be reached: ", marks=as_root),
        pytest.param(mounted("size=4m"), SCENARIO, "and 4.0 MiB are free", marks=as_root),
        pytest.param(mounted("ro"), SCENARIO, "no run folder can be made in", marks=as_root),
    ],
    ids=["no /proc", "another /proc", "lo down", "4 MiB of disk", "read-only"],
)
def test_a_host_that_lacks_something_is_named(tmp_path: pathlib.Path, host: list[str], text: str, said: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "s.yaml").write_text(text)
    code, printed = run([*host, sys.executable, "-c", MAIN, "run", "s.yaml"], tmp_path)
    assert (code, said in printed) == (4, True), printed


# Nobody, who may still read the files of whoever runs the tests.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
MACHINES = SCENARIO.replace("memory: 8MiB", "memory: 8MiB, guest: vm")
# A /dev that has what Python needs, and no kvm.
NO_KVM = [
    *["unshare", "--mount", "sh", "-c"],
    (
        "mkdir dev && mount -t tmpfs none dev && mkdir dev/shm && mount --bind /dev/shm dev/shm && "
        "for each in null zero full random urandom; do : > dev/$each && mount --bind /dev/$each dev/$each; done && "
        'mount --rbind dev /dev && exec "$@"'
    ),
    "-",
]
needs_setpriv = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv(1)")
HELD, UNSUPPORTED = 0, 4


@pytest.fixture
def public() -> Iterator[pathlib.Path]:
    """A folder that others may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="snapdrill-test-") as made:
        folder = pathlib.Path(made)
        folder.chmod(0o755)
        (folder / "runs").mkdir()
        (folder / "runs").chmod(0o777)
        yield folder


@pytest.mark.parametrize(
    ("host", "text", "code", "said"),
    [
        pytest.param([*mounted("size=20m,mode=777"), *NOBODY], RELAYED, HELD, "HELD", marks=[*as_root, needs_setpriv]),
        pytest.param(
            [*NOBODY, "prlimit", "--nproc=30"],
            SCENARIO,
            UNSUPPORTED,
            "it needs 82 processes and threads and ",
            marks=[*as_root, needs_setpriv],
        ),
        pytest.param(
            NOBODY,
            MACHINES,
            UNSUPPORTED,
            "it requires virtual machines: EACCES: ",
            marks=[*as_root, needs_setpriv],
        ),
        pytest.param(
            NO_KVM, MACHINES, UNSUPPORTED, "it requires virtual machines: ENOENT: there is no /dev/kvm", marks=as_root
        ),
    ],
    ids=["nobody on 20 MiB of disk", "nobody with few processes", "nobody and /dev/kvm", "no /dev/kvm"],
)
def test_a_host_with_few_rights_is_enough_or_is_named(
    public: pathlib.Path, host: list[str], text: str, code: int, said: str
) -> None:
    (public / "s.yaml").write_text(text)
    found, printed = run([*host, sys.executable, "-c", MAIN, "run", "s.yaml"], public)
    assert (found, said in printed) == (code, True), printed


@pytest.fixture
def cgroup() -> Iterator[pathlib.Path]:
    for folder, limit, _ in hierarchies() if os.geteuid() == 0 else ():
        made = folder / f"snapdrill-hostile-{os.getpid()}"
        try:
            made.mkdir()
            (made / limit).write_text("max" if limit == "memory.max" else "-1")
        except OSError:
            if made.is_dir():
                made.rmdir()
            continue
        yield made
        made.rmdir()
        return
    pytest.skip("no memory cgroup can be made here")


@pytest.mark.privileged
@pytest.mark.parametrize(("limit", "whole"), [(60, False), (100, False), (100, True)])
def test_a_cgroup_that_is_too_small_is_named_with_what_is_left_in_it(
    scenario: pathlib.Path, cgroup: pathlib.Path, limit: int, *, whole: bool
) -> None:
    name = "memory.max" if (cgroup / "memory.max").exists() else "memory.limit_in_bytes"
    if whole and not (cgroup / "memory.oom.group").exists():
        pytest.skip("memory.oom.group is of cgroup v2, and memory is limited by v1 here")
    if whole:
        (cgroup / "memory.oom.group").write_text("1")
    (cgroup / name).write_text(str(limit << 20))
    entered = ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "-"]
    code, printed = run([*entered, sys.executable, "-c", MAIN, "run", scenario.name], scenario.parent)
    assert (code, "MiB are available" in printed or "are left in the cgroup" in printed) == (4, True), printed


def test_a_dry_run_says_it_too_and_ends_with_4(scenario: pathlib.Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    command = [sys.executable, "-c", MAIN, "run", "--dry-run", "--json", scenario.name]
    code, printed = run(command, scenario.parent, preexec_fn=limited)
    assert code == 4
    assert '"a guest needs a memfd of 8MiB and files may have 1024 KiB (ulimit -f)"' in printed


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", "2>&-", "2>/dev/full", "<&-"])
def test_the_verdict_stands_where_nothing_can_be_printed(scenario: pathlib.Path, redirection: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "-"]
    code, _ = run([*shell, sys.executable, "-c", MAIN, "run", scenario.name], scenario.parent)
    assert code == 0
    assert len(list(scenario.parent.glob("runs/small/*/report.json"))) == 2  # one by the link


@pytest.mark.parametrize("more", [["small.yaml"], ["--seeds", "1-2", "--jobs", "1"]], ids=["two runs", "seeds"])
def test_many_runs_hold_where_standard_error_is_closed(scenario: pathlib.Path, more: list[str]) -> None:
    shell = ["sh", "-c", 'exec "$@" 2>&-', "-"]
    code, printed = run([*shell, sys.executable, "-c", MAIN, "run", scenario.name, *more], scenario.parent)
    assert (code, "HELD" in printed) == (0, True), printed


@pytest.mark.parametrize(
    ("expected", "shell", "codes"),
    [
        ("paused", '"$@" --events - 2>/dev/null | head -c 1 | wc -c; echo ${PIPESTATUS[0]}', "1\n1"),
        (
            "running",
            '"$@" --events /dev/full >out 2>err; echo $?; grep -c "No space left on device; the run" err',
            "0\n1",
        ),
        ("running", '"$@" --events - >&- 2>err; echo $?', "0"),
    ],
    ids=["a reader that goes away", "/dev/full", "closed"],
)
def test_the_verdict_stands_where_the_ledgers_lines_can_be_streamed_to_nobody(
    scenario: pathlib.Path, expected: str, shell: str, codes: str
) -> None:
    scenario.write_text(SCENARIO.rstrip().removesuffix("]") + f", {{expect: {{state: [{expected}]}}}}]\n")
    command = ["bash", "-c", shell, "-", sys.executable, "-c", MAIN, "run", scenario.name]
    _, printed = run(command, scenario.parent)
    assert printed.strip() == codes
    assert len(list(scenario.parent.glob("runs/small/*/report.json"))) == 2
