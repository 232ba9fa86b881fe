"""The fleet at one moment as a table of plain text: a line a sandbox, and what its pause is about."""

from __future__ import annotations

from collections.abc import Sequence

from sim.report.words import plural, size
from sim.view import PauseView, SandboxView, View

_HEAD = ("sandbox", "state", "resident", "cached", "freed", "pause")


def fleet_table(view: View, sandbox: str | None = None) -> list[str]:
    """Every sandbox, or the one of that name, under a line of headings; the reason of its state comes last."""
    rows = [each for each in view.sandboxes.values() if sandbox is None or each.name == sandbox]
    cells = [_HEAD, *(_cells(each) for each in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    reasons = ["", *(f"  ({each.reason})" if each.reason else "" for each in rows)]
    return [f"  {_aligned(row, widths)}{reason}".rstrip() for row, reason in zip(cells, reasons, strict=True)]


def moment(view: View) -> list[str]:
    """What is not any sandbox's: node, tick, step, memory, armed faults."""
    memory = view.memory
    told = [f"node {view.node}, tick {view.tick}"]
    if view.step is not None:
        told.append(f"step {view.step.index}: {view.step.step} (line {view.step.line})")
    if memory.now:
        told.append(f"{size(memory.now)} in guests and caches, {size(memory.planned)} granted")
    if view.faults:
        told.append(f"{plural(len(view.faults), 'fault')} armed")
    return ["  " + "; ".join(told)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    numbers = range(2, 5)
    return "  ".join(
        cell.rjust(width) if column in numbers else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )


def _cells(each: SandboxView) -> tuple[str, ...]:
    amounts = (size(amount) if amount else "-" for amount in (each.resident, each.cached, each.punched))
    return (each.name, each.state, *amounts, _pause(each.pause) if each.pause else "-")


def _pause(pause: PauseView) -> str:
    """`web-0.p1 memfd-background 3/16 chunks, condemned`; how it ended, once it has."""
    parts = [pause.id, pause.path or "", pause.outcome or (f"{pause.published}/{pause.chunks} chunks")]
    if pause.settled_at is None and pause.condemned:
        parts[-1] += ", condemned"
    return " ".join(filter(None, parts))
