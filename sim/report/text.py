"""A run on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import median

from sim.files.units import HUGE_PAGE
from sim.record.verdict import INVARIANT, Verdict
from sim.record.view import LOST_AT_CHECKPOINT, PUNCH, PauseView, SandboxView, View
from sim.report import judgements, words
from sim.report.judgements import Judgement, propagation, sentence
from sim.report.late_failures import failed_late, late_failures
from sim.report.table import Bullets, CellSpan, Paragraph, Section, Table, Words, facts, text, toned
from sim.report.words import plural, size

_OUTCOMES = {"finished": "paused", "rolled-back": "rolled back", "discarded": "discarded"}
_ALSO = {"checkpoint": "checkpointed", LOST_AT_CHECKPOINT: "lost at a checkpoint", "refused": "refused"}
_DIGEST_LENGTH = 12
_OVER_SOCKETS = frozenset({"relay", "launchdarkly"})
_MEASURED = "peaks and freed bytes, by the kernel's accounts; ratios are derived"


def summary(view: View, run_dir: Path | None = None) -> str:
    """The whole run in a screenful: verdict, both peaks, outcomes, what was judged, and where to look."""
    return text(
        [
            _title(view),
            *(_flag_table(flag, view.measured) for flag in _compared_flags(view.measured)),
            _outcomes(view),
            _without_effect(view),
            _judged("invariants", judgements.invariants(view)),
            _judged("expectations", judgements.expectations(view)),
            facts([*figures(view), ("run folder", str(run_dir) if run_dir else None)]),
        ]
    )


def _title(view: View) -> Section:
    name, seed = (view.run.name, str(view.run.seed)) if view.run else ("a run without a first line", "unknown")
    verdict = judgements.verdict_of(view)
    shown = toned(verdict.upper(), words.verdict_tone(verdict))
    sandboxes = view.sandboxes.values()
    trackers = sorted({each.tracker for each in sandboxes if each.tracker})
    fleet = f"{words.plural(len(sandboxes), 'sandbox', 'sandboxes')}, {_machines(sandboxes)}"
    fleet += f"{words.size(sum(each.memory for each in sandboxes))} of guest memory"
    paced = len(view.pauses) - len(view.measured)
    lines: list[Words] = [
        toned(f"ENGINE: {view.wrong_engine}" if view.wrong_engine else "", "bad"),
        (f"{name}   seed {seed}   ", shown, "" if view.ended else " (the record was cut off)"),
        f"{fleet}; dirty blocks from {', '.join(trackers) or 'no tracker'}",
        f"{words.plural(paced, 'pause')} slowed or stopped on screen: in no figure" if paced else "",
    ]
    return Section("", tuple(Paragraph(each) for each in lines))


def _machines(sandboxes: Collection[SandboxView]) -> str:
    """`all of them virtual machines, `; nothing where there are none."""
    machines = sum(each.guest == "vm" for each in sandboxes)
    if not machines:
        return ""
    return f"{'all' if machines == len(sandboxes) else machines} of them virtual machines, "


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


def _flag_table(flag: str, pauses: Sequence[PauseView]) -> Section:
    """Figures only cover pauses that had something to copy: a pause with nothing dirty always peaks at 1x."""
    rows, dirty = [], []
    for value, label in ((False, "flag off"), (True, "flag on")):
        group = [each for each in pauses if flag in each.decision and _is_on(each.decision[flag].get("value")) is value]
        if group:
            rows.append((label, str(len(group)), *_peaks(group), _copiers(group), *_freed(group)))
            dirty.append({each.dirty_bytes for each in group if each.dirty_bytes})
    head = ("", "pauses", "peak", "largest peak over", "copiers", "punched", "freed")
    table, empty = Table(head, rows, "<>"), sum(each.dirty_bytes == 0 for each in pauses)
    unlike = len(dirty) == 2 and dirty[0] != dirty[1]
    notes = [
        f"{words.plural(empty, 'pause')} had nothing dirty, so peaks leave them out" if empty else "",
        "these rows do not compare: with the flag off and on, different amounts of memory were dirty" if unlike else "",
    ]
    return Section(flag, (table, *(Paragraph(each) for each in notes if each)))


def _peaks(pauses: Sequence[PauseView]) -> tuple[str, str]:
    """Of the pauses that had something to copy."""
    pauses = [each for each in pauses if each.dirty_bytes != 0]
    if not pauses:
        return "nothing dirty", "-"
    over = [each.peak_over for each in pauses if each.peak_over is not None]
    ratios = [each.peak_ratio for each in pauses if each.peak_ratio is not None]
    if not over:
        return "not measured", "-"
    return f"{max(ratios):.2f}x" if ratios else "n/a", f"+{words.size(max(over))}"


def _copiers(pauses: Sequence[PauseView]) -> str:
    """The most that the copying threads of one pause took for themselves, which no peak counts."""
    taken = [each.copier_bytes for each in pauses if each.copier_bytes]
    return words.size(max(taken)) if taken else "-"


def _freed(pauses: Sequence[PauseView]) -> tuple[str, str]:
    punched = [each.punched_bytes for each in pauses if each.punched_bytes]
    return str(len(punched)), words.size(sum(punched)) if punched else "-"


def _outcomes(view: View) -> Table:
    counted = Counter("checkpoint" if _is_checkpoint(each) else each.outcome_code for each in view.pauses)
    parts = [f"{counted[outcome]} {word}" for outcome, word in _OUTCOMES.items()]
    parts += [f"{counted[outcome]} {word}" for outcome, word in _ALSO.items() if counted[outcome]]
    if counted[None]:
        parts.append(f"{counted[None]} not settled")
    states = ", ".join(f"{count} {state}" for state, count in sorted(view.counts.items()))
    return facts([("pauses", ", ".join(parts)), ("at the end", states or "no sandbox")])


def _is_checkpoint(pause: PauseView) -> bool:
    return pause.checkpoint and pause.outcome == "finished"


def _without_effect(view: View) -> Section:
    """Flags that were set without effect, once each, with the number of such pauses."""
    counted = Counter(note for pause in view.pauses for note in pause.notes)
    return Section(
        "flags without effect", (Bullets([f"{e} ({words.plural(n, 'pause')})" for e, n in counted.items()]),)
    )


def _judged(title: str, judged: Sequence[Judgement]) -> Section:
    return Section(title, (Table((), [(_verdict(each), each.name, _checks(each)) for each in judged], "<<~"),))


def _verdict(judgement: Judgement) -> CellSpan:
    idle = judgement.verdict == judgements.NOT_EXERCISED
    return toned(judgement.verdict, "muted" if idle else words.verdict_tone(judgement.verdict))


def _checks(judgement: Judgement) -> str:
    if judgement.verdict == judgements.NOT_EXERCISED:
        return ""
    parts = [f"checked {words.times(judgement.checked)}"]
    if judgement.violations and judgement.verdict == Verdict.VIOLATED:
        parts.append(words.plural(len(judgement.violations), "violation"))
    if judgement.expected:
        parts.append("as the scenario expects")
    return ", ".join(parts)


def figures(view: View) -> list[tuple[str, str]]:
    """The figures of the whole run, each a label and a sentence that says how it is known."""
    rows = (
        ("measured", _MEASURED if view.pauses else None),
        ("cpu", _cpu(view)),
        ("readers", readers(view.pauses)),
        ("failed late", late_failures(len(failed_late(view.pauses)), view.run.known_as if view.run else "") or None),
        ("memory", _node_memory(view)),
        ("caches", _caches(view)),
        ("cgroup", _cgroup_memory(view)),
        ("of it", _beyond_processes(view)),
        ("pages", _stand_in(each.page_size for each in view.sandboxes.values())),
        ("kill switch", _kill_switch(view)),
        ("digest", _digest(view)),
    )
    return [(label, text) for label, text in rows if text]


def _cpu(view: View) -> str | None:
    """Of the pauses' own threads, by GiB that they copied, with the punch flag off and on."""
    parts = []
    for on, label in ((False, "with punching off"), (True, "with it on")):
        group = [each for each in view.measured if each.cpu_seconds and each.dirty_bytes and _is_punch_on(each) is on]
        if group:
            copied = sum(each.dirty_bytes or 0 for each in group) / 2**30
            parts.append(f"{sum(each.cpu_seconds or 0.0 for each in group) / copied:.2f} s {label}")
    return f"a GiB copied: {', '.join(parts)} (measured, the pauses' own threads)" if parts else None


