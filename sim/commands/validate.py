"""Check scenario files, rollout plans and fleet files without running them.

Prints `ok` for each valid file, with the number of scenarios if its matrix makes several. Prints every mistake of the
other files as file:line:column; a mistake in a file that it extends is shown in that file. A folder stands for its
scenarios, plans and fleets; variables have their defaults. Below a plan it prints the critic's concerns, which rule out
a go, and notes, each with a way to mend it; below a scenario it names races, where a step may disarm a fault before it
has fired. Exit codes: 0 all valid, 2 mistakes.

Example: snapdrill validate scenarios/ drill.yaml
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.document import Mistake
    from sim.files.plan import Plan


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(files: tuple[pathlib.Path, ...], as_json: bool) -> ExitCode:
    """Check each file; HELD only if all are valid."""
    from flags.document import DocumentError, Mistake

    paths = _documents(files)
    printed: dict[Mistake, None] = {}
    documents = []
    for path in paths:
        made, concerns, mistakes = 0, list[str](), tuple[Mistake, ...]()
        try:
            made, concerns = _check(path)
        except DocumentError as error:
            mistakes = error.mistakes
        documents.append(_document(path, made, concerns, mistakes))
        if not as_json:
            _print(path, made, concerns, [each for each in mistakes if each not in printed])
        printed |= dict.fromkeys(mistakes)
    if not paths:
        click.echo(f"snapdrill: nothing selected: no *.yaml in {', '.join(map(str, files))}", err=True)
    code = ExitCode.USAGE if printed else ExitCode.HELD if paths else ExitCode.NOTHING_SELECTED
    if as_json:
        click.echo(json.dumps({"version": 1, "exit_code": int(code), "files": documents}, indent=2))
    return code


def _print(path: pathlib.Path, made: int, concerns: Iterable[str], mistakes: Sequence[Mistake]) -> None:
    from flags.document import lines_of
    from sim.report import github
    from sim.report.outlet import say_commands

    if made:
        click.echo("\n".join([f"{path}: ok" + (f" ({made} scenarios)" if made > 1 else ""), *concerns]))
    elif mistakes:
        click.echo("\n".join(lines_of(mistakes)), err=True)
        say_commands(github.mistakes(mistakes))


def _document(path: pathlib.Path, made: int, concerns: list[str], mistakes: Iterable[Mistake]) -> dict[str, Any]:
    """One file; `documents` is how many scenarios or plans it makes, 0 where it has a mistake."""
    from sim.report.document import mistake_document

    wrong = [mistake_document(each) for each in mistakes]
    return {"file": str(path), "valid": bool(made), "documents": made, "concerns": concerns, "mistakes": wrong}


def _documents(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Files as they are, existing or not, folders by their `*.yaml`."""
    found: dict[pathlib.Path, None] = {}
    for path in paths:
        inside = sorted(each for each in path.glob("[!.]*.yaml") if each.is_file()) if os.path.isdir(path) else [path]
        found.update(dict.fromkeys(inside))
    return list(found)


def _check(path: pathlib.Path) -> tuple[int, list[str]]:
    """How many scenarios it is, 1 for a plan or a fleet, and the critic's lines; DocumentError with every mistake."""
    from sim.files.fleet_file import FLEET
    from sim.files.plan import PLAN
    from sim.files.races import races
    from sim.files.scenario import SCENARIO
    from sim.files.sources import kind_of, read_text
    from sim.files.yaml import parse

    text = read_text(path)
    match kind_of(parse(text)):
        case "plan":
            plans = PLAN.load_all_text(text, path, {})
            return len(plans), [line for plan in plans for line in _concerns(plan)]
        case "fleet":
            return len(FLEET.load_all_text(text, path, {})), []
    scenarios = SCENARIO.load_all_text(text, path, {})
    return len(scenarios), list(dict.fromkeys(str(race) for each in scenarios for race in races(each)))


def _concerns(plan: Plan) -> list[str]:
    """The critic's lines about a valid plan."""
    from sim.rollout.compiled import compiled
    from sim.rollout.critic import concern_lines, critique
    from sim.rollout.exposure import exposures_of

    made = compiled(plan)
    found = critique(made, exposures_of(made))
    return concern_lines(plan, found) if found else []
