"""The one loop of many runs: what is skipped, what is left, what an interrupt ends, progress, and the exit code."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
from junitparser import JUnitXml

from sim.record.verdict import ExitCode
from sim.report.junit import JunitFile, without_result
from sim.run.batch import NOT_HELD, Batch, InterruptError, Interrupts, Item, rewrite
from sim.run.cases import Unit, UnitResult
from sim.run.pool import Pool

SIGNALS = [
    (signal.SIGINT, ExitCode.INTERRUPTED),
    (signal.SIGTERM, ExitCode.TERMINATED),
    (signal.SIGHUP, ExitCode.HANGUP),
]


def send(*numbers: int) -> ExitCode:
    """Send this process signals; HELD where it goes on."""
    for number in numbers:
        os.kill(os.getpid(), number)
    return ExitCode.HELD


def items(**codes: ExitCode | str) -> tuple[list[Item], list[str]]:
    """Items that end with these codes, a reason in words being why one is skipped; and the names of those begun."""
    begun: list[str] = []

    def item(name: str, code: ExitCode | str) -> Item:
        def run() -> ExitCode:
            begun.append(name)
            assert isinstance(code, ExitCode)
            return code

        return Item(name, run, lambda: code if isinstance(code, str) else None)

    return [item(*each) for each in codes.items()], begun


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes standard error, as `capsys` has it by then, a terminal of 40 columns."""

    def make() -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 24)))

    return make


# -- one after the other


@pytest.mark.parametrize(
    ("codes", "strict", "code"),
    [
        ({}, False, ExitCode.NOTHING_SELECTED),
        ({"a": ExitCode.HELD, "b": ExitCode.INCONCLUSIVE, "c": ExitCode.VIOLATED}, False, ExitCode.VIOLATED),
        ({"a": "no root"}, False, ExitCode.UNSUPPORTED),
        ({"a": "no root", "b": ExitCode.HELD}, False, ExitCode.HELD),
        ({"a": "no root", "b": ExitCode.HELD}, True, ExitCode.UNSUPPORTED),
        ({"a": "no root", "b": ExitCode.VIOLATED}, True, ExitCode.VIOLATED),
        ({"a": "no root", "b": ExitCode.INCONCLUSIVE}, True, ExitCode.INCONCLUSIVE),
        ({"a": ExitCode.HELD}, True, ExitCode.HELD),
    ],
)
def test_the_worst_code_counts_and_a_skip_only_where_nothing_ran_or_strict_says_so(
    codes: dict[str, Any], strict: bool, code: ExitCode
) -> None:
    made, _ = items(**codes)
    assert Batch(strict=strict).run(made) == code


def test_a_skip_is_named_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    made, begun = items(a="it requires root", b=ExitCode.HELD)
    batch = Batch()
    batch.run(made)
    assert capsys.readouterr().out == "a: skipped: it requires root\n"
    assert batch.left_out() == {"skipped": [{"name": "a", "reason": "it requires root"}]}
    assert begun == ["b"]


@pytest.mark.parametrize("code", sorted(NOT_HELD))
def test_nothing_begins_behind_a_code_that_stops_it(capsys: pytest.CaptureFixture[str], code: ExitCode) -> None:
    made, begun = items(a="no root", b=ExitCode.HELD, c=code, d="no root", e=ExitCode.HELD)
    batch = Batch(quiet=True, stops_at=NOT_HELD)
    assert batch.run(made) == code
    assert begun == ["b", "c"]
    assert batch.not_run == ["d", "e"]
    assert capsys.readouterr().err.endswith("d: not run (--fail-fast)\ne: not run (--fail-fast)\n")


@pytest.mark.parametrize("batch", [Batch(quiet=True), Batch(on_stderr=True)])
def test_where_standard_output_is_data_people_read_standard_error(
    capsys: pytest.CaptureFixture[str], batch: Batch
) -> None:
    batch.run(items(a="no root")[0])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "a: skipped: no root\n")


# -- interrupts