def readers(pauses: Sequence[PauseView]) -> str | None:
    """Of the pauses that were read at once: how many while they were copied, and how long their readers waited."""
    read = [each for each in pauses if each.read]
    if not read:
        return None
    copied = sum(each.read_while_copied for each in read)
    waited = sorted(each.reader_waited_ms for each in read if each.reader_waited_ms is not None and not each.paced)
    longest = words.ms(waited[-1]) if waited else ""
    times = (
        f"a running guest after {words.ms(median(waited))}, at most {longest}" if waited else "no reader got a guest"
    )
    return f"{len(read)} of {plural(len(pauses), 'pause')} read at once, {copied} while copied; {times} (measured)"


def _is_punch_on(pause: PauseView) -> bool:
    return _is_on(pause.decision.get(PUNCH, {}).get("value"))


def _kill_switch(view: View) -> str | None:
    found = propagation(view)
    return sentence(found) if found else None


def _digest(view: View) -> str | None:
    if view.ended is None:
        return None
    if view.ended.digest is None:
        if any(each.subject == f"{INVARIANT}deaths_explained" and each.verdict != "held" for each in view.judged):
            return "none: a process died, and nothing in the run explains it"
        return "none: a pause used `until: returned`, so event order may differ between runs"
    digest = view.ended.digest[:_DIGEST_LENGTH]
    if view.run is None or view.run.flag_source not in _OVER_SOCKETS:
        return digest
    return f"{digest}; the flags came over sockets, so another run has equal outcomes but may have another digest"


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
    """The same memory by the kernel's count and by ours."""
    ended = view.ended
    if ended is None or not ended.cgroup_peak or ended.cgroup_base is None or not ended.peak_with_page_cache:
        return None
    beyond, ours = words.size(ended.cgroup_peak - ended.cgroup_base), words.size(ended.peak_with_page_cache)
    return f"{beyond} without the processes; by snapdrill's own count {ours}, page cache included"


