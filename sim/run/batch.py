"""Several in a row, or many in a pool: progress, interrupts, outputs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine.errors import UserError
from flags.catalog import did_you_mean
from sim.files.scenario import Scenario, discover, load_all
from sim.record.folder import SCENARIO_FILE, names_full_disk
from sim.record.verdict import ExitCode, Verdict, worst
from sim.report import github, judgements
from sim.report.document import run_document, scenario_document, write_document
from sim.report.failure import failure_block
from sim.report.html import REPORT_FILE, write_report
from sim.report.junit import suite, write_junit
from sim.report.text import summary
from sim.run import seeds as report
from sim.run.dask import open_pool
from sim.run.flag_source import check_source
from sim.run.needs import missing, planned_work
from sim.run.pool import Pool, default_jobs, default_memory
from sim.run.runner import RunOptions, RunResult, run_scenario
from sim.run.seeds import Seed, SeedOptions, Seeds, as_run, parse_seeds, run_seeds

if TYPE_CHECKING:
    from sim.report.prometheus import Metrics


@dataclass
class Outputs:
    """`plot`: draw memory over time in report.html, which makes it 5 MB; `metrics`: where a Prometheus file goes.

    `stdout_is_data`: what is meant for people goes to standard error.
    """

    plot: bool = False
    metrics: Path | None = None
    stdout_is_data: bool = False
    _metrics: Metrics | None = None
    _annotations: list[github.Annotation] = field(default_factory=list)
    _sections: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.metrics is not None:
            check_writable(self.metrics)
            from sim.report.prometheus import Metrics

            self._metrics = Metrics()

    def add(self, result: RunResult, scenario_file: Path, document: dict[str, Any]) -> None:
        """Write the reports of one run into its folder, its `scenario_document` too, and take it for the end's."""
        view, entries, run_dir = result.view, result.entries, result.run_dir
        write_document(run_dir / "report.json", document)
        write_junit(run_dir / "junit.xml", [suite(view, run_dir, scenario_file, entries)])
        page = run_dir / REPORT_FILE
        write_report(page, entries, view, run_dir, with_plot=self.plot, scenario_file=scenario_file)
        if self._metrics is not None:
            self._metrics.add(entries, view)
        if github.is_on():
            self._annotations += github.annotate(view, run_dir, scenario_file, entries)
            self._sections.append(github.section(view, run_dir, scenario_file, entries))

    def skip(self, name: str, reason: str, scenario_file: Path) -> None:
        """A scenario that this host cannot run."""
        if github.is_on():
            self._annotations.append(github.skipped(name, reason, scenario_file))

    def write(self) -> None:
        """What is about all of them; annotations go to standard error, where GitHub takes them as well."""
        if self.metrics is not None and self._metrics is not None:
            self._metrics.write(self.metrics)
        for line in github.commands(self._annotations):
            click.echo(line, err=True)
        github.append_summary(self._sections)


def check_writable(path: Path) -> None:
    """Before anything runs: it must not end in a file that cannot be written; UserError."""
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UserError(f"{path}: cannot be written: give a file in a folder that is there and may be written")


_BAD = frozenset({ExitCode.USAGE, ExitCode.INTERNAL, ExitCode.VIOLATED, ExitCode.INCONCLUSIVE})
Ended = TypeVar("Ended")
_INTERRUPTS = frozenset({ExitCode.INTERRUPTED, ExitCode.TERMINATED})