class Block:
    """A pool's block, whose teardown is `leave`."""

    def __init__(self, leave: Callable[[], object]) -> None:
        self.leave = leave
        self.left = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.left = True


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_ends_what_runs_and_all_that_would_come(
    capsys: pytest.CaptureFixture[str], number: int, code: ExitCode
) -> None:
    before = [signal.getsignal(each) for each, _ in SIGNALS]
    later, begun = items(later=ExitCode.VIOLATED)
    block = Block(lambda: None)
    batch = Batch()
    assert batch.run([Item("first", lambda: send(number)), *later], block) == code
    assert (begun, batch.codes, block.left) == ([], [code], True)
    assert capsys.readouterr().err == "first: interrupted; everything it started was ended\n"
    assert [signal.getsignal(each) for each, _ in SIGNALS] == before


def test_an_interrupt_is_worse_than_whatever_ran_before(capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = items(a=ExitCode.USAGE, b=ExitCode.INTERNAL)
    assert Batch(strict=True).run([*made, Item("c", lambda: send(signal.SIGINT))]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.startswith("c: interrupted")


@pytest.mark.parametrize("number", [each for each, _ in SIGNALS])
def test_more_signals_do_not_disturb_the_teardown(number: int) -> None:
    block = Block(lambda: send(number, signal.SIGINT, signal.SIGTERM))
    assert Batch().run([Item("a", lambda: send(signal.SIGINT))], block) == ExitCode.INTERRUPTED
    assert block.left


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        made, _ = items(b=ExitCode.HELD)
        first = Item("a", lambda: send(signal.SIGHUP))
        assert Batch().run([first, *made]) == ExitCode.HELD
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def torn_down(at: str, steps: list[str]) -> str:
    """Sends a signal where `at` says."""
    try:
        if at == "start":
            send(signal.SIGINT)
        await asyncio.sleep(30 if at == "start" else 0)
    finally:
        steps.append("teardown")
        if at == "start":
            send(signal.SIGTERM)
        await asyncio.sleep(0)
        steps.append("gone")
    if at == "end":
        send(signal.SIGINT)
    return "result"


@pytest.mark.parametrize("at", ["start", "end"])
def test_a_signal_cancels_a_run_in_a_loop_once_and_a_late_one_ends_what_would_come_next(at: str) -> None:
    steps: list[str] = []
    with Interrupts() as interrupts, pytest.raises(InterruptError) as caught:
        interrupts.run(torn_down(at, steps))
    assert (steps, caught.value.exit_code) == (["teardown", "gone"], ExitCode.INTERRUPTED)


def test_without_a_signal_a_run_gives_its_result_and_its_own_errors() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with Interrupts() as interrupts:
        assert interrupts.run(torn_down("never", [])) == "result"
        with pytest.raises(asyncio.CancelledError):
            interrupts.run(cancelled())


def test_a_failing_run_puts_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    def run() -> ExitCode:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Batch().run([Item("a", run)])
    assert signal.getsignal(signal.SIGINT) is before


# -- through a pool


class FakePool:
    """Runs nothing: every unit holds."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.closed = False

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        try:
            for unit in units:
                self.given.append(unit.name)
                yield UnitResult(unit.name, "held")
        finally:
            self.closed = True


def through(
    batch: Batch, pool: FakePool, codes: Iterable[ExitCode] = (ExitCode.HELD,) * 3
) -> tuple[bool, list[tuple[int, str]]]:
    units = [(number, cast("Unit", SimpleNamespace(name=f"u{number}"))) for number in range(3)]
    found, ends = list[tuple[int, str]](), iter(codes)

    def take(key: int, result: UnitResult) -> tuple[ExitCode, str]:
        found.append((key, result.name))
        return next(ends), "runs"

    return batch.through(cast("Pool", pool), "some", units, 3, take), found


def test_each_result_comes_with_what_its_unit_was_made_for() -> None:
    assert through(Batch(), FakePool()) == (True, [(0, "u0"), (1, "u1"), (2, "u2")])


def test_a_code_that_stops_it_ends_what_runs() -> None:
    batch, pool = Batch(stops_at=frozenset({ExitCode.VIOLATED})), FakePool()
    done, found = through(batch, pool, [ExitCode.INCONCLUSIVE, ExitCode.VIOLATED])
    assert (done, len(found), pool.closed, pool.given) == (False, 2, True, ["u0", "u1"])


def test_a_result_that_cannot_be_taken_ends_what_runs_too() -> None:
    pool = FakePool()
    with pytest.raises(StopIteration):
        through(Batch(), pool, [ExitCode.HELD])
    assert pool.closed


# -- progress


def test_progress_is_one_line_that_is_written_again_and_removed(
    terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal()
    through(Batch(), FakePool())
    lines = capsys.readouterr().err.split("\r\x1b[K")
    assert lines == ["", "some: 1/3 runs, 0 s left", "some: 2/3 runs, 0 s left", "some: 3/3 runs", ""]


def test_progress_fits_the_terminal_because_what_wraps_is_not_removed(
    terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal()
    rewrite("x" * 100)
    assert capsys.readouterr().err == "\r\x1b[K" + "x" * 39


def test_a_line_for_people_takes_the_place_of_the_progress(
    terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal()
    batch = Batch(on_stderr=True)
    batch.show("a: step 1")
    batch.say("a line")
    assert capsys.readouterr().err == "\r\x1b[Ka: step 1\r\x1b[Ka line\n"


def test_there_is_no_progress_without_a_terminal_or_beside_one_document(
    terminal: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    through(Batch(), FakePool())
    terminal()
    through(Batch(quiet=True), FakePool())
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def entries(path: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Of each suite the kind and message of its first case's result."""
    found = {}
    for suite in JUnitXml.fromfile(str(path)):
        (result,) = next(iter(suite)).result
        found[suite.name] = (type(result).__name__, result.message)
    return found


def test_what_is_skipped_interrupted_or_never_started_has_an_entry_in_the_junit_file(tmp_path: pathlib.Path) -> None:
    made = [
        Item("here", lambda: ExitCode.HELD),
        Item("elsewhere", lambda: ExitCode.HELD, lambda: "no huge pages"),
        Item("cut", lambda: send(signal.SIGTERM), file=pathlib.Path("cut.yaml")),
        Item("later", lambda: ExitCode.HELD),
    ]
    Batch(junit=JunitFile(tmp_path / "all.xml")).run(made)
    assert entries(tmp_path / "all.xml") == {
        "elsewhere": ("Skipped", "no huge pages"),
        "cut": ("Error", "interrupted before its end"),
        "later": ("Skipped", "not run: an interrupt ended the command"),
    }


def test_what_fail_fast_leaves_out_has_an_entry_in_the_junit_file(tmp_path: pathlib.Path) -> None:
    made = [Item("bad", lambda: ExitCode.VIOLATED), Item("left", lambda: ExitCode.HELD)]
    Batch(junit=JunitFile(tmp_path / "all.xml"), stops_at=NOT_HELD).run(made)
    assert entries(tmp_path / "all.xml")["left"][0] == "Skipped"


def test_a_junit_file_exists_before_anything_has_run(tmp_path: pathlib.Path) -> None:
    JunitFile(tmp_path / "all.xml")
    assert list(JUnitXml.fromfile(str(tmp_path / "all.xml"))) == []


def test_the_strict_family_has_no_attribute_that_its_schema_does_not_know(tmp_path: pathlib.Path) -> None:
    file = JunitFile(tmp_path / "all.xml", "xunit2")
    file.add(without_result("a", pathlib.Path("a.yaml"), skipped="no huge pages"))
    tree = ET.parse(tmp_path / "all.xml").getroot()  # noqa: S314 - our own file
    allowed = {
        "testsuites": {"name", "time", "tests", "failures", "errors"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        "testcase": {"name", "time", "classname"},
        "skipped": {"type", "message"},
    }
    assert {each.tag for each in tree.iter()} == set(allowed)
    assert all(set(each.attrib) <= allowed[each.tag] for each in tree.iter())
