"""Say who joins and who leaves when the flags go from file A to file B.

Counts sandboxes, teams and, with --contexts-from, GiB of your own fleet: 1 % of the teams is not 1 % of the memory.
The made-up fleet of --contexts has ten sandboxes a team, eight templates and four clusters. Files are evaluated as
production's SDK (Go) would, mistakes and all, with the kinds of context that there are when the flag is read.

Example: snapdrill flags cohort before.json after.json --superset
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.commands.flag.kinds import KINDS_HELP, contexts_given
from sim.record.verdict import ExitCode

if TYPE_CHECKING:
    from flags.cohort import Member, Sections, Step
    from flags.context import Contexts
    from sim.report.table import Paragraph, Section

SHOWN = 8
"""How many of those who join or leave are named."""


@click.command("cohort", help=inspect.cleandoc(__doc__))
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option("--contexts", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, metavar="N",
              help="The size of a made-up fleet.")  # fmt: skip
@click.option("--contexts-from", "table", type=click.Path(path_type=Path), metavar="FILE",
              help="Your fleet: a table with sandbox, team, template and more (docs/tables.md).")  # fmt: skip
@click.option("--flag", "key", default="memfd-punch-on-snapshot", show_default=True, metavar="KEY")
@click.option("--kinds", default="original", show_default=True, metavar="KINDS", help=KINDS_HELP)
@click.option("--superset", is_flag=True, help="End with 1 where a sandbox leaves.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with every name.")
def cohort(
    before: Path,
    after: Path,
    contexts: int,
    table: Path | None,
    key: str,
    kinds: str,
    superset: bool,
    as_json: bool,
) -> ExitCode:
    """Replaced by the module's docstring."""
    from flags.cohort import differing, fleet_of, step, with_memfd
    from flags.file import read_as_served
    from flags.sdk_logs import silence_sdk_logs
    from sim.files.fleet_table import COHORT, SandboxTable, read_table
    from sim.report.table import Bullets, Section, text

    silence_sdk_logs()
    read = read_table(table, COHORT) if table else SandboxTable([])
    fleet = read.members() or fleet_of(contexts)
    files, made = (read_as_served(before), read_as_served(after)), contexts_given(kinds)
    change = step(*files, key, fleet, made)
    differs = [len(differing(each, key, fleet, made)) for each in files]
    memfds = [with_memfd(each, fleet, made) for each in files]
    warnings = [*(each.said for each in read.notes), *(lacks(key, files, fleet, made) if table else ())]
    if as_json:
        document = {"version": 1, "flag": key, **as_document(change, fleet, *memfds), "warnings": warnings}
        click.echo(
            json.dumps({**document, "python_differs": dict(zip(("before", "after"), differs, strict=True))}, indent=2)
        )
    else:
        shown = report(key, str(before), str(after), change, fleet, memfds[1])
        warned = Section("Warnings", (Bullets(warnings),)) if warnings else Section("", ())
        click.echo(text([*shown, Section("", sdk_note(differs)), warned]))
    return ExitCode.VIOLATED if superset and not change.is_superset else ExitCode.HELD


def lacks(key: str, files: Sequence[Sections], fleet: Sequence[Member], contexts: Contexts) -> list[str]:
    """What the flag of either file reads and the table does not give, a sentence each."""
    from flags.catalog import flag
    from flags.reads import lacking

    rows, shape = [each.attributes for each in fleet], contexts.shapes[flag(key).moments[0]]
    return list(dict.fromkeys(str(each) for file in files for each in lacking(key, *file, rows, shape)))


def report(
    key: str, before: str, after: str, change: Step, fleet: Sequence[Member], memfds: AbstractSet[str]
) -> list[Section]:
    """A table of four lines, whether the step only adds, and some names."""
    from flags.catalog import PUNCH
    from sim.report.table import Paragraph, Section, Table, facts

    files = facts([("A", before), ("B", after)])
    groups = {"on in A": change.before, "on in B": change.after, "joins": change.joins, "leaves": change.leaves}
    if key == PUNCH and len(memfds) < len(fleet):
        groups["on in B, can punch"] = able(change.after, memfds)
    title = f"{key}, {_plural(len(fleet), 'sandbox', 'sandboxes')} of {_plural(_teams(fleet), 'team', 'teams')}"
    head = ["", "sandboxes", "of all", "teams", *(["memory", "of all"] if memory(fleet) is not None else [])]
    rows = [(label, *share(members, fleet)) for label, members in groups.items()]
    leaves = _plural(len(change.leaves), "sandbox leaves", "sandboxes leave")
    said = "superset: no sandbox leaves" if change.is_superset else f"not a superset: {leaves}"
    names = facts([("joins", _names(change.joins)), ("leaves", _names(change.leaves))])
    return [
        Section(
            title,
            (
                files,
                Table(head, rows, "<>"),
            ),
        ),
        Section("", (Paragraph(said), names)),
    ]


def sdk_note(differs: Sequence[int]) -> tuple[Paragraph, ...]:
    """That the counts are Go's, where Python's SDK serves some sandboxes something else; nothing where it agrees."""
    from sim.report.table import Paragraph

    found = [
        f"{_plural(count, 'sandbox', 'sandboxes')} in {file}"
        for file, count in zip("AB", differs, strict=True)
        if count
    ]
    said = f"counted as Go's SDK serves; Python's serves something else to {' and to '.join(found)}, and so may others"
    return (Paragraph(said),) if found else ()


def able(members: Sequence[Member], memfds: AbstractSet[str]) -> tuple[Member, ...]:
    """Those that have a memfd to punch: none below Firecracker 1.14, and none where `use-memfd` is off at a resume."""
    return tuple(each for each in members if each.attributes.sandbox in memfds)


def share(members: Sequence[Member], fleet: Sequence[Member]) -> list[str]:
    """`997`, `9.97 %`, `310` teams, `12.4 GiB`, `11.08 %`; memory only where every sandbox's is known."""
    cells = [str(len(members)), _percent(len(members), len(fleet)), str(_teams(members))]
    mine, whole = memory(members), memory(fleet)
    if mine is not None and whole is not None:
        cells += [f"{mine / 2**30:.1f} GiB", _percent(mine, whole)]
    return cells


def memory(members: Sequence[Member]) -> int | None:
    """Bytes together, None where one is not known."""
    sizes = [each.memory for each in members if each.memory is not None]
    return sum(sizes) if len(sizes) == len(members) else None


def as_document(change: Step, fleet: Sequence[Member], had: AbstractSet[str], have: AbstractSet[str]) -> dict[str, Any]:
    """JSON-ready; memory in bytes. `had` a memfd with the flags of A, `have` one with those of B."""
    groups = {"before": change.before, "after": change.after, "joins": change.joins, "leaves": change.leaves}
    return {
        "fleet": {"sandboxes": len(fleet), "memory": memory(fleet)},
        "superset": change.is_superset,
        **{
            name: {
                "memory": memory(members),
                "can_punch": len(able(members, had if name in {"before", "leaves"} else have)),
                "sandboxes": [each.attributes.sandbox for each in members],
            }
            for name, members in groups.items()
        },
    }


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "0 %"


def _teams(members: Sequence[Member]) -> int:
    return len({each.attributes.team for each in members})


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _names(members: Sequence[Member]) -> str:
    names = [each.attributes.sandbox for each in members]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
