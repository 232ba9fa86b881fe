"""One file per command: the module exposes `command`, and its docstring is the command's help."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def junit_options(command: Command) -> Command:
    """`--junit FILE` and `--junit-family`: the results of many runs for CI."""
    family = click.option(
        "--junit-family",
        type=click.Choice(["xunit1", "xunit2"]),
        default="xunit1",
        show_default=True,
        help="xunit2 leaves out file and line, for the strict schema of Jenkins.",
    )
    file = click.option(
        "--junit",
        type=click.Path(path_type=pathlib.Path, dir_okay=False),
        metavar="FILE",
        help="Write all results as a JUnit file, again after each run.",
    )
    return file(family(command))
