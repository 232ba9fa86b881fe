"""How many small changes of engine/ and sim/rules/ the tests notice; exit code 1 where that is less than 90 %.

`make mutants SAMPLE=100 SEED=1`. mutmut makes the changes, all of them beside each other in ./mutants, and calls the
one that is chosen. One process loads all tests, then every change is tried in a fork of it: against the tests that call
the changed function, until one fails or they have taken half a minute. Which tests call what is measured once for each
file of tests. All is kept in ./mutants, so that a run that was interrupted goes on where it
stopped; `rm -r mutants` begins anew.

Not drawn are changes of words alone or of a case that does nothing, and those that tests/mutants_survivors.md lists,
with the reason why nothing can be observed of them. At the end every test that noticed something runs once without a
change: one that fails then has noticed nothing.
"""

from __future__ import annotations

import bisect
import fcntl
import gc
import hashlib
import itertools
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import mutmut.__main__ as tool
import pytest
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files

ROOT = Path(__file__).parent.parent
MUTANTS = ROOT / "mutants"
KEPT = ROOT / "tests/mutants_survivors.md"
CALLS = MUTANTS / "calls.json"
RESULTS = MUTANTS / "results.jsonl"
ENOUGH = 0.90
SELECTION = ("tests/unit/engine", "tests/unit/sim/rules", "tests/integration/engine", "tests/model")
OPTIONS = (
    "--rootdir=.",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:cov",
    "-m",
    "not slow and not privileged",
    "--timeout=20",
    "--timeout-method=thread",  # which ends the fork: the engine holds an exception back while a copy hangs
)
MEASURED_IN = 600.0
"""Seconds for one file of tests, without a change."""
MOST = 30.0
"""Seconds of tests, as they were measured, for one change: else one that none notices takes minutes."""
PATIENCE = 60.0
"""Seconds that a fork has beyond four times what its tests took when they were measured."""
MEMORY = 12 << 30
"""Bytes of addresses that a fork may have: a change must not take the machine along."""

Test = str  # pytest's name of it
Key = TypeVar("Key")
Tests = dict[Test, dict[str, Any]]  # "seconds" that it took, and which functions it "calls"


class Change(NamedTuple):
    """mutmut's name of it, its function, the changed lines without numbers, and the digest of the function as it is."""

    name: str
    function: str
    lines: str
    source: str


class Report(NamedTuple):
    """What became of the tests of one fork. Where it ended in another way, `failed` has the test that ran then."""

    code: int | None  # the fork's exit code; None: it was killed, its time was up
    failed: list[Test]
    seconds: float
    passed: Tests


class Result(NamedTuple):
    """What became of one change: `by` is the test that noticed it, `files` the digest of all files that day."""

    name: str
    lines: str
    source: str
    by: Test
    tests: int
    code: int | None
    files: str


# -- in a fork


