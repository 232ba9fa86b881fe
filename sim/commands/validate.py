"""Check scenario files, rollout plans and fleet files without running them.

Prints `ok` for each valid file, with the number of scenarios if its matrix makes several. Prints every mistake of the
other files as file:line:column; a mistake in a file that it extends is shown in that file. A folder stands for its
scenarios, plans and fleets; variables have their defaults. Below a plan it prints the critic's concerns, which rule out
a go, and notes, each with a way to mend it. Exit codes: 0 all valid, 2 mistakes.

Example: snapdrill validate scenarios/ drill.yaml
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from sim.files.plan import Plan


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
def command(files: tuple[pathlib.Path, ...]) -> ExitCode:
    """Check each file; HELD only if all are valid."""
    from flags.document import DocumentError
    from sim.report import github
    from sim.report.outlet import say_commands

    paths = _documents(files)
    wrong = False
    printed: set[str] = set()
    for path in paths:
        try:
            made, concerns = _check(path)
        except DocumentError as error:
            wrong = True
            new = dict.fromkeys(line for line in error.lines() if line not in printed)
            printed |= new.keys()
            click.echo("\n".join(new), err=True, nl=bool(new))
            say_commands(github.mistakes("\n".join(new)))
        else:
            click.echo(f"{path}: ok" + (f" ({made} scenarios)" if made > 1 else ""))
            for line in concerns:
                click.echo(line)
    if not paths:
        click.echo(f"snapdrill: nothing selected: no *.yaml in {', '.join(map(str, files))}", err=True)
        return ExitCode.NOTHING_SELECTED
    return ExitCode.USAGE if wrong else ExitCode.HELD


def _documents(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Files as they are, existing or not, folders by their `*.yaml`."""
    found: dict[pathlib.Path, None] = {}
    for path in paths:
        inside = sorted(each for each in path.glob("[!.]*.yaml") if each.is_file()) if os.path.isdir(path) else [path]
        found.update(dict.fromkeys(inside))
    return list(found)


def _check(path: pathlib.Path) -> tuple[int, list[str]]:
    """How many scenarios it is, 1 for a plan or a fleet, and the critic's lines; DocumentError with every mistake."""
    from sim.files.fleet_file import FLEET
    from sim.files.plan import PLAN
    from sim.files.scenario import SCENARIO
    from sim.files.sources import kind_of, read_text
    from sim.files.yaml import parse

    text = read_text(path)
    match kind_of(parse(text)):
        case "plan":
            plans = PLAN.load_all_text(text, path, {})
            return len(plans), [line for plan in plans for line in _concerns(plan)]
        case "fleet":
            return len(FLEET.load_all_text(text, path, {})), []
    return len(SCENARIO.load_all_text(text, path, {})), []


def _concerns(plan: Plan) -> list[str]:
    """The critic's lines about a valid plan."""
    from sim.rollout.compiled import compiled
    from sim.rollout.critic import concern_lines, critique
    from sim.rollout.exposure import exposures_of

    made = compiled(plan)
    found = critique(made, exposures_of(made))
    return concern_lines(plan, found) if found else []
