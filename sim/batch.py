"""Several scenarios, one after the other: loaded all first, skipped by name where the host cannot, reported each."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from engine.errors import UserError
from flags.catalog import did_you_mean
from sim.flag_service import check_source
from sim.report.document import run_document, scenario_document, write_document
from sim.report.failure import failure_block
from sim.report.junit import suite, write_junit
from sim.report.text import summary
from sim.requirements import missing, planned_work
from sim.runner import RunOptions, RunResult, run_scenario
from sim.scenario import Scenario, discover, load
from sim.verdict import ExitCode, Verdict, worst


@dataclass
class Batch:
    """What one `snapdrill run` was asked for, and what came of it."""

    scenarios: list[Scenario]
    options: RunOptions
    documents: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)

    @classmethod
    def load(cls, paths: Sequence[Path], options: RunOptions) -> Batch:
        """Read every file before anything starts; raises UserError with every mistake of every file."""
        scenarios, mistakes = [], []
        for path in discover(paths):
            try:
                scenarios.append(load(path))
                check_source(scenarios[-1])
            except UserError as error:
                mistakes.append(str(error))
        names = list(dict.fromkeys(s.name for each in scenarios for s in each.sandboxes()))
        if not mistakes and scenarios:
            mistakes = [
                f'no sandbox "{only}"; {did_you_mean(only, names)}' for only in options.only if only not in names
            ]
        if mistakes:
            raise UserError("\n".join(mistakes))
        return cls([each for each in scenarios if _has(each, options.only)], options)

    def plan(self) -> str:
        """What would run: sandboxes, chunks and memory of each scenario."""
        lines = []
        for each in self.scenarios:
            reason = missing(each)
            lines += [f"{each.name}: {planned_work(each)}"] + ([f"  would be skipped: {reason}"] if reason else [])
        return "\n".join(lines) or "nothing selected"

    def run(self, *, quiet: bool) -> ExitCode:
        """Run all; the worst exit code of those that ran. An interrupt tears the running one down first."""
        for scenario in self.scenarios:
            if reason := missing(scenario):
                self._skip(scenario, reason, quiet=quiet)
                continue
            progress = _progress(scenario.name, quiet=quiet)
            result, code = _run_interruptibly(run_scenario(scenario, self.options, progress))
            progress("")
            if result is None:
                click.echo(f"{scenario.name}: interrupted; everything it started was ended", err=True)
                self.codes.append(code)
                break
            self._report(scenario, result, quiet=quiet)
        return worst(self.codes)

    def _skip(self, scenario: Scenario, reason: str, *, quiet: bool) -> None:
        self.skipped.append({"name": scenario.name, "reason": reason})
        self.codes.append(ExitCode.UNSUPPORTED)
        click.echo(f"{scenario.name}: skipped: {reason}", err=quiet)

    def _report(self, scenario: Scenario, result: RunResult, *, quiet: bool) -> None:
        document = scenario_document(result.view)
        self.documents.append(document)
        code = Verdict(document["verdict"]).exit_code
        self.codes.append(code)
        write_document(result.run_dir / "report.json", document)
        write_junit(result.run_dir / "junit.xml", [suite(result.view, result.run_dir, scenario.path)])
        block = failure_block(result.view, result.run_dir, scenario.path, result.entries)
        if not quiet:
            click.echo(summary(result.view, result.run_dir) + "\n")
        if block:
            click.echo(block + "\n", err=quiet)

    def document(self, code: ExitCode) -> dict[str, Any]:
        """The `--json` document."""
        return run_document(self.documents, code) | ({"skipped": self.skipped} if self.skipped else {})

    def exit_code(self, code: ExitCode, *, strict: bool) -> ExitCode:
        """With --strict a skip decides over a run that held."""
        return ExitCode.UNSUPPORTED if strict and self.skipped and code is ExitCode.HELD else code


def _has(scenario: Scenario, only: Sequence[str]) -> bool:
    return not only or any(each.name in only for each in scenario.sandboxes())


def _progress(name: str, *, quiet: bool) -> Callable[[str], None]:
    """One line on a terminal's stderr, rewritten at each step."""
    if quiet or not sys.stderr.isatty():
        return lambda _step: None
    return lambda step: click.echo(f"\r\x1b[K{name}: step {step}" if step else "\r\x1b[K", nl=False, err=True)


def _run_interruptibly(run: Coroutine[Any, Any, RunResult]) -> tuple[RunResult | None, ExitCode]:
    """Run to the end; SIGINT and SIGTERM cancel once, and teardown then runs to its own end."""
    caught: list[int] = []

    async def main() -> RunResult:
        task = asyncio.ensure_future(run)

        def cancel_once(number: int) -> None:
            caught.append(number)
            if len(caught) == 1:
                task.cancel()

        with _signals(cancel_once):
            return await task

    with contextlib.suppress(asyncio.CancelledError):
        result = asyncio.run(main())
        if not caught:  # one that came too late to cancel anything ends what would come next
            return result, ExitCode.HELD
    return None, ExitCode.TERMINATED if caught[:1] == [signal.SIGTERM] else ExitCode.INTERRUPTED


@contextlib.contextmanager
def _signals(handle: Callable[[int], object]) -> Iterator[None]:
    """What was ignored at the start stays so: SIGHUP under nohup, SIGINT in a script's background."""
    loop = asyncio.get_running_loop()
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in asked if signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
