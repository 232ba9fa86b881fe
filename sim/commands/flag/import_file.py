"""Turn LaunchDarkly's own export into a flag file, which scenarios and the other flag commands take.

FILE is what the REST API answers to GET /api/v2/flags/PROJECT?env=ENV&summary=0 (or for one flag), or an SDK payload
{"flags": ..., "segments": ...}. Salts, segments, prerequisites and versions are kept, so that every context gets what
it gets in production. What cannot be carried over is an error, and then nothing is written. Ends with 0, or with 1
where something cannot be carried over.

Example: snapdrill flags import export.json --env production
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import UserError
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.document import Mistake
    from flags.importing import Imported
    from flags.problem import Problem


@click.command("import", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--env", metavar="ENV", help="The environment's key; an SDK payload has only one.")
@click.option("--segments", type=click.Path(path_type=Path), metavar="FILE",
              help="What the REST API answers to GET /api/v2/segments/PROJECT/ENV.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Write there, not to the screen.")
def import_file(file: Path, env: str | None, segments: Path | None, output: Path | None) -> ExitCode:
    """Replaced by the module's docstring."""
    from flags.document import lines_of
    from flags.importing import references
    from sim.report import github
    from sim.report.outlet import say_commands

    found, mistakes = _converted(file, env)
    if segments is not None:
        more, wrong = _converted(segments, env)
        mistakes += wrong
        found.segments |= more.segments
    mistakes += _mistakes(file, list(references(found)))
    warnings = _mistakes(file, found.warnings)
    for line in lines_of([replace(each, text=f"{each.text}: {each.production}", hint="") for each in warnings]):
        click.echo(line, err=True)
    if mistakes:
        click.echo("\n".join(lines_of(mistakes)), err=True)
        say_commands(github.mistakes(mistakes))
        click.echo(f"{file}: nothing was written", err=True)
        return ExitCode.VIOLATED
    text = json.dumps({"flags": found.flags, "segments": found.segments}, indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        _replace(output, text)
        _keep_ids(file, output)
    _tell(file, found, text, output)
    return ExitCode.HELD


def _keep_ids(file: Path, output: Path) -> None:
    """Beside the flag file: what it serves has no ids, and patches need them."""
    from flags.decode import look
    from flags.edit import ids_file
    from flags.importing import variation_ids
    from flags.torn import loads

    found = variation_ids(loads(file, look(file)))
    if found:
        _replace(ids_file(output), json.dumps(found, indent=2) + "\n")


def _converted(file: Path, env: str | None) -> tuple[Imported, list[Mistake]]:
    from flags.decode import look
    from flags.document import Mistake
    from flags.importing import convert, environment_hint
    from flags.torn import parsed

    document = parsed(file, look(file))
    hint = environment_hint(env, document.value)
    if hint is not None:
        raise UserError(f'{file}: no environment "{env}"; {hint}' if env else f"{file}: {hint}")
    found = convert(document.value, env)
    twice = [
        Mistake(place, "", f'duplicate key "{path[-1]}"', "keep one of the two", str(file))
        for path, place in document.duplicates
    ]
    return found, [*twice, *_mistakes(file, found.problems)]


def _mistakes(file: Path, problems: Sequence[Problem]) -> list[Mistake]:
    """With their places, in the order of these."""
    from flags.decode import look
    from flags.document import Mistake
    from flags.lint import place_of
    from flags.torn import parsed

    if not problems:
        return []
    positions = parsed(file, look(file)).positions
    return sorted(
        Mistake(
            place_of(each.path, positions),
            "",
            each.message,
            each.fix,
            str(file),
            each.severity,
            each.production,
        )
        for each in problems
    )


def _replace(output: Path, text: str) -> None:
    """Whole or not at all: a flag file may be followed while it is written."""
    new = output.with_name(f".{output.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}; choose another place") from None


def _tell(file: Path, found: Imported, text: str, output: Path | None) -> None:
    from flags.catalog import FLAGS
    from flags.lint import check
    from sim.report.words import plural

    known = len(found.flags.keys() & FLAGS.keys())
    click.echo(
        f"{file}: {found.form}: {plural(len(found.flags), 'flag')}, {known} of the pause path, "
        f"and {plural(len(found.segments), 'segment')}",
        err=True,
    )
    errors = sum(each.severity == "error" for each in check(text))
    if errors:
        where, what = output or "the result", plural(errors, "error")
        click.echo(f"{where}: lint finds {what} in it; see snapdrill flags lint {output or 'OUT'}", err=True)
