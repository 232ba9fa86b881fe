"""Many runs for one command: what is read first, what is left out, progress, interrupts, and the one exit code."""

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
from sim.files.scenario import Scenario, discover, load_all
from sim.record.verdict import ExitCode, worst
from sim.run.flag_source import check_source

if TYPE_CHECKING:
    from collections.abc import Generator

    from sim.run.cases import Unit, UnitResult
    from sim.run.pool import Pool

NOT_HELD = frozenset({ExitCode.USAGE, ExitCode.INTERNAL, ExitCode.VIOLATED, ExitCode.INCONCLUSIVE})
"""Exit codes behind which --fail-fast begins nothing more."""
NEVER = frozenset[ExitCode]()
"""With --keep-going."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Ended = TypeVar("Ended")
Key = TypeVar("Key")


def read_all(paths: Sequence[Path], variables: Mapping[str, str] | None = None) -> tuple[list[Scenario], list[str]]:
    """Every scenario of these files and folders, and every mistake that is in them."""
    scenarios: list[Scenario] = []
    mistakes: list[str] = []
    for path in discover(paths):
        try:
            made = load_all(path, variables)
            scenarios += made
            for each in made:
                check_source(each)
        except UserError as error:
            mistakes += str(error).splitlines()
    return scenarios, mistakes


def refuse(mistakes: Sequence[str]) -> None:
    """Raise UserError with each mistake once, where there is one: several files may extend one that is wrong."""
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))


def nothing_in(paths: Iterable[Path]) -> str:
    """The message where folders hold no scenario."""
    return f"snapdrill: nothing selected: no scenario (*.yaml) in {', '.join(map(str, paths))}"


def check_writable(path: Path) -> None:
    """Before anything runs: it must not end in a file that cannot be written; UserError."""
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UserError(f"{path}: cannot be written: give a file in a folder that is there and may be written")


def rewrite(line: str) -> None:
    """Show a line on a terminal's standard error in place of the one before; "" removes it. Else do nothing."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1  # one that wraps could not be replaced
        click.echo(f"\r\x1b[K{line[:width]}", nl=False, err=True)


class InterruptError(KeyboardInterrupt):
    """A signal ended a command; `exit_code` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP while this is entered: the first one ends what runs, later ones do not disturb its
    teardown.

    What was ignored at the start stays so: SIGHUP under nohup, SIGINT in a script's background.
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

        A signal that comes too late to cancel anything raises too: it ends what would come next.
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
    """One of a batch: `run` gives its exit code; `lacks` says why it cannot be run here, None where it can."""

    name: str
    run: Callable[[], ExitCode]
    lacks: Callable[[], str | None] = lambda: None


@dataclass
class Batch:
    """Items one after the other, each a run or many of them in a pool.

    `quiet`: standard output is one document, so nothing shows progress; `on_stderr`: it is other data. `strict`: a skip
    decides over what held. `stops_at`: the exit codes behind which nothing more is begun.
    """

    quiet: bool = False
    on_stderr: bool = False
    strict: bool = False
    stops_at: frozenset[ExitCode] = NEVER
    codes: list[ExitCode] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def run(self, items: Iterable[Item], pool: contextlib.AbstractContextManager[object] | None = None) -> ExitCode:
        """Take all of them, in the pool's block where there is one; the worst exit code.

        An interrupt ends what runs, in order, and nothing comes after it.
        """
        running = "snapdrill"
        with self.interrupts:
            try:
                with pool or contextlib.nullcontext():
                    for item in items:
                        running = item.name
                        self._take(item)
            except InterruptError as interrupt:
                self.codes.append(interrupt.exit_code)
                rewrite("")
                click.echo(f"{running}: interrupted; everything it started was ended", err=True)
        code = worst(self.codes)
        return ExitCode.UNSUPPORTED if self.strict and self.skipped and code is ExitCode.HELD else code

    def _take(self, item: Item) -> None:
        if self.stops_at.intersection(self.codes):
            self.not_run.append(item.name)
            self.say(f"{item.name}: not run (--fail-fast)")
        elif reason := item.lacks():
            self.skipped.append({"name": item.name, "reason": reason})
            self.codes.append(ExitCode.UNSUPPORTED)
            self.say(f"{item.name}: skipped: {reason}")
        else:
            self.codes.append(item.run())

    def through(
        self,
        pool: Pool,
        name: str,
        units: Iterable[tuple[Key, Unit]],
        count: int,
        take: Callable[[Key, UnitResult], tuple[ExitCode, str]],
    ) -> bool:
        """Run units, giving `take` each result as it comes with what its unit was made for; `take` gives the exit code
        of it and what progress says beside `name` and the number that is done.

        False where one of `stops_at` ended it; what runs is then ended.
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
        """What a JSON document has of skips and of what --fail-fast left; {} where nothing was left out."""
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
