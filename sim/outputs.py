"""What finished runs hand over beside their ledger: the reports of each; metrics and GitHub's view of all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UserError
from sim.report import github
from sim.report.document import write_document
from sim.report.html import REPORT_FILE, write_report
from sim.report.junit import suite, write_junit
from sim.runner import RunResult

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
