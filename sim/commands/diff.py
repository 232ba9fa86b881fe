"""Compare two recorded runs: what each sandbox did, decision by decision, and the figures beside each other.

RUN_A and RUN_B are run folders (or `latest` links, or folders of a scenario's runs). What is compared is what the
digest covers: transitions, decisions, outcomes, contents, fault firings; of each sandbox the first difference is told.
Times and sizes that were measured differ between any two runs and decide nothing. Two rehearsals are compared by their
decision, stages, bounds and metrics. Exit codes: 0 the same, 1 different.

Example: snapdrill diff runs-before/demo runs-after/demo
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.report.comparison import Comparison
    from sim.report.table import Section

_VERSION = 1


@click.command("diff")
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(run_a: Path, run_b: Path, as_json: bool) -> int:
    """Compare; UserError where one cannot be read."""
    from sim.record.folder import open_run
    from sim.report.comparison import compare
    from sim.report.table import text
    from sim.rollout.rehearsal_diff import document_of

    one, other = open_run(run_a), open_run(run_b)
    folders = (str(one.folder), str(other.folder))
    ours, theirs = document_of(one.folder), document_of(other.folder)
    if ours is not None and theirs is not None:
        return _rehearsals(ours, theirs, folders, as_json=as_json)
    found = compare(one.entries, other.entries, (one.view, other.view))
    if as_json:
        document = {"version": _VERSION, "same": found.same, "runs": [str(one.folder), str(other.folder)]}
        click.echo(json.dumps(document | asdict(found), indent=2))
    else:
        click.echo(text(_sections(found, (str(one.folder), str(other.folder)))))
    return ExitCode.HELD if found.same else ExitCode.VIOLATED


def _rehearsals(one: dict[str, Any], other: dict[str, Any], folders: tuple[str, str], *, as_json: bool) -> int:
    from sim.report.table import text
    from sim.rollout.rehearsal_diff import compare_rehearsals, diff_sections

    found = compare_rehearsals(one, other)
    if as_json:
        lines = [asdict(each) | {"differs": each.differs} for each in found.lines]
        document = {"version": _VERSION, "same": found.same, "rehearsals": list(folders), "lines": lines}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(text(diff_sections(found, folders)))
    return ExitCode.HELD if found.same else ExitCode.VIOLATED


def _sections(found: Comparison, folders: tuple[str, str]) -> list[Section]:
    from sim.report.table import Paragraph, Section, Table, facts

    rows = []
    for each in found.differences:
        fact = str(each.number) if each.number else "a fault"
        rows += [(each.sandbox, fact, "A", each.first or "nothing"), ("", "", "B", each.second or "nothing")]
    figures = [(figure.name, figure.first or "-", figure.second or "-") for figure in found.figures]
    said = "the same decisions, outcomes and contents" if found.same else "different; of each sandbox the first fact:"
    return [
        Section("", (facts([("A", folders[0]), ("B", folders[1])]),)),
        Section("", (Paragraph(said), Table(("sandbox", "fact", "run", "what happened"), rows, "<><~"))),
        Section("", (Table(("figure", "A", "B"), figures, "<~"),)),
    ]