class _Notes:
    """A pytest plugin that writes down, test by test, what becomes of it: also of use where the process is killed."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("w", buffering=1)
        self._began = 0.0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._began = time.monotonic()
        self._note(test=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._note(failed=report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(failed=report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        calls = sorted(state()._stats)
        state()._stats.clear()
        self._note(ended=nodeid, seconds=time.monotonic() - self._began, calls=calls)

    def _note(self, **what: Any) -> None:
        self._file.write(json.dumps(what) + "\n")


class Work(NamedTuple):
    """Tests to run in a fork, with a change: its name, "" for none, or "stats" to learn what each test calls."""

    change: str
    tests: Sequence[Test]
    seconds: float
    options: Sequence[str] = ()


def _run_tests(work: Work, folder: Path) -> NoReturn:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        set_mutant_under_test(work.change)
        out = os.open(folder / "out", os.O_WRONLY | os.O_CREAT)
        for fd in (1, 2):
            os.dup2(out, fd)
        os.close(out)
        os.chdir(MUTANTS)
        state()._stats.clear()
        arguments = [*OPTIONS, *work.options, f"--basetemp={folder}/t", *work.tests]
        os._exit(int(pytest.main(arguments, plugins=[_Notes(folder / "notes")])))
    finally:
        os._exit(70)


class _Fork:
    def __init__(self, work: Work) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="snapdrill-mutants-", ignore_cleanup_errors=True)
        self._began = time.monotonic()
        self.until = self._began + work.seconds
        self._pid = os.fork()
        if self._pid == 0:
            _run_tests(work, Path(self._folder.name))
        self.pidfd = os.pidfd_open(self._pid)

    def end(self) -> Report:
        """What it found, in its time; and whatever it has started ends."""
        ended = bool(select.select([self.pidfd], [], [], 0)[0])
        with suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self.pidfd)
        for left in Path("/dev/shm").glob(f"snapdrill-test-{self._pid}-*"):  # noqa: S108 - of a test that was cut off
            shutil.rmtree(left, ignore_errors=True)
        with self._folder as folder:
            code = os.waitstatus_to_exitcode(status) if ended else None
            return _read(Path(folder, "notes"), code, time.monotonic() - self._began)


def run_all(works: Mapping[Key, Work], jobs: int) -> Iterator[tuple[Key, Report]]:
    """Each in a fork, so many at a time, in the order in which they end."""
    waiting = list(works.items())[::-1]
    running: dict[Key, _Fork] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key, work = waiting.pop()
                running[key] = _Fork(work)
            patience = max(0.0, min(each.until for each in running.values()) - time.monotonic())
            ended = select.select([each.pidfd for each in running.values()], [], [], patience)[0]
            for key, fork in list(running.items()):
                if fork.pidfd in ended or fork.until <= time.monotonic():
                    yield key, running.pop(key).end()
    finally:
        for fork in running.values():
            fork.end()


def _read(notes: Path, code: int | None, seconds: float) -> Report:
    passed: Tests = {}
    failed: list[Test] = []
    running = ""
    for line in notes.read_text().splitlines() if notes.exists() else ():
        note = json.loads(line)
        running = note.get("test", running)
        if "failed" in note and note["failed"] not in failed:
            failed.append(note["failed"])
        if "ended" in note:
            running = ""
            if note["ended"] not in failed:
                passed[note["ended"]] = {"seconds": note["seconds"], "calls": note["calls"]}
    if code not in {0, 4, 5} and not failed:  # 4, 5: pytest found no such test, or none
        failed.append(running or "(pytest itself)")
    return Report(code, failed, seconds, passed)


# -- the changes, and which tests call them


def make_changes(jobs: int) -> list[Change]:
    """Every change there is; made anew only of files that are newer than what was made of them."""
    shutil.rmtree(MUTANTS / "tests", ignore_errors=True)
    set_mutant_under_test("mutant_generation")
    sys.stdout.flush()
    said, out = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(out, 1)  # the tool names every file
    copy_src_dir()
    copy_also_copy_files()
    setup_source_paths()
    tool.create_mutants(jobs)
    sys.stdout.flush()
    os.dup2(said, 1)
    return sorted(change for path in walk_mutatable_files() for change in _changes_of(path))


def _changes_of(path: Path) -> Iterator[Change]:
    """Kept beside the changed file: to read them all takes minutes."""
    made, kept = MUTANTS / path, MUTANTS / f"{path}.changes"
    if not kept.exists() or kept.stat().st_mtime < made.stat().st_mtime:
        data = SourceFileMutationData(path=path)
        data.load()
        found = []
        for name in data.exit_code_by_key:
            function = re.sub(r"__mutmut_\d+$", "", name)
            source = data.hash_by_function_name.get(function.rpartition(".")[2], "")
            found.append((name, function, _difference(name, path), source))
        kept.write_text(json.dumps(found))
    return (Change(*each) for each in json.loads(kept.read_text()))


def _difference(name: str, path: Path) -> str:
    shown = get_diff_for_mutant(name, path=path).splitlines()
    return " / ".join(line[0] + " " + line[1:].strip() for line in shown if re.match(r"[+-](?![+-])", line))


def changes_nothing(lines: str) -> bool:
    """True where a `case` that does nothing is gone, or nothing but a sentence is changed: a text with spaces.

    People read sentences, programs read codes.
    """
    if lines == "- case _: / - pass":
        return True
    removed, _, added = lines.partition(" / + ")
    return _without_sentences(removed.removeprefix("- ")) == _without_sentences(added)


def _without_sentences(line: str) -> str:
    return re.sub(r'(["\'])(?:(?!\1).)* (?:(?!\1).)*\1', "...", line)


def measure_tests(jobs: int) -> Tests:
    """What every test calls and how long it takes; measured again for files of tests that have changed since.

    A test that fails without a change is left out: it would notice everything.
    """
    files = sorted(str(each.relative_to(ROOT)) for place in SELECTION for each in (ROOT / place).rglob("test_*.py"))
    stamps = {each: _digest([ROOT / each]) for each in files}
    known = json.loads(CALLS.read_text()) if CALLS.exists() else {}
    known = {file: each for file, each in known.items() if stamps.get(file) == each["stamp"]}
    new = {file: Work("stats", [file], MEASURED_IN) for file in files if file not in known}
    print(f"{len(new)} of {len(files)} files of tests are measured: what do they call?", flush=True)
    for file, report in run_all(new, jobs):
        stamp = "" if report.failed else stamps[file]  # again next time
        known[file] = {"stamp": stamp, "tests": report.passed}
        CALLS.write_text(json.dumps(known))
        print(f"    {report.seconds:5.1f} s  {file}: {len(report.passed)} tests", flush=True)
        for each in report.failed:
            print(f"            FAILED without a change, left out: {each}", flush=True)
    return {test: about for each in known.values() for test, about in each["tests"].items()}


def _digest(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()[:16]


# -- a sample, tried


def draw(changes: list[Change], size: int, seed: int) -> list[Change]:
    """As many as there are, where that is fewer."""
    kept = KEPT.read_text()
    counted = [each for each in changes if not changes_nothing(each.lines) and not _is_kept(each, kept)]
    return random.Random(seed).sample(counted, min(size, len(counted)))


def _is_kept(change: Change, kept: str) -> bool:
    return f"`{change.function}`: `{change.lines}`" in kept


def try_changes(changes: list[Change], tests: Tests, jobs: int) -> list[Result]:
    """What became of each; known already are those that a test noticed, and all others while no file has changed."""
    now = _digest(sorted(path for top in ("engine", "flags", "sim", "tests") for path in (ROOT / top).rglob("*.py")))
    found = {}
    for line in RESULTS.read_text().splitlines() if RESULTS.exists() else ():
        result = Result(*json.loads(line))
        if result.by in tests or result.files == now:
            found[result.name, result.lines, result.source] = result
    works = _works([each for each in changes if (each.name, each.lines, each.source) not in found], tests)
    print(f"{len(changes)} changes, {len(changes) - len(works)} of them tried before", flush=True)
    with RESULTS.open("a", buffering=1) as file:
        for number, (change, report) in enumerate(run_all(works, jobs), 1):
            by = report.failed[0] if report.failed else ""
            result = Result(change.name, change.lines, change.source, by, len(works[change].tests), report.code, now)
            file.write(json.dumps(result) + "\n")
            found[change.name, change.lines, change.source] = result
            said = "noticed " if by else "SURVIVED"
            print(f"{number:4}/{len(works)} {report.seconds:5.1f} s  {said}  {change.name}", flush=True)
    return [found[each.name, each.lines, each.source] for each in changes]


def _works(changes: list[Change], tests: Tests) -> dict[Change, Work]:
    callers = defaultdict(list)
    for test in _various_first(tests):
        for function in tests[test]["calls"]:
            callers[function].append(test)
    works = {}
    for change in changes:
        calling, own = callers[change.function], _beside(change, tests)
        chosen = _in_time(sorted(calling, key=lambda each: each not in own) or own, tests)
        seconds = PATIENCE + 4 * sum(tests[each]["seconds"] for each in chosen)
        works[change] = Work(change.name, chosen, seconds, ["-x"])
    return works


def _various_first(tests: Tests) -> list[Test]:
    """The fastest case of every test function, then the next one of each: cases of one test notice much the same."""
    fastest = sorted(tests, key=lambda each: tests[each]["seconds"])
    seen = Counter[str]()
    ranks = {}
    for each in fastest:
        name = each.partition("[")[0]
        ranks[each] = seen[name]
        seen[name] += 1
    return sorted(fastest, key=ranks.__getitem__)


def _in_time(chosen: list[Test], tests: Tests) -> list[Test]:
    """The first of them, which together take MOST seconds at most; one in any case."""
    ends = list(itertools.accumulate(tests[each]["seconds"] for each in chosen))
    return chosen[: max(1, bisect.bisect_right(ends, MOST))]


def _beside(change: Change, tests: Tests) -> list[Test]:
    """Those of the module: they come first, and are all there is where none is known to call the function.

    What runs in another process is not seen.
    """
    *rooms, module = change.function.rpartition(".")[0].split(".")
    return [each for each in tests if f"{'/'.join(rooms)}/test_{module}.py::" in each]


def unsound(noticed: Collection[Test], tests: Tests, jobs: int) -> set[Test]:
    """Of the tests that noticed a change, those that fail without one too."""
    ordered = sorted(tests.keys() & noticed)
    seconds = PATIENCE + 4 * sum(tests[each]["seconds"] for each in ordered)
    shares = {number: Work("", share, seconds) for number in range(jobs) if (share := ordered[number::jobs])}
    return set(ordered) - {test for _, report in run_all(shares, jobs) for test in report.passed}


def main(size: int, seed: int, jobs: int) -> int:
    """Try the sample and print its score."""
    began = time.monotonic()
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(MUTANTS)
    config()  # of here, before the folder changes
    MUTANTS.mkdir(exist_ok=True)
    held = os.open(MUTANTS, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another run works in {MUTANTS.name}/: wait for its end")
    print("changes are made", flush=True)
    changes = make_changes(jobs)
    chosen = draw(changes, size, seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # every fork ends with this process
    print(f"seed {seed}: {len(chosen)} of {len(changes)} changes; {time.monotonic() - began:.0f} s so far", flush=True)
    _load_tests()
    tests = measure_tests(jobs)
    results = try_changes(chosen, tests, jobs)
    wrong = unsound({each.by for each in results}, tests, jobs)
    survivors = [
        (each, found) for each, found in zip(chosen, results, strict=True) if not found.by or found.by in wrong
    ]
    for change, found in survivors:
        by = f" ({found.by} fails without a change too)" if found.by else ""
        print(f"SURVIVED {found.tests} tests{by}: `{change.function}`: `{change.lines}`\n    mutmut show {change.name}")
    noticed = len(chosen) - len(survivors)
    minutes = (time.monotonic() - began) / 60
    print(f"score: {noticed} of {len(chosen)} noticed, {noticed / max(1, len(chosen)):.1%}; {minutes:.1f} minutes")
    return int(noticed < ENOUGH * len(chosen))


def _load_tests() -> None:
    """Every fork has them then, and the engine with all its changes; no fork writes into the pages that hold them."""
    set_mutant_under_test("")
    report = os.open(os.devnull, os.O_WRONLY)
    out = os.dup(1)
    os.dup2(report, 1)
    os.chdir(MUTANTS)
    code = pytest.main([*OPTIONS, "-qq", "--collect-only", *SELECTION])
    os.chdir(ROOT)
    sys.stdout.flush()
    os.dup2(out, 1)
    if code:
        sys.exit("the tests cannot be loaded: try .venv/bin/python -m pytest --collect-only in mutants/")
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
