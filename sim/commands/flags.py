"""Check, explain, compare, import and serve flag files, as LaunchDarkly would evaluate them.

Works on any machine: nothing here runs a sandbox.

Example: snapdrill flags lint flags.json
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
"""The commands, each with its module in sim/commands/flag/, where it has the module's name."""


class _FlagCommands(click.Group):
    """Imports only the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        name = _MODULES[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"sim.commands.flag.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The whole first sentence of each; click would cut it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._sentence(ctx, name)) for name in self.list_commands(ctx)])

    def _sentence(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return " ".join((command.help if command and command.help else "").partition("\n\n")[0].split())


@click.group("flags", cls=_FlagCommands)
def command() -> None:
    """Replaced by the module's docstring."""
