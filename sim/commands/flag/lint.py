"""Check a flag file, also for what LaunchDarkly accepts and a destructive flag must not have.

LaunchDarkly's own evaluator is asked which contexts each rule matches. Prints each mistake as file:line:column with
what it does in production and a fix, and ends with 0 where there is no error, 1 where there is one, 2 where the file
cannot be read.

Example: snapdrill flags lint flags.json
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.flag.kinds import KINDS_HELP, contexts_given
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.cohort import Member
    from flags.context import Contexts
    from flags.document import Mistake
    from flags.problem import Who


@dataclass(frozen=True, slots=True)
class Struck:
    """What of a fleet gets an unsafe value by a mistake; memory in bytes, None where it is not known."""

    key: str
    sandboxes: int
    of: int
    memory: int | None
    when: str

    def words(self) -> str:
        """`3 of 40 sandboxes, 1.5 GiB, are punched as the flag stands`."""
        memory = "" if self.memory is None else f", {self.memory / 2**30:.1f} GiB"
        verb = "are punched" if self.key == "memfd-punch-on-snapshot" else "get an unsafe value"
        return f"{self.sandboxes:,} of {self.of:,} sandboxes{memory}, {verb} {self.when}"


@click.command("lint", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--fleet", "table", type=click.Path(path_type=Path), metavar="FILE",
              help="Who it is in your fleet: CSV, JSON or Parquet, as --contexts-from of `flags cohort`.")  # fmt: skip
@click.option("--kinds", default="original", show_default=True, metavar="KINDS", help=KINDS_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def lint(file: Path, table: Path | None, kinds: str, as_json: bool) -> ExitCode:
    """Replaced by the module's docstring."""
    from flags.context import further_types, with_further
    from flags.decode import look
    from flags.lint import tried
    from flags.sdk_logs import silence_sdk_logs
    from flags.torn import text_of
    from sim.files.fleet_table import COHORT, read_table

    silence_sdk_logs()
    contexts = contexts_given(kinds)
    fleet = read_table(table, COHORT).members() if table else None
    known = with_further(contexts, further_types(each.attributes for each in fleet or ()))
    found = [(each, _struck(who, fleet, contexts)) for each, who in tried(text_of(file, look(file)), known)]
    if as_json:
        rows = [_row(each, struck) for each, struck in found]
        click.echo(json.dumps({"version": 1, "file": str(file), "findings": rows}, indent=2))
    else:
        click.echo("\n".join(report(str(file), found)))
    return ExitCode.VIOLATED if any(each.severity == "error" for each, _ in found) else ExitCode.HELD


def _struck(who: Who | None, fleet: Sequence[Member] | None, contexts: Contexts) -> Struck | None:
    from flags.cohort import struck

    members = None if who is None or fleet is None else struck(who, fleet, contexts)
    if who is None or fleet is None or members is None:
        return None
    sizes = [each.memory for each in members if each.memory is not None]
    return Struck(who.key, len(members), len(fleet), sum(sizes) if len(sizes) == len(members) else None, who.when)


def _row(each: Mistake, struck: Struck | None) -> dict[str, Any]:
    line, column = each.position
    found = {"line": line, "column": column, "severity": each.severity, "message": each.text, "fix": each.hint}
    by_it = (
        {}
        if struck is None
        else {"by_it": {"sandboxes": struck.sandboxes, "memory": struck.memory, "when": struck.when}}
    )
    return {**found, "production": each.production, **by_it}


def report(file: str, found: Sequence[tuple[Mistake, Struck | None]]) -> list[str]:
    """Three or four lines for each of the first mistakes, how many more there are, and the count."""
    from engine.reading import MOST_MISTAKES

    lines = []
    for each, struck in found[:MOST_MISTAKES]:
        line, column = each.position
        lines.append(f"{file}:{line}:{column}: {each.severity}: {each.text}")
        lines += [f"    in production: {each.production}"] + ([f"    your fleet: {struck.words()}"] if struck else [])
        lines.append(f"    fix: {each.hint}")
    errors = sum(each.severity == "error" for each, _ in found)
    counts = f"{_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}"
    more = [f"and {len(found) - MOST_MISTAKES:,} more"] if len(found) > MOST_MISTAKES else []
    return [*lines, *more, f"{file}: {counts if found else 'ok'}"]


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
