"""One file per command: the module exposes `command`, and its docstring is the command's help."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import click


class Seconds(click.FloatRange):
    """A finite number of seconds above 0; click's own range lets `nan` and `inf` through."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds; write one such as 120", param, ctx)
        return seconds


Command = TypeVar("Command", bound=Callable[..., Any])


def guest_option(command: Command) -> Command:
    """`--guest`, for every command that runs a fleet. sim.run.needs says whether this host can run it."""
    kinds = click.Choice(["process", "vm", "auto"])  # as sim.files.fleet.GuestKind, which takes a while to load
    says = "What every sandbox is, whatever the file says; vm: a virtual machine; auto: one where /dev/kvm works."
    return click.option("--guest", type=kinds, help=says)(command)


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
