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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UserError
from engine.reading import MOST_MISTAKES, read_regular
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.importing import Imported


@click.command("import", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--env", metavar="ENV", help="The environment's key; an SDK payload has only one.")
@click.option("--segments", type=click.Path(path_type=Path), metavar="FILE",
              help="What the REST API answers to GET /api/v2/segments/PROJECT/ENV.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT", help="Write there, not to the screen.")
def import_file(file: Path, env: str | None, segments: Path | None, output: Path | None) -> ExitCode:
    """Replaced by the module's docstring."""
    found, mistakes = _converted(file, env)
    if segments is not None:
        more, wrong = _converted(segments, env)
        mistakes += wrong
        found.segments |= more.segments
    mistakes += _referenced(file, found)
    for line in _warnings(file, found)[:MOST_MISTAKES]:
        click.echo(line, err=True)
    if mistakes:
        click.echo("\n".join(mistakes[:MOST_MISTAKES]), err=True)
        if (left := len(mistakes) - MOST_MISTAKES) > 0:
            click.echo(f"{file}: and {left:,} more", err=True)
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
    from flags.document import parse
    from flags.edit import ids_file
    from flags.importing import variation_ids

    found = variation_ids(parse(read_regular(file).decode("utf-8-sig")).value)
    if found:
        _replace(ids_file(output), json.dumps(found, indent=2) + "\n")


def _converted(file: Path, env: str | None) -> tuple[Imported, list[str]]:
    from flags.document import parse
    from flags.importing import convert, environment_hint

    try:
        document = parse(read_regular(file).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}:{error.colno}: error: not JSON: {error.msg}") from None
    hint = environment_hint(env, document.value)
    if hint is not None:
        raise UserError(f'{file}: no environment "{env}"; {hint}' if env else f"{file}: {hint}")
    found = convert(document.value, env)
    twice = [
        f'{file}:{line}:{column}: error: duplicate key "{path[-1]}"' for path, (line, column) in document.duplicates
    ]
    return found, [*twice, *_lines(file, found.problems, document.positions)]


def _referenced(file: Path, found: Imported) -> list[str]:
    from flags.document import parse
    from flags.importing import references

    problems = list(references(found))
    return _lines(file, problems, parse(read_regular(file).decode("utf-8-sig")).positions) if problems else []


def _lines(file: Path, problems: list[Any], positions: Any) -> list[str]:
    from flags.lint import place_of

    found = sorted((*place_of(each.path, positions), f"{each.message}; {each.fix}") for each in problems)
    return [f"{file}:{line}:{column}: error: {what}" for line, column, what in found]


def _warnings(file: Path, found: Imported) -> list[str]:
    from flags.document import parse
    from flags.lint import place_of

    if not found.warnings:
        return []
    positions = parse(read_regular(file).decode("utf-8-sig")).positions
    places = sorted((*place_of(each.path, positions), each) for each in found.warnings)
    return [f"{file}:{line}:{column}: warning: {each.message}: {each.production}" for line, column, each in places]


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
