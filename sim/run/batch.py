"""Many runs for one command: reading files, skips, progress, interrupts, and the one exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import click

from engine.errors import UserError
from flags.document import DocumentError, Mistake
from sim.files.guests import with_guests
from sim.files.scenario import Scenario, discover, load_all
from sim.record.verdict import ExitCode, worst
from sim.report.junit import JunitFile, without_result
from sim.run.flag_source import check_source

if TYPE_CHECKING:
    from collections.abc import Generator

    from sim.files.fleet import GuestKind
    from sim.run.cases import Unit, UnitResult
    from sim.run.pool import Pool

NOT_HELD = frozenset({ExitCode.USAGE, ExitCode.INTERNAL, ExitCode.VIOLATED, ExitCode.INCONCLUSIVE})
"""Exit codes after which --fail-fast starts nothing more."""
NEVER = frozenset[ExitCode]()
"""With --keep-going."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Ended = TypeVar("Ended")
Key = TypeVar("Key")


def read_all(
    paths: Sequence[Path],
    variables: Mapping[str, str] | None = None,
    *,
    obey_unsafe: bool = False,
    guest: GuestKind | None = None,
) -> tuple[list[Scenario], list[Mistake]]:
    """Every scenario of these files and folders, with guests of one kind if one is given, and every mistake in them."""
    scenarios: list[Scenario] = []
    mistakes: list[Mistake] = []
    for path in discover(paths):
        try:
            made = [with_guests(each, guest) for each in load_all(path, variables, obey_unsafe=obey_unsafe)]
            scenarios += made
            for each in made:
                check_source(each)
        except DocumentError as error:
            mistakes += error.mistakes
    return scenarios, mistakes


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise DocumentError if there are mistakes, each once: several files may extend one that is wrong."""
    if mistakes:
        raise DocumentError("", mistakes)


def nothing_in(paths: Iterable[Path]) -> str:
    """The message where folders hold no scenario."""
    return f"snapdrill: nothing selected: no scenario (*.yaml) in {', '.join(map(str, paths))}"


def check_writable(path: Path) -> None:
    """Before anything runs: UserError if the file cannot be written at the end."""
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UserError(f"{path}: cannot be written: give a file in an existing folder that you may write to")


def rewrite(line: str) -> None:
    """If standard error is a terminal, replace its last line by this one; "" removes it."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be replaced
        click.echo(f"\r\x1b[K{line[:width]}", nl=False, err=True)