@dataclass
class Batch:
    """What one `snapdrill run` was asked for, and what came of it."""

    scenarios: list[Scenario]
    options: RunOptions
    documents: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    outputs: Outputs = field(default_factory=Outputs)

    @classmethod
    def load(cls, paths: Sequence[Path], options: RunOptions, given: Sequence[str] = ()) -> Batch:
        """Read every file before anything starts; raises UserError with every mistake of every file.

        `given` are the `KEY=VALUE` of the command line; each must be a variable that a scenario uses.
        """
        variables = _variables(given)
        scenarios, mistakes = read_all(paths, variables)
        if not mistakes:
            mistakes = _unused(variables, scenarios)
        names = list(dict.fromkeys(s.name for each in scenarios for s in each.sandboxes()))
        if not mistakes and scenarios:
            mistakes = [
                f'no sandbox "{only}"; {did_you_mean(only, names)}' for only in options.only if only not in names
            ]
        refuse(mistakes)
        return cls([each for each in scenarios if _has(each, options.only)], options)

    def plan(self) -> str:
        """What would run: sandboxes, chunks and memory of each scenario."""
        lines = []
        for each in self.scenarios:
            reason = missing(each)
            lines += [f"{each.title}: {planned_work(each)}"] + ([f"  would be skipped: {reason}"] if reason else [])
        return "\n".join(lines) or "nothing selected"

    def run(self, *, quiet: bool, fail_fast: bool = False) -> ExitCode:
        """Run all; the worst exit code of those that ran. An interrupt tears the running one down first.

        One that cannot be run to its end is told and the others go on; with `fail_fast` none goes on behind the first
        that did not hold.
        """
        for scenario in self.scenarios:
            if self.not_run or (fail_fast and _BAD & set(self.codes)):
                self._leave(scenario, quiet=quiet)
            elif reason := missing(scenario):
                self._skip(scenario, reason, quiet=quiet)
            elif self._run_one(scenario, quiet=quiet) in _INTERRUPTS:
                break
        self.outputs.write()
        return worst(self.codes)

    def _run_one(self, scenario: Scenario, *, quiet: bool) -> ExitCode:
        progress = _progress(scenario.title, quiet=quiet)
        result, code = None, ExitCode.HELD
        try:
            run = as_run(scenario, self.options.seed)
            result, code = run_interruptibly(run_scenario(run, self.options, progress))
            progress("")
            if result is not None:
                code = Verdict(judgements.verdict_of(result.view)).exit_code
                self._store(scenario, result)
        except BrokenPipeError:  # who read --events went away: that interrupts
            raise
        except Exception as error:  # noqa: BLE001 - told here whatever it is: the other scenarios go on
            progress("")
            code = worst([code, _tell(scenario, error)])
        self.codes.append(code)
        if code in _INTERRUPTS:
            click.echo(f"{scenario.title}: interrupted; everything it started was ended", err=True)
        if result is not None:
            self._report(scenario, result, quiet=quiet)
        return code

    def _leave(self, scenario: Scenario, *, quiet: bool) -> None:
        self.not_run.append(scenario.title)
        click.echo(f"{scenario.title}: not run (--fail-fast)", err=quiet or self.outputs.stdout_is_data)

    def _skip(self, scenario: Scenario, reason: str, *, quiet: bool) -> None:
        self.skipped.append({"name": scenario.title, "reason": reason})
        self.codes.append(ExitCode.UNSUPPORTED)
        click.echo(f"{scenario.title}: skipped: {reason}", err=quiet or self.outputs.stdout_is_data)
        self.outputs.skip(scenario.title, reason, scenario.path)

    def _store(self, scenario: Scenario, result: RunResult) -> None:
        """Write what the run folder holds beside the ledger."""
        document = scenario_document(result.view)
        self.documents.append(document)
        self.outputs.add(result, scenario.path, document)

    def _report(self, scenario: Scenario, result: RunResult, *, quiet: bool) -> None:
        drawn = scenario.swarm is not None  # what ran is in the run folder alone
        file = result.run_dir / SCENARIO_FILE if drawn else scenario.path
        block = failure_block(result.view, result.run_dir, file, result.entries)
        if not quiet:
            click.echo(summary(result.view, result.run_dir) + "\n", err=self.outputs.stdout_is_data)
        if block:
            click.echo(block + "\n", err=quiet or self.outputs.stdout_is_data)

    def document(self, code: ExitCode) -> dict[str, Any]:
        """The `--json` document."""
        left = {"skipped": self.skipped, "not_run": self.not_run}
        return run_document(self.documents, code) | {name: each for name, each in left.items() if each}

    def exit_code(self, code: ExitCode, *, strict: bool) -> ExitCode:
        """With --strict a skip decides over a run that held."""
        return ExitCode.UNSUPPORTED if strict and self.skipped and code is ExitCode.HELD else code


def _tell(scenario: Scenario, error: Exception) -> ExitCode:
    """Why there is no verdict: one line for what is no defect of ours."""
    if names_full_disk(error):
        what = error if isinstance(error, UserError) else f"its report cannot be stored: {error}; make room for it"
        click.echo(f"{scenario.title}: {what}", err=True)
        return ExitCode.INCONCLUSIVE
    if isinstance(error, UserError):
        click.echo(f"snapdrill: {error}", err=True)
        return ExitCode.USAGE
    traceback.print_exception(error)
    click.echo(f"{scenario.title}: internal error: this is a defect of snapdrill, not of the scenario", err=True)
    return ExitCode.INTERNAL


