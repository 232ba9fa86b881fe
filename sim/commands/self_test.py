"""Run every known wrong engine and every wrong drill, and show that each is caught.

Each wrong engine breaks one rule on purpose and runs in its scenario of scenarios/self-test, where a named rule must
catch it; the same scenario must hold with the correct engine, or it proves nothing. `pr-2902` is the pull request as
written: each of its weaknesses alone, and all at once. A wrong drill is a rule that sees half, or a report that lies:
it runs through `snapdrill run` and `check`, and is caught by a canary, or because exit code, JUnit file, ledger and
`check` contradict each other. Exit codes: 0 all caught, 1 one survived, 4 this host can run none of them, 70 a run
broke, 130 interrupted.

Example: snapdrill self-test --only 'pr-2902:*'
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands import junit_options
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.report.junit import Family


@click.command("self-test")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Only this wrong engine or drill, or a glob such as 'pr-2902:*'; may be repeated.",
)
@click.option("--list", "as_list", is_flag=True, help="Print the names and what each does wrong; run nothing.")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Runs at a time.  [default: one per CPU]")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where the runs of survivors are kept.")  # fmt: skip
@junit_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(
    only: tuple[str, ...],
    as_list: bool,
    jobs: int | None,
    runs_dir: Path,
    junit: Path | None,
    junit_family: Family,
    as_json: bool,
) -> ExitCode:
    """Replaced by the module's docstring."""
    from sim.report.junit import JunitFile
    from sim.run import self_test, whole_drill
    from sim.run.batch import Batch, Item
    from sim.run.pool import local_pool

    if as_list:
        click.echo(self_test.catalogue())
        return ExitCode.HELD

    chosen, drills = self_test.trials(only), self_test.drills(only)
    pool, results = local_pool(jobs), JunitFile.of(junit, junit_family)
    batch = Batch(quiet=as_json, on_stderr=True, junit=results)

    def test() -> ExitCode:
        findings = self_test.run(chosen, pool, runs_dir.absolute(), batch)
        findings += whole_drill.run(drills, findings, runs_dir.absolute(), jobs)
        click.echo(json.dumps(self_test.document(findings), indent=2) if as_json else self_test.table(findings))
        if results is not None:
            results.add(self_test.junit(findings))
        return self_test.exit_code(findings)

    return batch.run([Item("self-test", test)], pool)
