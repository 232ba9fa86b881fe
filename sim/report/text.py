"""A run on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from sim.files.units import HUGE_PAGE
from sim.record.verdict import Verdict
from sim.record.view import PUNCH, PauseView, SandboxView, View
from sim.report import judgements, words
from sim.report.judgements import Judgement, propagation, sentence
from sim.report.words import plural, size

_OUTCOMES = {"finished": "paused", "rolled-back": "rolled back", "discarded": "discarded"}
_ALSO = {"checkpoint": "checkpointed", "refused": "refused"}
_DIGEST_LENGTH = 12
_OVER_SOCKETS = frozenset({"relay", "launchdarkly"})
_MEASURED = "peaks and freed bytes, by the kernel's accounts; ratios are derived"


def summary(view: View, run_dir: Path | None = None) -> str:
    """The whole run in a screenful: verdict, both peaks, outcomes, what was judged, and where to look."""
    sections = (
        _title(view),
        *(_flag_table(flag, view.measured) for flag in _compared_flags(view.measured)),
        _outcomes(view),
        _without_effect(view),
        _judged("invariants", judgements.invariants(view)),
        _judged("expectations", judgements.expectations(view)),
        _footer(view, run_dir),
    )
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _title(view: View) -> list[str]:
    name, seed = (view.run.name, str(view.run.seed)) if view.run else ("a run without a first line", "unknown")
    verdict = judgements.verdict_of(view).upper() + ("" if view.ended else " (the record was cut off)")
    sandboxes = view.sandboxes.values()
    trackers = sorted({each.tracker for each in sandboxes if each.tracker})
    fleet = f"{words.plural(len(sandboxes), 'sandbox', 'sandboxes')}, "
    fleet += f"{words.size(sum(each.memory for each in sandboxes))} of guest memory"
    lines = [f"{name}   seed {seed}   {verdict}", f"{fleet}; dirty blocks from {', '.join(trackers) or 'nobody'}"]
    if paced := len(view.pauses) - len(view.measured):
        lines.append(f"{words.plural(paced, 'pause')} slowed or stopped on screen: in no figure")
    if view.wrong_engine:
        lines.insert(0, click.style(f"ENGINE: {view.wrong_engine}", fg="red", bold=True))
    return lines


def _compared_flags(pauses: Sequence[PauseView]) -> list[str]:
    """The punch flag wherever it was decided, and every flag that was decided both ways."""
    values: dict[str, set[bool]] = {}
    for pause in pauses:
        for flag, each in pause.decision.items():
            values.setdefault(flag, set()).add(_is_on(each.get("value")))
    return [flag for flag, seen in values.items() if flag == PUNCH or len(seen) > 1]


def _is_on(value: object) -> bool:
    """A JSON flag is on where its `enabled` is."""
    return bool(value.get("enabled")) if isinstance(value, dict) else bool(value)


def _flag_table(flag: str, pauses: Sequence[PauseView]) -> list[str]:
    lines, dirty = [flag], []
    for value, label in ((False, "flag off:"), (True, "flag on:")):
        group = [each for each in pauses if flag in each.decision and _is_on(each.decision[flag].get("value")) is value]
        if group:
            lines.append(f"  {label:<9} {_peaks(group)}{_freed(group)}")
            dirty.append({each.dirty_bytes for each in group if each.dirty_bytes})
    if len(dirty) == 2 and dirty[0] != dirty[1]:
        lines.append("  not to be compared: the pauses of the two had different amounts of dirty memory to copy")
    return lines


def _peaks(pauses: Sequence[PauseView]) -> str:
    """Of those that had something to copy."""
    count = f"{words.plural(len(pauses), 'pause'):<10}"
    empty = sum(each.dirty_bytes == 0 for each in pauses)
    pauses = [each for each in pauses if each.dirty_bytes != 0]
    if not pauses:
        return f"{count} nothing was dirty, so nothing was copied"
    left_out = f"; {empty} had nothing dirty" if empty else ""
    over = [each.peak_over for each in pauses if each.peak_over is not None]
    ratios = [each.peak_ratio for each in pauses if each.peak_ratio is not None]
    if not over:
        return f"{count} peak not measured"
    ratio = f"{max(ratios):.2f}x" if ratios else "n/a"
    return f"{count} peak {ratio}  (+{words.size(max(over))} a sandbox at most{left_out})"


def _freed(pauses: Sequence[PauseView]) -> str:
    punched = [each.punched_bytes for each in pauses if each.punched_bytes]
    return f"   {len(punched)} punched, {words.size(sum(punched))} freed" if punched else ""


def _outcomes(view: View) -> list[str]:
    counted = Counter("checkpoint" if _is_checkpoint(each) else each.outcome for each in view.pauses)
    parts = [f"{counted[outcome]} {word}" for outcome, word in _OUTCOMES.items()]
    parts += [f"{counted[outcome]} {word}" for outcome, word in _ALSO.items() if counted[outcome]]
    if counted[None]:
        parts.append(f"{counted[None]} not settled")
    states = ", ".join(f"{count} {state}" for state, count in sorted(view.counts.items()))
    return [f"pauses      {', '.join(parts)}", f"at the end  {states or 'no sandbox'}"]


def _is_checkpoint(pause: PauseView) -> bool:
    return pause.checkpoint and pause.outcome == "finished"


def _without_effect(view: View) -> list[str]:
    """Flags that were set and did nothing, once each, with how many pauses that was so for."""
    counted = Counter(note for pause in view.pauses for note in pause.notes)
    return (
        ["flags without effect", *(f"  {note} ({words.plural(n, 'pause')})" for note, n in counted.items())]
        if counted
        else []
    )


def _judged(title: str, judged: Sequence[Judgement]) -> list[str]:
    if not judged:
        return []
    width = max(len(each.name) for each in judged)
    return [title, *(f"  {each.verdict:<13}  {each.name:<{width}}  {_checks(each)}".rstrip() for each in judged)]


def _checks(judgement: Judgement) -> str:
    if judgement.verdict == judgements.NOT_EXERCISED:
        return ""
    parts = [f"checked {words.times(judgement.checked)}"]
    if judgement.violations and judgement.verdict == Verdict.VIOLATED:
        parts.append(words.plural(len(judgement.violations), "violation"))
    if judgement.expected:
        parts.append("as the scenario expects")
    return ", ".join(parts)


def _footer(view: View, run_dir: Path | None) -> list[str]:
    rows = [*figures(view), ("run folder", str(run_dir))] if run_dir else figures(view)
    return [f"{label:<11} {text}" for label, text in rows]


def figures(view: View) -> list[tuple[str, str]]:
    """What was measured of the whole run, each a label and a sentence that says how it is known."""
    rows = (
        ("measured", _MEASURED if view.pauses else None),
        ("memory", _node_memory(view)),
        ("cgroup", _cgroup_memory(view)),
        ("of it", _beyond_processes(view)),
        ("pages", _stand_in(each.page_size for each in view.sandboxes.values())),
        ("kill switch", _kill_switch(view)),
        ("digest", _digest(view)),
    )
    return [(label, text) for label, text in rows if text]


def _kill_switch(view: View) -> str | None:
    found = propagation(view)
    return sentence(found) if found else None


def _digest(view: View) -> str | None:
    if view.ended is None:
        return None
    if view.ended.digest is None:
        return "none claimed: a pause was not waited for, so another run may order events otherwise"
    told = view.ended.digest[:_DIGEST_LENGTH]
    if view.run is None or view.run.flag_source not in _OVER_SOCKETS:
        return told
    return f"{told}; the flags came over sockets, so another run promises equal outcomes, not an equal digest"


def _node_memory(view: View) -> str | None:
    peak = view.ended.peak_memory if view.ended else view.memory.peak
    budget = f" of {words.size(view.memory.budget)} (given)" if view.memory.budget else ""
    pools = f", {words.size(view.memory.hugetlb)} of it in the hugetlb pool now" if view.memory.hugetlb else ""
    return f"at most {words.size(peak)} in guests and caches (measured){budget}{pools}" if peak else None


def _cgroup_memory(view: View) -> str | None:
    ended = view.ended
    if ended is None or not ended.cgroup_peak:
        return None
    return f"at most {words.size(ended.cgroup_peak)}, the processes themselves included (measured)"


def _beyond_processes(view: View) -> str | None:
    """What the kernel and we count of the same."""
    ended = view.ended
    if ended is None or not ended.cgroup_peak or ended.cgroup_base is None or not ended.peak_with_page_cache:
        return None
    beyond, ours = words.size(ended.cgroup_peak - ended.cgroup_base), words.size(ended.peak_with_page_cache)
    return f"{beyond} without the processes; by our count {ours}, page cache included"


def _stand_in(page_sizes: Iterable[int]) -> str | None:
    """How much of the claim this run carries: production guests have 2 MiB hugetlb pages."""
    claims = {
        "SHOWN on 2 MiB hugetlb" if size == HUGE_PAGE else "SHOWN ON A STAND-IN (4 KiB shmem for 2 MiB hugetlb)"
        for size in page_sizes
    }
    return "; ".join(sorted(claims)) or None


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