def _variables(given: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` as they are given; UserError for anything else."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise UserError(f'--var "{each}": write KEY=VALUE')
        if name in found:
            raise UserError(f'--var "{each}": {name} was given already')
        found[name] = value
    return found


def _unused(variables: Iterable[str], scenarios: Sequence[Scenario]) -> list[str]:
    """Values for what no scenario uses; a name that is declared and not used is as wrong."""
    known = list(dict.fromkeys(name for each in scenarios for name in each.variables))
    hint = "no scenario here has variables: declare it under vars, with its default"
    return [
        f'--var {name}: no scenario uses a variable "{name}"; {did_you_mean(name, known) if known else hint}'
        for name in variables
        if name not in known
    ]


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


def nothing_in(paths: Iterable[Path]) -> str:
    """What is said where folders hold no scenario."""
    return f"snapdrill: nothing selected: no scenario (*.yaml) in {', '.join(map(str, paths))}"


def refuse(mistakes: Sequence[str]) -> None:
    """Raise UserError with each mistake once, where there is one: several files may extend one that is wrong."""
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(mistakes)))


def _has(scenario: Scenario, only: Sequence[str]) -> bool:
    return not only or any(each.name in only for each in scenario.sandboxes())


def _progress(name: str, *, quiet: bool) -> Callable[[str], None]:
    """One line on a terminal's stderr, rewritten at each step."""
    if quiet or not sys.stderr.isatty():
        return lambda _step: None
    return lambda step: click.echo(f"\r\x1b[K{name}: step {step}" if step else "\r\x1b[K", nl=False, err=True)


def run_interruptibly(run: Coroutine[Any, Any, Ended]) -> tuple[Ended | None, ExitCode]:
    """Run to the end; SIGINT and SIGTERM cancel once, and teardown then runs to its own end."""
    caught: list[int] = []

    async def main() -> Ended:
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


def seed_options(seeds: str, options: RunOptions, *, jobs: int | None, fail_fast: bool) -> SeedOptions:
    """`--seeds` and `--jobs` beside what every run is asked for; UserError for seeds that are none."""
    return SeedOptions(
        parse_seeds(seeds),
        options.runs_dir.absolute(),
        jobs or default_jobs(),
        time_limit=options.time_limit,
        cache_dir=options.cache_dir.absolute() if options.cache_dir else None,
        fail_fast=fail_fast,
    )


def run_batch(
    scenarios: Sequence[Scenario],
    options: SeedOptions,
    *,
    as_json: bool,
    strict: bool = False,
    cluster: str | None = None,
) -> ExitCode:
    """Run them all; what an interrupt cuts short is told as far as it went. `strict`: a skip decides over HELD.

    `cluster` as open_pool has it.
    """
    batch = _SeedsBatch(options, quiet=as_json)
    try:
        with open_pool(cluster, options.jobs, default_memory()) as pool:
            for scenario in scenarios:
                batch.run(scenario, pool)
    except KeyboardInterrupt:
        batch.codes.append(ExitCode.INTERRUPTED)
    code = worst(batch.codes)
    if strict and batch.skipped and code is ExitCode.HELD:
        code = ExitCode.UNSUPPORTED
    if as_json:
        skipped = {"skipped": batch.skipped} if batch.skipped else {}
        document = {"version": report.VERSION, "exit_code": int(code), "scenarios": batch.documents, **skipped}
        click.echo(json.dumps(document, indent=2))
    return code


class _SeedsBatch:
    def __init__(self, options: SeedOptions, *, quiet: bool) -> None:
        self._options = options
        self._quiet = quiet
        self.codes: list[ExitCode] = []
        self.documents: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []

    def run(self, scenario: Scenario, pool: Pool) -> None:
        if reason := pool.lacks(scenario):
            self.codes.append(ExitCode.UNSUPPORTED)
            self.skipped.append({"name": scenario.name, "reason": reason})
            click.echo(f"{scenario.name}: skipped: {reason}", err=self._quiet)
            return
        seeds = Seeds(scenario, len(self._options.seeds))
        try:
            run_seeds(seeds, self._options, pool, lambda seed: self._told(seeds, seed))
        finally:
            self._report(seeds)

    def _told(self, seeds: Seeds, seed: Seed) -> None:
        _show_line("")
        if seed in seeds.failing:
            click.echo(report.seed_line(seed), err=self._quiet)
        failing = len(seeds.failing)
        _show_line(f"{seeds.scenario.name}: {len(seeds.done)}/{seeds.wanted} seeds, {failing} failing")

    def _report(self, seeds: Seeds) -> None:
        _show_line("")
        if seeds.done:
            self.codes.append(seeds.exit_code)
            self.documents.append(report.document(seeds))
        if not self._quiet:
            click.echo(("\n" if seeds.failing else "") + report.summary(seeds) + "\n")


def _show_line(line: str) -> None:
    """One line on a terminal's stderr, rewritten."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)
