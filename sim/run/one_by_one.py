"""Scenarios run one by one in this process, each with its reports: `snapdrill run`."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import HostError, UserError, host_error
from flags.catalog import did_you_mean
from sim.files.fleet import GuestKind
from sim.files.scenario import Scenario
from sim.record.folder import SCENARIO_FILE, RunFolderFullError, StoredRun, names_full_disk
from sim.record.verdict import ExitCode, Verdict, worst
from sim.report import github, judgements
from sim.report.document import VERSION, scenario_document, write_document
from sim.report.failure import failure_block
from sim.report.html import REPORT_FILE, write_report
from sim.report.junit import JunitFile, suite, without_result, write_junit
from sim.report.outlet import say_commands
from sim.report.text import summary
from sim.run.batch import Batch, Item, check_writable, read_all, refuse
from sim.run.draw import as_run
from sim.run.forked_nodes import nodes_for
from sim.run.needs import missing, planned, planned_work
from sim.run.runner import RunOptions, run_scenario

if TYPE_CHECKING:
    from sim.report.prometheus import Metrics


@dataclass
class Outputs:
    """`plot`: draw memory over time in report.html, which makes it 5 MB; `metrics`: where a Prometheus file goes.

    `junit` gets the suite of each run.
    """

    plot: bool = False
    metrics: Path | None = None
    junit: JunitFile | None = None
    _metrics: Metrics | None = None
    _annotations: list[github.Annotation] = field(default_factory=list)
    _sections: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.metrics is not None:
            check_writable(self.metrics)
            from sim.report.prometheus import Metrics

            self._metrics = Metrics()

    def add(self, result: StoredRun, scenario_file: Path, document: dict[str, Any]) -> None:
        """Write the reports of one run into its folder, its `scenario_document` too, and keep it for the end."""
        view, entries, run_dir = result.view, result.entries, result.folder
        write_document(run_dir / "report.json", document)
        made = suite(view, run_dir, scenario_file, entries)
        write_junit(run_dir / "junit.xml", [made])
        if self.junit is not None:
            self.junit.add(made)
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
        """Write the reports about all runs; annotations go to standard error, where GitHub reads them as well."""
        if self.metrics is not None and self._metrics is not None:
            self._metrics.write(self.metrics)
        say_commands(github.commands(self._annotations))
        github.append_summary(self._sections)


@dataclass
class OneByOne:
    """The options of one `snapdrill run`, and the document of each run."""

    scenarios: list[Scenario]
    options: RunOptions
    documents: list[dict[str, Any]] = field(default_factory=list)
    outputs: Outputs = field(default_factory=Outputs)

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        options: RunOptions,
        given: Sequence[str] = (),
        *,
        guest: GuestKind | None = None,
        obey_unsafe: bool = False,
    ) -> OneByOne:
        """Read every file before anything starts; raises UserError with every mistake of every file.

        `given` are the `KEY=VALUE` of the command line; each must be a variable that a scenario uses. With `guest`
        every sandbox of every scenario has guests of that kind.
        """
        variables = _variables(given)
        scenarios, mistakes = read_all(paths, variables, obey_unsafe=obey_unsafe, guest=guest)
        refuse(mistakes)
        wrong = _unused(variables, scenarios)
        cases = {name for each in scenarios if each.chosen for name in (each.title, each.name)}
        sandboxes = tuple(each for each in options.only if each not in cases)
        names = list(dict.fromkeys(s.name for each in scenarios for s in each.sandboxes()))
        if scenarios:
            wrong += [f'no sandbox "{only}"; {did_you_mean(only, names)}' for only in sandboxes if only not in names]
        if wrong:
            raise UserError("\n".join(wrong))
        if len(sandboxes) < len(options.only):
            scenarios = [each for each in scenarios if {each.title, each.name} & set(options.only)]
            options = replace(options, only=sandboxes)
        return cls([each for each in scenarios if _has(each, options.only)], options)

    def plan(self) -> str:
        """What would run: sandboxes, chunks and memory of each scenario, a line each."""
        lines = []
        for each in self.scenarios:
            reason = self._missing(each)
            lines += [f"{each.title}: {planned_work(each)}"] + ([f"  would be skipped: {reason}"] if reason else [])
        return "\n".join(lines) or "nothing selected"

    def plan_document(self) -> dict[str, Any]:
        """The same for `--dry-run --json`; `lacks` is why this host would skip it, null if it would not."""
        code = self.dry_run_code()
        made = [
            {**asdict(planned(each)), "file": str(each.path), "lacks": self._missing(each)} for each in self.scenarios
        ]
        return {"version": VERSION, "exit_code": int(code), "would_run": made}

    def run(self, batch: Batch) -> ExitCode:
        """Run all. One that cannot be run to its end is reported, and the others still run."""
        with nodes_for(len(self.scenarios)) as start_node:
            self.options = replace(self.options, start_node=start_node)
            code = batch.run(
                Item(each.title, partial(self._run, batch, each), partial(self._lacks, each), each.path)
                for each in self.scenarios
            )
        self.outputs.write()
        return code

    def _lacks(self, scenario: Scenario) -> str | None:
        if reason := self._missing(scenario):
            self.outputs.skip(scenario.title, reason, scenario.path)
        return reason

    def _missing(self, scenario: Scenario) -> str | None:
        return missing(scenario, self.options.runs_dir, self.options.cache_dir)

    def dry_run_code(self) -> ExitCode:
        """UNSUPPORTED where this host can run none of them."""
        if not self.scenarios:
            return ExitCode.NOTHING_SELECTED
        return ExitCode.HELD if any(self._missing(each) is None for each in self.scenarios) else ExitCode.UNSUPPORTED

    def _skip(self, batch: Batch, scenario: Scenario, reason: str) -> ExitCode:
        """What this host lacks was found when the run was set up."""
        self.outputs.skip(scenario.title, reason, scenario.path)
        batch.skipped.append({"name": scenario.title, "reason": reason})
        click.echo(f"{scenario.title}: {reason}", err=True)
        return ExitCode.UNSUPPORTED

    def _run(self, batch: Batch, scenario: Scenario) -> ExitCode:
        result, code = None, ExitCode.HELD
        try:
            run = as_run(scenario, self.options.seed)
            result = batch.interrupts.run(run_scenario(run, self.options, partial(_show, batch, scenario.title)))
            code = Verdict(judgements.verdict_of(result.view)).exit_code
            document = scenario_document(result.view)
            self.documents.append(document)
            self.outputs.add(result, scenario.path, document)
        except RunFolderFullError as error:
            batch.show("")
            return _report(scenario, error) if error.started else self._skip(batch, scenario, str(error))
        except Exception as error:  # noqa: BLE001 - any failure is reported here: the other scenarios still run
            batch.show("")
            code = worst([code, _report(scenario, error)])
            if result is None and self.outputs.junit is not None:
                self.outputs.junit.add(without_result(scenario.title, scenario.path, error=str(error) or repr(error)))
        if result is not None:
            _print(batch, scenario, result)
        return code


def _show(batch: Batch, title: str, step: str) -> None:
    batch.show(f"{title}: step {step}")


def _print(batch: Batch, scenario: Scenario, result: StoredRun) -> None:
    drawn = scenario.swarm is not None  # the scenario that ran is in the run folder alone
    file = result.folder / SCENARIO_FILE if drawn else scenario.path
    if not batch.quiet:
        batch.say(summary(result.view, result.folder) + "\n")
    if block := failure_block(result.view, result.folder, file, result.entries):
        batch.say(block + "\n")


def _report(scenario: Scenario, error: Exception) -> ExitCode:
    """Why there is no verdict; one line unless it is a defect of snapdrill."""
    if names_full_disk(error):
        what = error if isinstance(error, UserError) else f"its report cannot be stored: {error}; free some disk space"
        click.echo(f"{scenario.title}: {what}", err=True)
        return ExitCode.INCONCLUSIVE
    if isinstance(error, HostError):
        click.echo(f"{scenario.title}: {error}", err=True)
        return ExitCode.UNSUPPORTED
    if host_error(error) is not None and not isinstance(error, UserError):
        click.echo(f"{scenario.title}: no verdict: {error}: an error of this host", err=True)
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
            raise UserError(f'--var "{each}": {name} is given twice; remove one of them')
        found[name] = value
    return found


def _unused(variables: Iterable[str], scenarios: Sequence[Scenario]) -> list[str]:
    """UserError for a variable that no scenario uses, declared or not."""
    known = list(dict.fromkeys(name for each in scenarios for name in each.variables))
    hint = "none of these scenarios has variables; declare it under vars, with its default"
    return [
        f'--var {name}: no scenario uses a variable "{name}"; {did_you_mean(name, known) if known else hint}'
        for name in variables
        if name not in known
    ]


def _has(scenario: Scenario, only: Sequence[str]) -> bool:
    return not only or any(each.name in only for each in scenario.sandboxes())
