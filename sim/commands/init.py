"""Write a first scenario, its flag file and a CI workflow into a folder.

The three files are yours to change: drill.yaml, flags.json and .github/workflows/snapdrill.yml; GitHub looks for the
latter at the top of a repository. Nothing is ever overwritten: if one of them exists, none is written.

Example: snapdrill init drills
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
from typing import Any

import click

from engine.errors import UserError

_DRILL = """\
# The disk fills up at a rollout to half of the sandboxes: those that punched are discarded, all others run on.
# Run it with `snapdrill run drill.yaml`; change the rollout in flags.json and run it again.
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

_WORKFLOW = """\
name: snapdrill
on:
  push:
  pull_request:
permissions:
  contents: read
jobs:
  drill:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install snapdrill
      - run: snapdrill run drill.yaml
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: snapdrill-runs
          path: runs/
"""


@click.command("init")
@click.argument("folder", default=".", type=click.Path(path_type=pathlib.Path, file_okay=False))
def command(folder: pathlib.Path) -> None:
    """Write the files, or UserError naming those that exist already."""
    files = {"drill.yaml": _DRILL, "flags.json": _flag_file(), ".github/workflows/snapdrill.yml": _WORKFLOW}
    there = [str(folder / name) for name in files if os.path.lexists(folder / name)]
    if there:
        raise UserError(f"{', '.join(there)}: already there, so nothing was written; choose another folder")
    for name, text in files.items():
        _write(folder / name, text)
        click.echo(f"wrote {folder / name}")
    click.echo(f"run it with: {shlex.join(['snapdrill', 'run', str(folder / 'drill.yaml')])}")


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
