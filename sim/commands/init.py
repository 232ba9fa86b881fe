"""Write a first scenario, its flag file and what editors and CI need into a folder.

The files are yours to change: drill.yaml, flags.json and scenario.schema.json (for editors); with --ci a workflow that
runs the folder's scenarios, where its service looks for it: at the top of the git repository that FOLDER is in. A
repository without .gitignore gets one. Nothing is ever overwritten: if one of the files exists, none is written.

Example: snapdrill init drills --ci github
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UserError

if TYPE_CHECKING:
    from sim.files.ci_workflows import Service

_DRILL = """\
# The disk fills up at a rollout to half of the sandboxes: those that punched are discarded, all others run on.
# Run it with `snapdrill run drill.yaml`; change the rollout in flags.json and run it again.
# yaml-language-server: $schema=scenario.schema.json
version: 1
name: drill
seed: 1
fleet:
  - {name: web, count: 6, memory: 16MiB, template: python, team: acme,
     workload: {dirty: 50%, pattern: scattered}}
flags: {file: flags.json}
steps:
  - tick: 5
  - pause: {}
  - expect: {state: paused}
  - resume: {}
  - tick: 5
  - inject: {fault: copy.write, errno: ENOSPC, at: {chunk: 2}}
  - pause: {}
  - expect: {state: [discarded, running], counts: {discarded: ">=1", running: ">=1"}}
  - clear: {}
  - tick: 5
  - pause: {}
  - expect: {state: [discarded, paused]}
  - resume: {}
expect:
  - {invariant: never_resumed}
  - {invariant: failed_copy_discards}
  - {invariant: rollback_intact}
  - {invariant: bytes_exact}
  - {metric: peak_over, where: {punch: true}, max: 8MiB}
"""


@click.command("init")
@click.argument("folder", default=".", type=click.Path(path_type=pathlib.Path, file_okay=False))
@click.option("--ci", "services", multiple=True, type=click.Choice(["github", "gitlab", "jenkins"]),
              help="Also write a workflow for this service; may be repeated.")  # fmt: skip
@click.option("--from", "source", metavar="SOURCE",
              help="What the workflow installs: a wheel in the repository, or an address such as "
              "git+https://HOST/OWNER/snapdrill@COMMIT. Without it the workflow says what to fill in.")  # fmt: skip
def command(folder: pathlib.Path, services: tuple[Service, ...], source: str | None) -> None:
    """Write the files, or UserError naming those that exist already."""
    from sim.files.schemas import json_schema

    if source is not None and not services:
        raise click.UsageError("--from goes with --ci: it is what the workflow installs")
    files = {
        folder / "drill.yaml": _DRILL,
        folder / "flags.json": _flag_file(),
        folder / "scenario.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }
    files |= _workflows(folder, dict.fromkeys(services), source)
    ignored = _as_given(_top_of_repository(folder) / ".gitignore", folder)
    has_its_own = os.path.lexists(ignored)  # it is left alone: most repositories have one
    files |= {} if has_its_own else {ignored: "# What runs of snapdrill leave.\nruns/\nsnapdrill.xml\n"}
    there = [str(path) for path in files if os.path.lexists(path)]
    if there:
        raise UserError(f"{', '.join(there)}: already there, so nothing was written; choose another folder")
    for path, text in files.items():
        _write(path, text)
        click.echo(f"wrote {path}")
    click.echo(f"run it with: {shlex.join(['snapdrill', 'run', str(folder / 'drill.yaml')])}")
    if has_its_own:
        click.echo(f"add to {ignored}: runs/ and snapdrill.xml")
    if services and source is None:
        click.echo("before the workflow can run: fill in SNAPDRILL in it, or use --from")


def _workflows(folder: pathlib.Path, services: Mapping[Service, None], source: str | None) -> dict[pathlib.Path, str]:
    """At the top of the repository; a wheel is named from there, as the workflow finds it after the checkout."""
    from sim.files.ci_workflows import PATHS, workflow

    top = _top_of_repository(folder)
    inside = os.path.relpath(folder.absolute(), top)
    if source is not None and source.endswith(".whl") and "://" not in source:
        wheel = pathlib.Path(source).absolute()
        if not wheel.is_relative_to(top):
            raise UserError(f"--from {source}: the wheel is not in the repository {top}; copy it there")
        source = f"./{wheel.relative_to(top)}"
    return {_as_given(top / PATHS[each], folder): workflow(each, inside, source) for each in services}


def _top_of_repository(folder: pathlib.Path) -> pathlib.Path:
    """The nearest folder above that holds `.git`; the folder itself where there is none."""
    here = folder.absolute()
    return next((each for each in (here, *here.parents) if os.path.lexists(each / ".git")), here)


def _as_given(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """In messages a path is relative where the folder was."""
    return path if folder.is_absolute() else pathlib.Path(os.path.relpath(path))


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose another folder") from None


def _flag_file() -> str:
    from flags.inline import Rollout, flag_from

    flags: dict[str, Any] = {
        "memfd-punch-on-snapshot": flag_from("memfd-punch-on-snapshot", Rollout(50, "sandbox")),
        "memfd-background-copy": flag_from("memfd-background-copy", False),
    }
    return json.dumps({"flags": flags}, indent=2) + "\n"
