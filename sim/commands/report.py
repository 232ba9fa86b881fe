"""Print the report of a recorded run again, from its ledger.

RUN is a run folder, the `latest` link beside it, the folder of a scenario's runs (its latest is taken), or an
events.jsonl. Nothing is run or judged again; `snapdrill check` judges.

Example: snapdrill report runs/demo/latest --html report.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import UserError

if TYPE_CHECKING:
    from sim.record.folder import StoredRun


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print report.json's document instead of text.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it as one HTML file, with memory over time where the extra `report` is installed.",
)
def command(run: Path, as_json: bool, html: Path | None) -> None:
    """Print it, or UserError naming the file that cannot be read."""
    from sim.record.folder import open_run
    from sim.report.document import scenario_document
    from sim.report.failure import failure_block
    from sim.report.text import summary

    stored = open_run(run)
    if html is not None:
        _write_page(stored, html)
    if as_json:
        click.echo(json.dumps(scenario_document(stored.view), indent=2))
        return
    click.echo(summary(stored.view, stored.folder))
    block = failure_block(stored.view, stored.folder, stored.scenario_file, stored.entries)
    if block:
        click.echo(f"\n{block}")


def _write_page(stored: StoredRun, path: Path) -> None:
    from sim.report.html import write_report

    try:
        file = stored.scenario_file
        write_report(path, stored.entries, stored.view, stored.folder, with_plot=True, scenario_file=file)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
