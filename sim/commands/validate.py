"""Check scenario files, rollout plans and fleet files without running them.

Prints `ok` for each file that is right, with the number of its scenarios where a matrix makes it several, and every
mistake of every other one as file:line:column, in whichever of the files it extends it is written; ends with 0 or 2.
A folder stands for its scenarios, plans and fleets; variables have their defaults. Below a plan stands what its critic
says: concerns that no go can bear, notes, and the mend of each.

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
    """Check each file; HELD only where all are right."""
    from flags.document import DocumentError
    from sim.report import github

    paths = _documents(files)
    wrong = False
    told: set[str] = set()
    for path in paths:
        try:
            made, concerns = _check(path)
        except DocumentError as error:
            wrong = True
            new = dict.fromkeys(line for line in map(str, error.mistakes) if line not in told)
            told |= new.keys()
            click.echo("\n".join([*new, *github.mistakes("\n".join(new))]), err=True, nl=bool(new))
        else:
            click.echo(f"{path}: ok" + (f" ({made} scenarios)" if made > 1 else ""))
            for line in concerns:
                click.echo(line)
    if not paths:
        click.echo(f"snapdrill: nothing selected: no *.yaml in {', '.join(map(str, files))}", err=True)
        return ExitCode.NOTHING_SELECTED
    return ExitCode.USAGE if wrong else ExitCode.HELD


def _documents(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Files as they are, there or not, folders by their `*.yaml`."""
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
    """What the critic says of a plan that is right as a document."""
    from sim.rollout.compiled import compiled
    from sim.rollout.critic import concern_lines, critique
    from sim.rollout.exposure import exposures_of

    made = compiled(plan)
    found = critique(made, exposures_of(made))
    return concern_lines(plan, found) if found else []
