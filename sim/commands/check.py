"""Judge a recorded run again, by its ledger alone, beside what the run itself saw of reality.

RUN is a run folder, the `latest` link beside it, or the folder of a scenario's runs. `--trace FILE` judges a ledger
that something else made: JSON Lines as `snapdrill schema events` says; events that this version does not know are
counted and left out. Nothing is run: any machine can judge a recording from any other. Exit codes: 0 held, 1 violated,
2 a line that is no event, 3 inconclusive: the ledger does not tell enough.

Example: snapdrill check runs/demo/latest
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.record.ledger import Entry


@click.command("check")
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--trace", "trace_file", metavar="FILE", type=click.Path(path_type=Path), help="A ledger made elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(run: Path | None, trace_file: Path | None, as_json: bool) -> ExitCode:
    """Judge one of the two; UserError where it cannot be read."""
    if (run is None) == (trace_file is None):
        raise click.UsageError("give one of the two: RUN, or --trace FILE")
    if trace_file is not None:
        from sim.record.schema import read_trace

        read = read_trace(trace_file)
        return _judge(trace_file, read.entries, read.unknown, as_json=as_json)
    from sim.record.folder import open_run

    stored = open_run(run or Path())
    return _judge(stored.path, stored.entries, {}, as_json=as_json)


def _judge(path: Path, entries: Sequence[Entry], unknown: Mapping[str, int], *, as_json: bool) -> ExitCode:
    from sim.report import rejudged
    from sim.report.table import text
    from sim.rules import judge
    from sim.rules.evidence import Evidence

    evidence = Evidence(entries)
    found = rejudged.beside_the_run(judge(evidence), evidence.view)
    verdict = rejudged.verdict_of(found, complete=evidence.complete)
    if as_json:
        document = rejudged.document(str(path), found, verdict, len(entries), unknown)
        click.echo(json.dumps(document, indent=2))
        return verdict.exit_code
    click.echo(f"{path}   {len(entries)} events   {verdict.upper()}")
    if unknown:
        told = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        click.echo(f"left out, not known to this version: {told}")
    if not evidence.complete:
        click.echo("the ledger has no end of the run: what is not in it may have happened")
    click.echo("\n" + text(rejudged.sections(found)))
    return verdict.exit_code
