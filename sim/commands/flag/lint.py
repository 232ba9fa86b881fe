"""Check a flag file, also for what LaunchDarkly accepts and a destructive flag must not have.

Prints each finding as file:line:column with what it does in production and a fix, and ends with 0 where there is no
error, 1 where there is one, 2 where the file cannot be read.

Example: snapdrill flags lint flags.json
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.commands.flag.kinds import KINDS_HELP, contexts_given
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.lint import LintFinding


@click.command("lint", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kinds", default="original", show_default=True, metavar="KINDS", help=KINDS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def lint(file: Path, kinds: str, as_json: bool) -> ExitCode:
    """Replaced by the module's docstring."""
    from flags.file import examine

    _, findings = examine(file, contexts_given(kinds))
    if as_json:
        rows = [dataclasses.asdict(each) for each in findings]
        click.echo(json.dumps({"version": 1, "file": str(file), "findings": rows}, indent=2))
    else:
        click.echo("\n".join(report(str(file), findings)))
    return ExitCode.VIOLATED if any(each.severity == "error" for each in findings) else ExitCode.HELD


def report(file: str, findings: list[LintFinding]) -> list[str]:
    """Three lines a finding, and the count."""
    lines = []
    for each in findings:
        lines.append(f"{file}:{each.line}:{each.column}: {each.severity}: {each.message}")
        lines += [f"    in production: {each.production}", f"    fix: {each.fix}"]
    errors = sum(each.severity == "error" for each in findings)
    counts = f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"
    return [*lines, f"{file}: {counts if findings else 'ok'}"]


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
