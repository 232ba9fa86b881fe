"""Check scenario files without running them.

Prints `ok` for each file that is right and every mistake of every other one as file:line:column, and ends with 0 or 2.
A folder stands for its scenarios.
"""

from __future__ import annotations

import pathlib

import click

from sim.verdict import ExitCode


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
def command(files: tuple[pathlib.Path, ...]) -> ExitCode:
    """Check each file; HELD only where all are right."""
    from sim.scenario import ScenarioError, discover, load

    paths = discover(files)
    wrong = 0
    for path in paths:
        try:
            load(path)
        except ScenarioError as mistakes:
            wrong += 1
            click.echo(str(mistakes), err=True)
        else:
            click.echo(f"{path}: ok")
    if not paths:
        return ExitCode.NOTHING_SELECTED
    return ExitCode.USAGE if wrong else ExitCode.HELD