class InterruptError(KeyboardInterrupt):
    """A signal ended a command; `exit_code` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = ExitCode(128 + number)


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP while this is entered: the first one ends the runs, later ones do not disturb
    teardown.

    A signal that was ignored at the start stays ignored: SIGHUP under nohup, SIGINT in a script's background.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._cancel: Callable[[], object] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._first is not None:
            return
        self._first = number
        if self._cancel is None:
            raise InterruptError(number)
        self._cancel()

    def run(self, work: Coroutine[Any, Any, Ended]) -> Ended:
        """Run it in an event loop; a signal cancels it, and InterruptError is raised once it has torn down.

        A signal that is too late to cancel anything raises too, so that nothing more starts.
        """

        async def main() -> Ended:
            loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

            def cancel() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
                    loop.call_soon_threadsafe(task.cancel)

            self._cancel = cancel
            return await task

        try:
            result = asyncio.run(main())
        except asyncio.CancelledError:
            if self._first is None:
                raise
            raise InterruptError(self._first) from None
        finally:
            self._cancel = None
        if self._first is not None:
            raise InterruptError(self._first)
        return result


@dataclass(frozen=True, slots=True)
class Item:
    """One of a batch: `run` gives its exit code; `lacks` says why it cannot be run here, None if it can.

    `file` is what it was read from.
    """

    name: str
    run: Callable[[], ExitCode]
    lacks: Callable[[], str | None] = lambda: None
    file: Path | None = None


@dataclass
class Batch:
    """Items one after the other, each a run or many of them in a pool.

    `quiet`: standard output is one document, so show no progress; `on_stderr`: standard output is other data. `strict`:
    a skip outweighs verdicts that held. `stops_at`: the exit codes after which nothing more is started. `junit` gets an
    entry for what has no result of its own: skipped, interrupted, not started.
    """

    quiet: bool = False
    on_stderr: bool = False
    strict: bool = False
    stops_at: frozenset[ExitCode] = NEVER
    junit: JunitFile | None = None
    codes: list[ExitCode] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def run(self, items: Iterable[Item], pool: contextlib.AbstractContextManager[object] | None = None) -> ExitCode:
        """Run all of them, inside the pool's block if there is one; the worst exit code.

        An interrupt ends the runs in order, and nothing is started after it.
        """
        running: Item | None = None
        left = iter(items)
        with self.interrupts:
            try:
                with pool or contextlib.nullcontext():
                    for item in left:
                        running = item
                        self._take(item)
            except InterruptError as interrupt:
                self.codes.append(interrupt.exit_code)
                rewrite("")
                ended = "interrupted; everything it started was ended"
                click.echo(f"{running.name if running else 'snapdrill'}: {ended}", err=True)
                self._note_interrupted(running, left)
        code = worst(self.codes)
        return ExitCode.UNSUPPORTED if self.strict and self.skipped and code is ExitCode.HELD else code

    def _take(self, item: Item) -> None:
        if self.stops_at.intersection(self.codes):
            self.not_run.append(item.name)
            self._note(item, skipped="not run: an earlier one did not hold, and --fail-fast ended it")
            self.say(f"{item.name}: not run (--fail-fast)")
        elif reason := item.lacks():
            self.skipped.append({"name": item.name, "reason": reason})
            self.codes.append(ExitCode.UNSUPPORTED)
            self._note(item, skipped=reason)
            self.say(f"{item.name}: skipped: {reason}")
        else:
            self.codes.append(item.run())

    def _note_interrupted(self, running: Item | None, left: Iterable[Item]) -> None:
        if running is not None and self.junit is not None:
            self.junit.add(without_result(running.name, running.file, error="interrupted before its end"))
        for item in left if self.junit is not None else ():
            self._note(item, skipped="not run: an interrupt ended the command")

    def _note(self, item: Item, skipped: str) -> None:
        if self.junit is not None:
            self.junit.add(without_result(item.name, item.file, skipped=skipped))

    def through(
        self,
        pool: Pool,
        name: str,
        units: Iterable[tuple[Key, Unit]],
        count: int,
        take: Callable[[Key, UnitResult], tuple[ExitCode, str]],
    ) -> bool:
        """Run units, passing each result and the subject of its unit to `take` as it arrives; `take` gives the result's
        exit code and the note that progress shows beside `name` and the number done.

        False if one of `stops_at` ended it; runs still going are then ended.
        """
        began, done, stopped = time.monotonic(), 0, False
        with contextlib.closing(_results(pool, units)) as results:
            for key, result in results:
                code, note = take(key, result)
                done += 1
                left = (time.monotonic() - began) / done * (count - done)
                self.show(f"{name}: {done}/{count} {note}" + (f", {left:.0f} s left" if done < count else ""))
                if stopped := code in self.stops_at:
                    break
        self.show("")
        return not stopped

    def show(self, line: str) -> None:
        """Progress."""
        if not self.quiet:
            rewrite(line)

    def say(self, line: str) -> None:
        """A line for people, beside the progress."""
        self.show("")
        click.echo(line, err=self.quiet or self.on_stderr)

    def left_out(self) -> dict[str, Any]:
        """The part of a JSON document about skips and what --fail-fast left out; {} if nothing was left out."""
        found = {"skipped": self.skipped, "not_run": self.not_run}
        return {name: each for name, each in found.items() if each}


def _results(pool: Pool, units: Iterable[tuple[Key, Unit]]) -> Generator[tuple[Key, UnitResult], None, None]:
    keys: dict[str, Key] = {}

    def given() -> Iterator[Unit]:
        for key, unit in units:
            keys[unit.name] = key
            yield unit

    with contextlib.closing(cast("Generator[UnitResult, None, None]", pool.run(given()))) as results:
        for result in results:
            yield keys.pop(result.name), result