def _caches(view: View) -> str | None:
    """In which pages a tmpfs held them; None for a disk, and where the ledger does not say."""
    huge = view.run.host.get("huge_cache") if view.run else None
    return None if huge is None else f"on a tmpfs, in pages of {'2 MiB' if huge else '4 KiB'}"


def _stand_in(page_sizes: Iterable[int]) -> str | None:
    """Whether the run used production's 2 MiB hugetlb pages or a stand-in."""
    claims = {
        "SHOWN on 2 MiB hugetlb" if size == HUGE_PAGE else "SHOWN ON A STAND-IN (4 KiB shmem for 2 MiB hugetlb)"
        for size in page_sizes
    }
    return "; ".join(sorted(claims)) or None


def fleet_table(view: View, sandbox: str | None = None) -> Table:
    """Every sandbox, or the one of that name; the reason of its state comes last."""
    rows = [_cells(each) for each in view.sandboxes.values() if sandbox is None or each.name == sandbox]
    return Table(("sandbox", "state", "resident", "cached", "freed", "pause", "why"), rows, "<<>>><~")


def moment(view: View) -> str:
    """The state of the run as a whole: node, tick, step, memory, armed faults."""
    memory = view.memory
    parts = [f"node {view.node}, tick {view.tick}"]
    if view.step is not None:
        parts.append(f"step {view.step.index}: {view.step.step} (line {view.step.line})")
    if memory.now:
        parts.append(f"{size(memory.now)} in guests and caches, {size(memory.planned)} granted")
    if view.faults:
        parts.append(f"{plural(len(view.faults), 'fault')} armed")
    return "; ".join(parts)


def _cells(each: SandboxView) -> tuple[str, ...]:
    amounts = (size(amount) if amount else "-" for amount in (each.resident, each.cached, each.punched))
    return (each.name, each.state, *amounts, _pause(each.pause) if each.pause else "-", each.reason or "")


def _pause(pause: PauseView) -> str:
    """`web-0.p1 memfd-background 3/16 chunks, condemned`; how it ended, once it has."""
    parts = [pause.id, pause.path or "", pause.outcome or (f"{pause.published}/{pause.chunks} chunks")]
    if pause.settled_at is None and pause.condemned:
        parts[-1] += ", condemned"
    return " ".join(filter(None, parts))
