"""Every command's help ends with an example that its own parser takes."""

from __future__ import annotations

import inspect
import shlex

import click
import pytest

from sim import cli


def commands(group: click.Group, path: tuple[str, ...]) -> dict[tuple[str, ...], click.Command]:
    context = click.Context(group)
    found: dict[tuple[str, ...], click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found[*path, name] = command
        if isinstance(command, click.Group):
            found |= commands(command, (*path, name))
    return found


COMMANDS = commands(cli.snapdrill, ("snapdrill",))


def example(command: click.Command) -> list[str]:
    """Its words; what a shell would do with the output is left out."""
    lines = [line for line in inspect.cleandoc(command.help or "").splitlines() if line.startswith("Example: ")]
    assert len(lines) == 1, command.help
    assert len(lines[0]) <= 76, "click would wrap it"
    words = shlex.split(lines[0].removeprefix("Example: "))
    return words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_example_of_each_command_is_one_that_it_takes(path: tuple[str, ...]) -> None:
    words = example(COMMANDS[path])
    assert tuple(words[: len(path)]) == path
    command, rest = COMMANDS[path], words[len(path) :]
    if isinstance(command, click.Group):  # the example is of one of its commands
        command, rest = COMMANDS[*path, rest[0]], rest[1:]
    assert command.make_context(" ".join(path), rest).params


@pytest.mark.parametrize(
    "path", [path for path, each in COMMANDS.items() if isinstance(each, click.Group)], ids=" ".join
)
def test_no_sentence_of_a_list_of_commands_is_cut_short(path: tuple[str, ...]) -> None:
    lines = COMMANDS[path].get_help(click.Context(COMMANDS[path])).partition("Commands:")[2].splitlines()
    assert lines
    assert not [line for line in lines if line.endswith("...")]
