"""Say what each flag of a file serves to one sandbox, and why: value, reason, the rule in words, its bucket.

FILE is evaluated as production's SDK (Go) would, mistakes and all, with the kinds of context that there are when the
flag is read; `snapdrill flags lint` names the mistakes. Any flag of the file may be asked for with --flag.

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
from sim.commands.flag.kinds import KINDS_HELP, contexts_given

if TYPE_CHECKING:
    from flags.context import Contexts, Moment
    from flags.explain import Explanation, Landing
    from sim.report.table import Section

MOMENTS = ("create", "resume", "pause", "checkpoint", "in-place")


@click.command("explain", help=inspect.cleandoc(__doc__))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--sandbox", required=True, metavar="NAME", help="The sandbox to evaluate the flags for.")
@click.option("--context", "given", multiple=True, metavar="K=V",
              help="team=acme, sandbox.zone=a, sandbox.cpus:=4 (JSON) ...; `team=` leaves the kind out.")  # fmt: skip
@click.option("--kinds", default="original", show_default=True, metavar="KINDS", help=KINDS_HELP)
@click.option("--moment", type=click.Choice(MOMENTS), help="Evaluate as at that moment.  [default: when it is read]")
@click.option("--flag", "keys", multiple=True, metavar="KEY", help="Only this flag; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def explain(
    file: Path,
    sandbox: str,
    given: tuple[str, ...],
    kinds: str,
    moment: Moment | None,
    keys: tuple[str, ...],
    as_json: bool,
) -> None:
    """Replaced by the module's docstring."""
    from flags.catalog import CATALOG
    from flags.decode import look
    from flags.document import lines_of
    from flags.explain import explain as explain_flags
    from flags.explain import moment_of
    from flags.file import taken_from
    from flags.sdk_logs import silence_sdk_logs
    from sim.report.table import Paragraph, text

    silence_sdk_logs()
    taken, contexts = taken_from(file, look(file)), contexts_given(kinds)
    for line in lines_of(taken.mistakes):
        click.echo(line, err=True)
    chosen = [_known(key, taken.flags) for key in keys] or [each.key for each in CATALOG if each.key in taken.flags]
    found = [
        each
        for key in chosen
        for each in explain_flags(
            (taken.flags, taken.segments), context_of(sandbox, given, contexts, moment_of(key, moment)), [key]
        )
    ]
    if as_json:
        rows = [_row(each) for each in found]
        click.echo(json.dumps({"version": 1, "file": str(file), "sandbox": sandbox, "flags": rows}, indent=2))
    else:
        absent = [] if keys else [each.key for each in CATALOG if each.key not in taken.flags]
        missing = Paragraph(f"not in the file, so safe: {', '.join(absent)}" if absent else "")
        click.echo(text([*sections(found), missing]))


def _known(key: str, flags: Any) -> str:
    from flags.catalog import FLAGS, did_you_mean

    if key not in FLAGS and key not in flags:
        raise UserError(f'unknown flag "{key}"; {did_you_mean(key, {*FLAGS, *flags})}')
    return key


def context_of(sandbox: str, given: tuple[str, ...], contexts: Contexts, moment: Moment) -> dict[str, Any]:
    """The context in LaunchDarkly's JSON form: as at that moment, with what was given.

    A name such as `team` is one of the fleet's and reaches a flag where the kind is there; `team.key` puts it there.
    UserError for an unknown name.
    """
    from flags.context import KINDS, SandboxAttributes

    names: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    left_out: set[str] = set()
    for each in given:
        name, equals, value = each.partition("=")
        if "." in name:
            kind, attribute = name.removesuffix(":").split(".", 1)
            parts.setdefault(kind, {})[attribute] = _json(each, value) if name.endswith(":") else value
        elif equals and not value and name in KINDS:
            left_out.add(name)
        else:
            field, text = _named(each)
            names[field] = text
    attributes = SandboxAttributes(**{"sandbox": sandbox, "template": "base", "team": "default"} | names)
    context = contexts.context(attributes, moment)
    for kind, part in parts.items():
        context[kind] = {"key": sandbox, **context.get(kind, {}), **part}
    return {name: part for name, part in context.items() if name not in left_out}


def _named(each: str) -> tuple[str, str]:
    from flags.catalog import did_you_mean
    from flags.context import NAMES

    name, equals, value = each.partition("=")
    if name == "sandbox":
        raise UserError(f"--context {each}: say it with --sandbox")
    if not equals or name not in NAMES:
        hint = did_you_mean(name, NAMES.keys() - {"sandbox"}) if equals else "write NAME=VALUE or KIND.NAME=VALUE"
        raise UserError(f"--context {each}: {hint}")
    return NAMES[name], value


def _json(each: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UserError(f"--context {each}: after := comes JSON, such as 4 or true") from None


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
        where = f"production's SDK (Go) takes bucket 0, in entry {landing.entry + 1}, for every context"
        return f'no bucket: the context has no kind "{landing.kind}"; {where}'
    whom = f'{landing.kind} {landing.by} "{landing.hashed}"'
    if landing.hashed is None:
        whom = f"{landing.kind} {landing.by}, which is missing or neither text nor a whole number"
    where = f"in entry {landing.entry + 1}, from {landing.low:g} to {landing.high:g}"
    return f"bucket {landing.bucket:.6f}, by {whom}: {where}"


def _row(each: Explanation) -> dict[str, Any]:
    landing = dataclasses.asdict(each.landing) if each.landing else None
    return {**dataclasses.asdict(each.evaluation), "because": list(each.because), "landing": landing}
