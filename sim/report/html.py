"""report.html: one file that loads nothing, the verdict first; from a ledger's entries and their view alone."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import LOST_AT_CHECKPOINT, PauseView, View
from sim.report import failure, judgements, text, words
from sim.report.plot import plot
from sim.report.table import Code, Paragraph, Section, Table, Words, facts, spans, toned
from sim.report.words import Tone, scrub, verdict_tone

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

REPORT_FILE = "report.html"
WITHOUT_PLOT = "Tables only. snapdrill run --html, or snapdrill report RUN --html FILE, draws memory over time as well."
WITHOUT_PLOTLY = "Tables only: the plot needs plotly, which is not installed here: pip install 'snapdrill[report]'."


def report(
    entries: Sequence[Entry], view: View, run_dir: Path, *, with_plot: bool = False, scenario_file: Path | None = None
) -> str:
    """The whole page. `scenario_file` is the file in the commands; by default the copy in the run folder."""
    file = scenario_file or run_dir / "scenario.yaml"
    verdict = judgements.verdict_of(view)
    return page(
        "report.html",
        verdict.upper(),
        verdict_tone(verdict),
        view.run.name if view.run else "a run without a first line",
        why=judgements.why(view),
        wrong_engine=view.wrong_engine,
        facts=_facts(view, run_dir, file),
        drawn="Memory of the node, and the pauses (measured)",
        plot=plot(entries, view) if with_plot else None,
        without_plot=WITHOUT_PLOTLY if with_plot else WITHOUT_PLOT,
        sections=[
            Section("What failed", (Code(failure.failure_block(view, run_dir, file, entries)),)),
            _judged(view),
            _kill_switch(view),
            _decisions(view),
            _pauses(view),
            _faults(entries),
        ],
    )


def page(template: str, verdict: str, tone: Tone, name: str, **values: Any) -> str:
    """A whole page that loads nothing, from one of the templates beside this module; they escape every value."""
    return _templates().get_template(template).render(verdict=verdict, tone=tone, name=name, **values)


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("sim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: scrub(value) if type(value) is str else value,
    )
    made.filters |= {"words": _markup, "kind": lambda part: type(part).__name__}
    made.filters["right"] = lambda table: [table.aligned(at) == ">" for at in range(len(table.rows[0]))]
    return made


def _markup(said: Words) -> Markup:
    """Its spans, each escaped."""
    from markupsafe import Markup, escape

    found = Markup("")
    for each in spans(said):
        if each.code:
            found += Markup("<code>{}</code>").format(each.text)
        elif each.tone != "plain":
            found += Markup('<span class="{}">{}</span>').format(each.tone, each.text)
        else:
            found += escape(each.text)
    return found


def write_report(
    path: Path,
    entries: Sequence[Entry],
    view: View,
    run_dir: Path,
    *,
    with_plot: bool = False,
    scenario_file: Path | None = None,
) -> None:
    """Write the page atomically."""
    write_page(path, report(entries, view, run_dir, with_plot=with_plot, scenario_file=scenario_file))


def write_page(path: Path, page: str) -> None:
    """Write it atomically."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _facts(view: View, run_dir: Path, scenario_file: Path) -> Section:
    run = view.run
    rows = [
        ("seed", str(run.seed) if run else "unknown"),
        ("began", run.started if run else ""),
        ("took", f"{view.t:.3f} s"),
        *text.figures(view),
        ("host", host_words(run.host) if run else ""),
        ("run again", failure.run_command(view, run_dir, scenario_file)),
        ("look at it", failure.replay_command(run_dir)),
    ]
    return Section("", (facts(rows),))


def host_words(host: Mapping[str, Any]) -> str:
    """What is known of the host, on one line."""
    return ", ".join(f"{key} {_of_host(value)}" for key, value in host.items())


