"""Describe the fleet that production runs: make a fleet file from a table, and show its totals.

`snapdrill forecast` and a rehearsal start from a fleet file; scenarios/fleets/example.yaml is one.

Example: snapdrill fleet show scenarios/fleets/example.yaml
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from sim.record.verdict import ExitCode


@click.group("fleet")
def command() -> None:
    """Replaced by the module's docstring."""


def _bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int:
    from sim.files.units import parse_size

    try:
        return 0 if text is None else parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@command.command("import")
@click.argument("table", metavar="TABLE", type=click.Path(path_type=Path))
@click.option(
    "--node-memory", required=True, callback=_bytes, metavar="SIZE", help="A node's memory for guests with 4 KiB pages."
)
@click.option("--hugetlb", callback=_bytes, metavar="SIZE", help="A node's pool of 2 MiB pages.")
@click.option("--scale", default="1/64", show_default=True, help="Scale of a rehearsal, such as 1/64.")
@click.option("--name", default="imported", show_default=True)
def import_table(table: Path, node_memory: int, hugetlb: int, scale: str, name: str) -> ExitCode:
    """Print a fleet file made from a table with one sandbox per row.

    The table is CSV with a header, JSON, a list of objects, or Parquet, as docs/tables.md says; a row needs its memory.

    Example: snapdrill fleet import fleet.csv --node-memory 64GiB > fleet.yaml
    """
    from sim.files.fleet_file import load_text
    from sim.files.fleet_table import read_table
    from sim.files.imported_fleet import NEEDED, fleet_text

    read = read_table(table, NEEDED)
    for each in read.notes:
        click.echo(str(each), err=True)
    sandboxes = read.rows
    text = fleet_text(sandboxes, name=name, node_memory=node_memory, hugetlb=hugetlb, scale=scale, origin=table.name)
    load_text(text, Path("fleet.yaml"))  # the printed file is valid
    click.echo(text, nl=False)
    return ExitCode.HELD


@command.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(file: Path, as_json: bool) -> ExitCode:
    """Show the totals of a fleet file.

    The whole fleet, one node, and a rehearsal at the file's scale.

    Example: snapdrill fleet show scenarios/fleets/example.yaml --json
    """
    from sim.files.fleet_file import assumptions, load
    from sim.files.fleet_scale import at_scale
    from sim.report.table import Bullets, Section, figure_table, text
    from sim.rollout.production import per_node, rehearsed, totals

    fleet = load(file)
    scaled = at_scale(fleet)
    parts = {
        "fleet": totals(fleet),
        "node": per_node(fleet),
        "rehearsal": rehearsed(scaled),
        "assumed": assumptions(fleet),
    }
    if as_json:
        document = {part: {each.label: each.document() for each in figures} for part, figures in parts.items()}
        click.echo(json.dumps({"version": 1, "name": fleet.name, **document, "notes": scaled.notes}, indent=2))
        return ExitCode.HELD
    notes = Section("notes", (Bullets(scaled.notes),))
    click.echo(text([*(Section(title, (figure_table(figures),)) for title, figures in parts.items()), notes]))
    return ExitCode.HELD
