"""Check, explain, compare, import and serve flag files, as LaunchDarkly would evaluate them.

Works on any machine: nothing here runs a sandbox.
"""

from __future__ import annotations

import importlib

import click

_MODULES = {
    "cohort": "cohort",
    "diff": "diff",
    "explain": "explain",
    "import": "import_file",
    "lint": "lint",
    "propagation": "propagation",
    "serve": "serve",
}
"""The commands, each with its module in sim/flag_commands/, where it has the module's name."""


class _FlagCommands(click.Group):
    """Imports only the command that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        name = _MODULES[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"sim.flag_commands.{name}"), name)
        return command


@click.group("flags", cls=_FlagCommands)
def command() -> None:
    """Replaced by the module's docstring."""
