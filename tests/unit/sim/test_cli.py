"""The command line imports only what is asked for, and every end of a command has its exit code."""

from __future__ import annotations

import importlib
import inspect
import os
import pathlib
import subprocess
import sys

import click
import pytest

import sim.commands
from sim import cli
from sim.record.verdict import ExitCode

MODULE = '''"""Do the thing, shown on one line
and wrapped here.

More about the thing.
"""
import click
import sys
from engine.errors import UserError

@click.command()
@click.argument("end")
def command(end: str) -> object:
    return eval(end)

def do(error: BaseException) -> None:
    raise error
'''

MAIN = "import sys; from sim.cli import main; sys.exit(main())"
HEAVY = {"textual", "numpy", "ldclient", "pydantic", "plotly", "distributed"}


@pytest.fixture(autouse=True)
def do_thing(request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with one command, `do-thing END`, that returns or raises what END evaluates to."""
    if "real_commands" in request.fixturenames:
        return
    (tmp_path / "do_thing.py").write_text(MODULE)
    monkeypatch.setattr(cli, "_COMMANDS", tmp_path)
    monkeypatch.setattr(sim.commands, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "sim.commands.do_thing", raising=False)
    importlib.invalidate_caches()


@pytest.fixture
def real_commands() -> list[str]:
    return cli.command_names()


def test_help_lists_each_command_with_its_first_paragraph_and_imports_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--help"]) == ExitCode.HELD
    assert "do-thing  Do the thing, shown on one line and wrapped here." in capsys.readouterr().out
    assert "sim.commands.do_thing" not in sys.modules


def test_a_commands_help_is_its_modules_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["do-thing", "--help"]) == ExitCode.HELD
    assert "More about the thing." in capsys.readouterr().out


@pytest.mark.parametrize(("end", "code"), [("None", 0), ("0", 0), ("3", 3), ("do(SystemExit(4))", 4)])
def test_a_command_ends_with_the_code_it_returns(end: str, code: int) -> None:
    try:
        assert cli.main(["do-thing", end]) == code
    except SystemExit as ended:
        assert ended.code == code  # noqa: PT017 - both ways to end are meant


@pytest.mark.parametrize("end", ["do(KeyboardInterrupt())", "do(click.Abort())"])
def test_an_interrupted_command_ends_with_130(end: str) -> None:
    assert cli.main(["do-thing", end]) == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("do(UserError('demo.yaml:3:1: no such key'))", "snapdrill: demo.yaml:3:1: no such key\n"),
        ("do(click.FileError('x.yaml', 'gone'))", "Error: Could not open file 'x.yaml': gone\n"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(end: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["do-thing", end]) == ExitCode.USAGE
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("arguments", [["bogus"], ["do-thing"], ["--bogus"], []])
def test_a_command_line_that_makes_no_sense_ends_with_2(arguments: list[str]) -> None:
    assert cli.main(arguments) == ExitCode.USAGE


@pytest.mark.parametrize("end", ["1 / 0", "99", "'a'", "do(BrokenPipeError(32, 'a guest is gone'))"])
def test_anything_unexpected_ends_with_a_traceback_and_70(end: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["do-thing", end]) == ExitCode.INTERNAL
    assert "Traceback" in capfd.readouterr().err


def test_a_reader_that_goes_away_changes_no_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", MAIN, "--help"]
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    os.close(writer)
    assert (run.returncode, run.stderr) == (ExitCode.HELD, "")


def test_help_loads_none_of_the_heavy_libraries() -> None:
    program = "import sys; from sim.cli import main; main(['--help']); print('loaded:', *sys.modules)"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert HEAVY & set(run.stdout.partition("loaded:")[2].split()) == set()


def test_every_module_of_the_folder_is_a_command_whose_help_agrees(real_commands: list[str]) -> None:
    context = click.Context(cli.snapdrill)
    for name in real_commands:
        command = cli.snapdrill.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert cli.short_help(name), f"{name}: its module needs a docstring"
        assert " ".join(inspect.cleandoc(command.help or "").split()).startswith(cli.short_help(name))
