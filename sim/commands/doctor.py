"""Say what this host offers, by trying it.

Names everything that a run can use, what its absence costs and what would allow it. Ends with 0, or with 4 where
something that no run can do without is missing.

Example: snapdrill doctor --json
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.report.words import Tone
    from sim.run.host import Finding


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(as_json: bool) -> ExitCode:
    """HELD, or UNSUPPORTED where a required thing is missing."""
    from sim.run import host

    found = host.findings()
    if as_json:
        click.echo(json.dumps({"version": 1, "probes": [dataclasses.asdict(each) for each in found]}, indent=2))
    else:
        click.echo(report(found))
    missing = any(each.required and each.available is host.Available.NO for each in found)
    return ExitCode.UNSUPPORTED if missing else ExitCode.HELD


def report(found: list[Finding]) -> str:
    """One line each, two more for what is missing or limited, and a last line that says whether runs are possible."""
    from sim.report.table import Paragraph, Table, Words, text, toned

    rows: list[tuple[Words, str, str]] = []
    for each in found:
        tone = _TONES[each.available.value]
        rows.append((toned(each.available.value, tone), each.name, each.detail))
        if each.available.value != "yes":
            rows += [("", "", f"costs: {each.costs}"), ("", "", f"needs: {each.needs}")]
    missing = [each.name for each in found if each.required and each.available.value == "no"]
    last = f"this host cannot run snapdrill without: {', '.join(missing)}" if missing else _CAN_RUN
    return text([Table((), rows, "<<~"), Paragraph(last)])


_TONES: dict[str, Tone] = {"yes": "good", "limited": "warn", "no": "bad"}
_CAN_RUN = "this host can run snapdrill"
