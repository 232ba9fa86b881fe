"""Say what this host offers, by trying it.

Names everything that a run can use, what its absence costs and what would allow it. Ends with 0, or with 4 where
something that no run can do without is missing.

Example: snapdrill doctor --json
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
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
        click.echo("\n".join(report(found)))
    missing = any(each.required and each.available is host.Available.NO for each in found)
    return ExitCode.UNSUPPORTED if missing else ExitCode.HELD


def report(found: list[Finding]) -> list[str]:
    """One line each, two more for what is missing or limited, and a last line that says whether runs are possible."""
    width = max(len(each.name) for each in found)
    lines = []
    for each in found:
        lines += _beside(f"{each.available.value:<7}  {each.name:<{width}}  ", each.detail)
        if each.available.value != "yes":
            indent = " " * (width + 11)
            lines += [*_beside(indent, f"costs: {each.costs}"), *_beside(indent, f"needs: {each.needs}")]
    missing = [each.name for each in found if each.required and each.available.value == "no"]
    return [*lines, "", f"this host cannot run snapdrill without: {', '.join(missing)}" if missing else _CAN_RUN]


def _beside(start: str, text: str) -> list[str]:
    """In lines of 80; a path or a command is never broken."""
    whole = textwrap.TextWrapper(80, start, " " * len(start), break_long_words=False, break_on_hyphens=False)
    return whole.wrap(text) or [start]


_CAN_RUN = "this host can run snapdrill"
