"""Say what each flag of a file serves to one sandbox, and why: value, reason, the rule in words, its bucket.

FILE is evaluated as LaunchDarkly would, mistakes and all; `snapdrill flags lint` names those.

Example: snapdrill flags explain flags.json --sandbox web-0
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UserError

if TYPE_CHECKING:
    from flags.explain import Explanation, Landing
    from sim.report.table import Section


@click.command("explain", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--sandbox", required=True, metavar="NAME", help="Whom to evaluate the flags for.")
@click.option("--context", "given", multiple=True, metavar="K=V",
              help="team=acme, template=python, kernel-version=6.1.0 ...; `team=` leaves the kind out.")  # fmt: skip
@click.option("--flag", "keys", multiple=True, metavar="KEY", help="Only this flag; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def explain(file: Path, sandbox: str, given: tuple[str, ...], keys: tuple[str, ...], as_json: bool) -> None:
    """Replaced by the module's docstring."""
    from flags.catalog import CATALOG, flag
    from flags.explain import explain as explain_flags
    from flags.file import read_as_served
    from flags.launchdarkly import silence_sdk_logs
    from sim.report.table import Paragraph, text

    silence_sdk_logs()
    flags, segments = read_as_served(file)
    chosen = [flag(key).key for key in keys] or [each.key for each in CATALOG if each.key in flags]
    found = explain_flags(flags, segments, context_of(sandbox, given), chosen)
    if as_json:
        rows = [_row(each) for each in found]
        click.echo(json.dumps({"version": 1, "file": str(file), "sandbox": sandbox, "flags": rows}, indent=2))
    else:
        absent = [] if keys else [each.key for each in CATALOG if each.key not in flags]
        missing = Paragraph(f"not in the file, so safe: {', '.join(absent)}" if absent else "")
        click.echo(text([*sections(found), missing]))


def context_of(sandbox: str, given: tuple[str, ...]) -> dict[str, Any]:
    """The LaunchDarkly context, in its JSON form; UserError for an unknown attribute."""
    from flags.catalog import did_you_mean
    from flags.context import KINDS, SandboxAttributes, to_context
    from sim.files.fleet_table import ATTRIBUTES

    values = {"template": "base", "team": "default"}
    for each in given:
        name, equals, value = each.partition("=")
        if name == "sandbox":
            raise UserError(f"--context {each}: say it with --sandbox")
        if not equals or name not in ATTRIBUTES:
            hint = did_you_mean(name, ATTRIBUTES.keys() - {"sandbox"}) if equals else "write NAME=VALUE"
            raise UserError(f"--context {each}: {hint}")
        values[ATTRIBUTES[name]] = value
    context = to_context(SandboxAttributes(**{"sandbox": sandbox, **values}))
    return {name: part for name, part in context.items() if name not in KINDS or part["key"]}


def sections(found: list[Explanation]) -> list[Section]:
    """One a flag: its value and reason, then the rules in words and where its bucket lies."""
    from sim.report.table import Bullets, Section

    made = []
    for each in found:
        what = each.evaluation
        variation = "no variation" if what.variation is None else f"variation {what.variation}"
        version = "" if what.version is None else f", version {what.version}"
        title = f"{what.flag} = {json.dumps(what.value)}   {what.reason}, {variation}{version}"
        made.append(
            Section(title, (Bullets([*each.because, *([landing_words(each.landing)] if each.landing else [])]),))
        )
    return made


def landing_words(landing: Landing) -> str:
    """`bucket 0.631270, by sandbox key "web-0": in entry 2, from 0.5 to 1`."""
    if landing.bucket is None:
        return f'no bucket: the context has no kind "{landing.kind}", so the entry listed first is served'
    whom = f'{landing.kind} {landing.by} "{landing.hashed}"'
    if landing.hashed is None:
        whom = f"{landing.kind} {landing.by}, which is missing or neither text nor a whole number"
    where = f"in entry {landing.entry + 1}, from {landing.low:g} to {landing.high:g}"
    return f"bucket {landing.bucket:.6f}, by {whom}: {where}"


def _row(each: Explanation) -> dict[str, Any]:
    landing = dataclasses.asdict(each.landing) if each.landing else None
    return {**dataclasses.asdict(each.evaluation), "because": list(each.because), "landing": landing}
