"""One `snapdrill rehearse`: runs the plan interruptibly, reports progress, writes and prints the result."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from sim.files.plan import Plan
from sim.record.rollout_view import REHEARSAL_FILE
from sim.record.verdict import ExitCode
from sim.report.document import scenario_document, write_document
from sim.report.html import write_page
from sim.report.junit import JunitFile, suite, write_junit
from sim.report.table import text
from sim.rollout.approval import APPROVAL_FILE, Approved, approval_document, approved
from sim.rollout.compiled import Compiled, compiled
from sim.rollout.critic import Concern, concern_lines, critique, stops
from sim.rollout.exposure import Exposure, as_exported, exposures_of
from sim.rollout.identity import seed_of
from sim.rollout.outputs import rehearsal_suite, write_rehearsal_page
from sim.rollout.rehearse import decided, rehearse
from sim.rollout.results import Rehearsal, StepResult, weaknesses
from sim.rollout.salvage_arm import check_salvage_arm
from sim.rollout.simulated_nodes import sample_lack
from sim.rollout.user_fleet import UserFleet, of_plan
from sim.run.batch import Batch, Item
from sim.run.dask import open_pool
from sim.run.flag_source import check_source
from sim.run.needs import missing
from sim.run.one_by_one import Outputs
from sim.run.pool import default_jobs, default_memory
from sim.run.runner import RunOptions


class Session:
    """What was asked for, and the result: `rehearsal` is None until it has ended."""

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        *,
        quiet: bool = False,
        export: Path | None = None,
        plot: bool = False,
        summary: Path | None = None,
        junit: JunitFile | None = None,
        goes_on: Path | None = None,
        openmetrics: Path | None = None,
    ) -> None:
        self.plan = plan
        self.fleet: UserFleet | None = None
        self.rehearsal: Rehearsal | None = None
        self._since: Approved | None = None
        if goes_on is not None:
            self._since = approved(goes_on, plan, options.seed)
            options = replace(options, seed=self._since.seed)
        self._options = options
        self._batch = Batch(quiet=quiet, on_stderr=True, junit=junit)
        self._export = export
        self._plot = plot
        self._summary = summary
        self._openmetrics = openmetrics
        check_salvage_arm(plan)

    def outline(self) -> ExitCode:
        """Print the steps of the plan, which sandboxes would be exposed and what the critic says; starts nothing.

        INCONCLUSIVE where the plan cannot end in a go.
        """
        from sim.rollout.decision_page import fleet_sections
        from sim.rollout.sections import outline

        self._look_at_the_fleet()
        made = compiled(self.plan)
        exposed = exposures_of(made)
        concerns = critique(made, exposed, self.fleet)
        code = ExitCode.INCONCLUSIVE if stops(concerns) else ExitCode.HELD
        if self._batch.quiet:
            document = _outline_document(self.plan, made, exposed, concerns, code)
            document["warnings"] = [] if self.fleet is None else list(self.fleet.warnings)
            click.echo(json.dumps(document, indent=2))
            return code
        whole = fleet_sections(self.plan, self.fleet)
        click.echo("\n".join([outline(made, exposed, as_exported(self.plan)), *(["", text(whole)] if whole else [])]))
        click.echo("\n".join(["", *concern_lines(self.plan, concerns)]))
        return code

    def _look_at_the_fleet(self) -> None:
        """Of a plan over a table: who of all its rows is exposed; the plan is then over a sample of them."""

        def progress(share: float) -> None:
            self._batch.show(f"{self.plan.name}: exposure of every row, {share:.0%}")

        self.plan, self.fleet = of_plan(self.plan, progress)
        self._batch.show("")

    def run(self) -> ExitCode:
        """To the end; the exit code of its decision."""
        self._look_at_the_fleet()
        made = compiled(self.plan)
        check_source(made.scenario)

        def lacks() -> str | None:
            lack = None if self.fleet is None else sample_lack(made.scenario)
            return lack or missing(made.scenario)

        return self._batch.run([Item(self.plan.name, self._rehearse, lacks, self.plan.path)])

    def _rehearse(self) -> ExitCode:
        def progress(step: str) -> None:
            self._batch.show(f"{self.plan.name}: {step}")

        result = self._batch.interrupts.run(
            rehearse(self.plan, self._options, progress, self._tell, self.fleet, self._since)
        )
        self._batch.show("")
        self.rehearsal = self._with_weaknesses(result)
        self._store()
        if not self._batch.quiet:
            from sim.rollout.sections import report

            click.echo(report(self.rehearsal))
        return self.rehearsal.verdict.exit_code

    def run_matrix(self, jobs: int | None, *, cluster: str | None = None) -> ExitCode:
        """Each step x each fault; violated where one of them is. `cluster` as open_pool has it."""
        from sim.rollout import matrix

        self._look_at_the_fleet()
        pool = open_pool(cluster, jobs or default_jobs(), default_memory())

        def run() -> ExitCode:
            runs_dir = self._options.runs_dir.absolute()
            made = matrix.run_matrix(self.plan, runs_dir, pool, self._batch, seed=self._options.seed)
            if self._batch.junit is not None:
                self._batch.junit.add(matrix.junit(made))
            click.echo(
                json.dumps(matrix.document(made), indent=2) if self._batch.quiet else text(matrix.sections(made))
            )
            return ExitCode.VIOLATED if made.bad else ExitCode.HELD

        lacks = partial(pool.lacks, compiled(self.plan).scenario)
        return self._batch.run([Item(self.plan.name, run, lacks, self.plan.path)], pool)

    def _with_weaknesses(self, found: Rehearsal) -> Rehearsal:
        """A wrong engine answers for each of its weaknesses by itself."""
        runs_dir = self._options.runs_dir.absolute()
        shown = weaknesses(self.plan, runs_dir, jobs=default_jobs(), memory=default_memory())
        return decided(replace(found, weaknesses=shown)) if shown else found

    def document(self) -> dict[str, Any]:
        """The `--json` document."""
        from sim.rollout.outputs import rehearsal_document

        if self.rehearsal is None:
            raise RuntimeError("nothing was rehearsed")
        return rehearsal_document(self.rehearsal)

    def _store(self) -> None:
        if self.rehearsal is None:
            return
        outputs = Outputs(plot=self._plot)
        three = self.rehearsal.three
        for run in (self.rehearsal.off, self.rehearsal.on, *([] if three is None else [three.run])):
            outputs.add(run, self.plan.path, scenario_document(run.view))
        found, folder = self.rehearsal, self.rehearsal.folder
        write_document(folder / REHEARSAL_FILE, self.document())
        if found.decision == "waits for approval":
            write_document(folder / APPROVAL_FILE, approval_document(found, seed_of(found)))
        suites = [rehearsal_suite(found), suite(found.on.view, folder, self.plan.path, found.on.entries)]
        write_junit(folder / "junit.xml", suites)
        if self._batch.junit is not None:
            self._batch.junit.add(*suites)
        write_rehearsal_page(found, with_plot=self._plot)
        if self._export is not None:
            from sim.rollout.export import export

            export(found, self._export)
        if self._summary is not None:
            from sim.rollout.decision_page import summary

            write_page(self._summary, summary(found))
        if self._openmetrics is not None:
            from sim.rollout.openmetrics import openmetrics

            write_page(self._openmetrics, openmetrics(found))

    def _tell(self, result: StepResult) -> None:
        """Each step as it ends, on a terminal's stderr."""
        if not self._batch.quiet and sys.stderr.isatty():
            from sim.rollout.sections import step_line

            click.echo("\r\x1b[K" + step_line(result), err=True)


def _outline_document(
    plan: Plan, made: Compiled, exposed: Sequence[Exposure], concerns: Sequence[Concern], code: ExitCode
) -> dict[str, Any]:
    """What a plan would do, for `--dry-run --json`."""
    stages = [
        {"weight": stage.weight, "exposed": list(each.sandboxes)}
        for stage, each in zip(made.stages, exposed, strict=True)
    ]
    found = [
        {"name": each.name, "severity": each.severity, "step": each.step, "what": each.what, "mend": each.mend}
        for each in concerns
    ]
    return {"version": 1, "exit_code": int(code), "name": plan.name, "stages": stages, "concerns": found}
