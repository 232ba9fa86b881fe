"""Two rehearsals beside each other, of the documents that they wrote: decision, stages, bounds, metrics. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.reading import MOST_TABLE_BYTES, read_regular
from flags.document import DocumentError, Mistake, Position
from sim.files.figures import percent
from sim.report.table import Bullets, Paragraph, Section, Table, facts

DOCUMENT = "rehearsal.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line: what it is, in both; `decides` where it is no time or size that differs between any two runs."""

    name: str
    first: str
    second: str
    decides: bool

    @property
    def differs(self) -> bool:
        """Whether the two are unlike."""
        return self.first != self.second


@dataclass(frozen=True, slots=True)
class RehearsalDiff:
    """All lines, in the order of the page; `reasons` are why each decision was made."""

    lines: tuple[DiffLine, ...]
    reasons: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def same(self) -> bool:
        """Whether nothing differs that decides."""
        return not any(each.differs and each.decides for each in self.lines)


def document_of(folder: Path) -> dict[str, Any] | None:
    """What the rehearsal of a run folder wrote; None for a run of another kind. DocumentError where it is broken."""
    path = folder / DOCUMENT
    if not path.exists():
        return None
    try:
        found = json.loads(read_regular(path, MOST_TABLE_BYTES).decode())
    except OSError as error:
        raise DocumentError(path, [Mistake(Position(), "", f"cannot be read: {error.strerror}")]) from None
    except (ValueError, RecursionError) as error:
        raise DocumentError(path, [Mistake(Position(), "", f"not JSON: {error}")]) from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        what = Mistake(Position(), "version", f"expected a rehearsal of version {VERSION}; rehearse again")
        raise DocumentError(path, [what])
    return found


def compare_rehearsals(first: Mapping[str, Any], second: Mapping[str, Any]) -> RehearsalDiff:
    """Stage by stage, by weight and number; what only one of them has is `-` in the other."""
    ours, theirs = dict(_lines(first)), dict(_lines(second))
    lines = []
    for name in dict.fromkeys([*ours, *theirs]):
        one, other = (each.get(name, ("-", True))[0] for each in (ours, theirs))
        lines.append(DiffLine(name, one, other, (ours.get(name) or theirs[name])[1]))
    return RehearsalDiff(tuple(lines), (tuple(first.get("reasons", ())), tuple(second.get("reasons", ()))))


def _lines(document: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, bool]]]:
    yield "decision", (str(document.get("decision")), True)
    bound = document.get("bound")
    if bound:
        yield "bound", (f"< {percent(bound['rate'])} at {bound['confidence'] * 100:g} %", True)
        yield "exposed sandboxes tried", (str(bound["tried"]), True)
        yield "demand", ("none" if bound["demanded"] is None else "met" if bound["met"] else "not met", True)
    for stage in document.get("stages", ()):
        yield from _stage(stage)
    for name in ("off", "on", "salvage") if document.get("salvage_arm") else ():
        arm = {"off": "off", "on": "on", "salvage": "on with salvage"}[name]
        lost = ", ".join(document["salvage_arm"][name]["lost"])
        yield f"lost in all, flag {arm}", (lost or "none", True)
    for step in document.get("steps", ()):
        for metric in step["metrics"]:
            where = f"{metric['name']} at {step['weight']:g} % (step {step['index'] + 1})"
            yield f"{where}: outcome", (metric["outcome"], not metric["dry_run"])
            yield f"{where}: last value", (_number(metric["values"][-1] if metric["values"] else None), False)


def _stage(stage: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, bool]]]:
    name = f"stage {stage['number']} ({stage['weight']:g} %)"
    yield f"{name}: completed", ("yes" if stage["complete"] else "no", True)
    exposed = stage["exposed"]
    yield f"{name}: exposed", (f"{len(exposed['sandboxes'])}: {', '.join(sorted(exposed['sandboxes'])[:4])}", True)
    yield f"{name}: superset", ("yes" if exposed["superset"] else "no", True)
    yield f"{name}: lost because of the flag", (", ".join(stage["lost_because_of_the_flag"]) or "none", True)
    incident = stage.get("incident")
    if incident:
        punched = incident["punched"]
        said = f"p50 {_number(punched['p50'])}, p99 {_number(punched['p99'])}"
        yield f"{name}: punched before OFF is obeyed", (said, True)
    saved = stage.get("saved_at_peak", {}).get("largest_pauses_at_once")
    yield f"{name}: saved at peak", (_number(saved), False)


def _number(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def diff_sections(found: RehearsalDiff, folders: tuple[str, str]) -> list[Section]:
    """What decides and differs first, then why each was decided so, then what differs between any two rehearsals."""
    unlike = [each for each in found.lines if each.differs]
    said = "the same decision, stages, bounds and outcomes" if found.same else "different:"
    tables = [
        Table(("what", "A", "B"), [(e.name, e.first, e.second) for e in unlike if e.decides is decides], "~")
        for decides in (True, False)
    ]
    return [
        Section("", (facts([("A", folders[0]), ("B", folders[1])]),)),
        Section("", (Paragraph(said), tables[0])),
        Section("A: why", (Bullets(found.reasons[0]),)),
        Section("B: why", (Bullets(found.reasons[1]),)),
        Section("Measured, and unlike in any two rehearsals", (tables[1],)),
    ]