def _of_host(value: Any) -> str:
    """A value of the host as text: numbers this large are bytes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return words.size(value) if isinstance(value, int) and value > 1 << 20 else str(value)


def _judged(view: View) -> Section:
    rows = [
        (
            each.name,
            toned(each.verdict + (", as expected" if each.expected else ""), verdict_tone(each.verdict)),
            str(each.checked),
            str(len(each.violations)),
        )
        for each in [*judgements.invariants(view), *judgements.expectations(view)]
    ]
    return Section("Invariants and expectations", (Table(("judged", "verdict", "checked", "violations"), rows, "<<>"),))


def _kill_switch(view: View) -> Section:
    title = "Kill switch: from its source to the node (measured)"
    found = judgements.propagation(view)
    if found is None:
        return Section(title, ())
    took = found.took_ms
    figures = [f"{each:.3f}" for each in (took.min, took.median, took.p95, took.max)] if took else [""] * 4
    source = judgements.SOURCES.get(found.source, found.source)
    row = (source, str(took.n if took else 0), *figures, str(found.unawaited))
    head = ("source", "waited for", "min ms", "median ms", "p95 ms", "max ms", "not awaited")
    late = found.latest_punch_ms
    late_punch = f"A pause decided {late:.1f} ms after a kill switch still punched." if late else ""
    return Section(title, (Table(head, [row], "<>"), Paragraph(toned(late_punch, "muted"))))


def _decisions(view: View) -> Section:
    """Which value each flag had in how many pauses, and why."""
    counted = Counter(
        (flag, words.flag_value(each.get("value")), _reason(each), str(each.get("source_state", "")))
        for pause in view.pauses
        for flag, each in pause.decision.items()
    )
    rows = [(*key, str(count)) for key, count in sorted(counted.items())]
    return Section("Decisions", (Table(("flag", "value", "reason", "flag source", "pauses"), rows, "<<<<>"),))


def _reason(evaluation: Mapping[str, Any]) -> str:
    reason = str(evaluation.get("reason"))
    return "not served: its safe value" if reason == "ERROR:FLAG_NOT_FOUND" else reason


def _pauses(view: View) -> Section:
    head = (
        *("sandbox", "pause", "began s", "path", "decision", "outcome", "dirty", "freed", "peak over", "peak"),
        *("copiers", "answered ms", "copy ms", "remarks"),
    )
    return Section("Pauses", (Table(head, [_pause(each) for each in view.pauses], "<<><<<>>>>>>>~"),))


def _pause(pause: PauseView) -> tuple[str, ...]:
    paced = "slowed or stopped on screen: in no figure" if pause.paced else None
    remarks = [paced, pause.error, pause.condemn_error, pause.punch_error, *pause.notes]
    return (
        pause.sandbox,
        pause.id,
        f"{pause.began:.3f}",
        pause.path or "",
        f"{'punch' if pause.punch else 'no punch'}: {pause.punch_reason}" if pause.punch_reason else "",
        _ended(pause),
        _size(pause.dirty_bytes),
        _size(pause.punched_bytes),
        _size(pause.peak_over),
        "" if pause.peak_ratio is None else f"{pause.peak_ratio:.2f}x",
        _size(pause.copier_bytes),
        "" if pause.blocked_ms is None else f"{pause.blocked_ms:.1f}",
        "" if pause.copy_ms is None else f"{pause.copy_ms:.1f}",
        "; ".join(filter(None, remarks)),
    )


def _ended(pause: PauseView) -> str:
    if pause.outcome_code == LOST_AT_CHECKPOINT:
        return "lost at a checkpoint"
    how = ("with a new guest" if pause.consumed else "in place") if pause.checkpoint else ""
    return (pause.outcome or "not settled") + (f", a checkpoint {how}" if how else "")


def _faults(entries: Iterable[Entry]) -> Section:
    """Every fault that was ever armed, and the sandboxes it fired on: the view has only those still armed."""
    armed: dict[int, events.FaultArmed] = {}
    hit: dict[int, list[str]] = {}
    for each in entries:
        match each.event:
            case events.FaultArmed(fault_id) as fault:
                armed[fault_id] = fault
            case events.FaultFired(fault_id):
                hit.setdefault(fault_id, []).append(each.sandbox or "the node")
    rows = []
    for number, fault in armed.items():
        names = Counter(hit.get(number, []))
        fired_on = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in names.items())
        fired = str(names.total())
        rows.append((str(number), fault.fault, fault.error, fault.at, fault.sandboxes, fired, fired_on))
    return Section("Faults", (Table(("fault", "point", "gives", "at", "sandboxes", "fired", "hit"), rows, "><<<<>~"),))


def _size(count: int | None) -> str:
    return "" if count is None else words.size(count)
