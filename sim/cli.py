"""The command line: finds the commands, imports only the one called, turns its end into an exit code."""

from __future__ import annotations

import ast
import errno
import importlib
import inspect
import json
import os
import pathlib
import pkgutil
import select
import sys
import traceback
from collections.abc import Sequence

import click

from engine.errors import UserError
from sim.record.verdict import ExitCode

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
    try:
        return int(_invoke(sys.argv[1:] if argv is None else argv))
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.ClickException as mistake:
        mistake.show()
        return ExitCode.USAGE
    except UserError as mistake:
        return _refused(mistake, as_json="--json" in (sys.argv[1:] if argv is None else argv))
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except Exception as failure:  # noqa: BLE001 - the last stop: any other error is a defect of snapdrill, shown in full
        return _internal(failure)


def _invoke(argv: Sequence[str]) -> int:
    """The command's return value, None being HELD; raises if the reader of its output is gone."""
    # click takes colours out where there is no terminal, unless its context says otherwise
    colours = True if os.environ.get("FORCE_COLOR") and not os.environ.get("NO_COLOR") else None
    with snapdrill.make_context("snapdrill", list(argv), color=colours) as context:
        code = snapdrill.invoke(context)
        sys.stdout.flush()
    return ExitCode.HELD if code is None else ExitCode(code)


def _refused(error: UserError, *, as_json: bool) -> ExitCode:
    """A mistake in a file begins with its place: editors and CI look for it there."""
    from flags.document import DocumentError
    from sim.report import github
    from sim.report.document import mistakes_document

    in_files = error.mistakes if isinstance(error, DocumentError) else ()
    click.echo(str(error) if in_files else f"snapdrill: {error}", err=True)
    for line in github.mistakes(in_files):
        click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps(mistakes_document(error, ExitCode.USAGE), indent=2))
    return ExitCode.USAGE


def _internal(failure: Exception) -> ExitCode:
    """A reader that is gone (`snapdrill ... | head`) counts as an interrupt; any other error is internal."""
    if isinstance(failure, OSError) and failure.errno == errno.EPIPE and _stdout_reader_is_gone():
        # The flush at exit must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.INTERRUPTED
    traceback.print_exception(failure)
    click.echo("snapdrill: internal error: this is a defect of snapdrill, not of the file it ran", err=True)
    return ExitCode.INTERNAL


def _stdout_reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
