"""The command line: finds the commands, imports only the one called, turns its end into an exit code."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pathlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence

import click

from engine.errors import HostError, UserError
from sim.record.verdict import ExitCode
from sim.report.outlet import Outlets, say_commands

_COMMANDS = pathlib.Path(__file__).parent / "commands"


def command_names() -> list[str]:
    """One command a module of sim/commands/, sorted; `_` in a module's name is `-` in the command's."""
    found = pkgutil.iter_modules([str(_COMMANDS)])
    return sorted(module.name.replace("_", "-") for module in found if not module.ispkg)


def short_help(name: str) -> str:
    """The first paragraph of a command's docstring on one line, read without importing the command."""
    source = (_COMMANDS / f"{name.replace('-', '_')}.py").read_bytes()
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


class _CommandFolder(click.Group):
    """The commands of sim/commands/; listing them imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in command_names():
            return None
        module = importlib.import_module(f"sim.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        command.help = inspect.cleandoc(module.__doc__ or "")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, short_help(name)) for name in command_names()]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(
    cls=_CommandFolder,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 held, 1 violated, 2 usage or invalid file, 3 inconclusive, "
    "4 this host cannot run it, 5 nothing selected, 70 internal error, 129, 130 or 143 interrupted.",
)
@click.version_option(package_name="snapdrill", prog_name="snapdrill")
def snapdrill() -> None:
    """Rehearse a destructive feature flag on real memory before production meets it.

    Start with `snapdrill doctor`, `snapdrill run scenarios/demo.yaml` and `snapdrill tui`. `snapdrill COMMAND --help`
    shows an example of each command.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's); its exit code. Raises only a command's SystemExit."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start a thread a CPU, for nothing used here
    with Outlets():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    try:
        return int(_invoke(argv))
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.ClickException as mistake:
        mistake.show()
        return ExitCode.USAGE
    except HostError as lack:
        return _refused(lack, ExitCode.UNSUPPORTED, as_json="--json" in argv)
    except UserError as mistake:
        return _refused(mistake, ExitCode.USAGE, as_json="--json" in argv)
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except Exception as failure:  # noqa: BLE001 - the last stop: any other error is a defect of snapdrill, shown in full
        return _internal(failure)


def _invoke(argv: Sequence[str]) -> int:
    """The command's return value, None being HELD."""
    if asked := os.environ.get("SNAPDRILL_WRONG_DRILL"):
        from sim.run.wrong_drills import switch_on

        switch_on(asked)
    # click takes colours out where there is no terminal, unless its context says otherwise
    colours = True if os.environ.get("FORCE_COLOR") and not os.environ.get("NO_COLOR") else None
    with snapdrill.make_context("snapdrill", list(argv), color=colours) as context:
        code = snapdrill.invoke(context)
    return ExitCode.HELD if code is None else ExitCode(code)


def _refused(error: UserError, code: ExitCode, *, as_json: bool) -> ExitCode:
    """A mistake in a file begins with its place: editors and CI look for it there."""
    from flags.document import DocumentError
    from sim.report import github
    from sim.report.document import mistakes_document

    in_files = error.mistakes if isinstance(error, DocumentError) else ()
    click.echo(str(error) if in_files else f"snapdrill: {error}", err=True)
    say_commands(github.mistakes(in_files))
    if as_json:
        click.echo(json.dumps(mistakes_document(error, code), indent=2))
    return code


def _internal(failure: Exception) -> ExitCode:
    traceback.print_exception(failure)
    click.echo("snapdrill: internal error: this is a defect of snapdrill, not of the file it ran", err=True)
    return ExitCode.INTERNAL
