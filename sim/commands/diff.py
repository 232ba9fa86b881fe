"""Compare two recorded runs: what each sandbox did, decision by decision, and the figures beside each other.

RUN_A and RUN_B are run folders (or `latest` links, or folders of a scenario's runs). What is compared is what the
digest covers: transitions, decisions, outcomes, contents, fault firings; of each sandbox the first difference is told.
Times and sizes that were measured differ between any two runs and decide nothing. Exit codes: 0 the same, 1 different.

Example: snapdrill diff runs-before/demo runs-after/demo
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.report.comparison import Comparison

_VERSION = 1


@click.command("diff")
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(run_a: Path, run_b: Path, as_json: bool) -> int:
    """Compare; UserError where one cannot be read."""
    from sim.record.folder import open_run
    from sim.report.comparison import compare

    one, other = open_run(run_a), open_run(run_b)
    found = compare(one.entries, other.entries, (one.view, other.view))
    if as_json:
        document = {"version": _VERSION, "same": found.same, "runs": [str(one.folder), str(other.folder)]}
        click.echo(json.dumps(document | asdict(found), indent=2))
    else:
        click.echo("\n".join(_lines(found, (str(one.folder), str(other.folder)))))
    return ExitCode.HELD if found.same else ExitCode.VIOLATED


def _lines(found: Comparison, folders: tuple[str, str]) -> list[str]:
    lines = [f"A  {folders[0]}", f"B  {folders[1]}", ""]
    lines.append("the same decisions, outcomes and contents" if found.same else "different")
    for each in found.differences:
        lines.append(f"  {each.sandbox}" + (f", fact {each.number}" if each.number else ""))
        lines += [f"    A  {each.first or 'nothing'}", f"    B  {each.second or 'nothing'}"]
    rows = [(figure.name, figure.first or "-", figure.second or "-") for figure in found.figures]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [*lines, "", *(f"{name:<{widths[0]}}  {a:<{widths[1]}}  {b}".rstrip() for name, a, b in rows)]
