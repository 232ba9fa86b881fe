"""Check scenario files without running them.

Prints `ok` for each file that is right, with the number of its scenarios where a matrix makes it several, and every
mistake of every other one as file:line:column, in whichever of the files it extends it is written; ends with 0 or 2.
A folder stands for its scenarios; variables have their defaults.
"""

from __future__ import annotations

import pathlib

import click

from sim.verdict import ExitCode


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
def command(files: tuple[pathlib.Path, ...]) -> ExitCode:
    """Check each file; HELD only where all are right."""
    from sim.scenario import ScenarioError, discover, load_all

    paths = discover(files)
    wrong = False
    told: set[str] = set()
    for path in paths:
        try:
            made = len(load_all(path))
        except ScenarioError as mistakes:
            wrong = True
            new = dict.fromkeys(line for line in str(mistakes).splitlines() if line not in told)
            told |= new.keys()
            click.echo("\n".join(new), err=True, nl=bool(new))
        else:
            click.echo(f"{path}: ok" + (f" ({made} scenarios)" if made > 1 else ""))
    if not paths:
        return ExitCode.NOTHING_SELECTED
    return ExitCode.USAGE if wrong else ExitCode.HELD
