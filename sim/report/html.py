"""report.html: one file that loads nothing, the verdict first; from a ledger's entries and their view alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import PauseView, View
from sim.report import failure, judgements, text, words
from sim.report.plot import plot
from sim.report.words import scrub

REPORT_FILE = "report.html"
WITHOUT_PLOT = "Tables only. snapdrill run --html, or snapdrill report RUN --html FILE, draws memory over time as well."
WITHOUT_PLOTLY = "Tables only: the plot needs plotly, which is not installed here: pip install 'snapdrill[report]'."
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --line: #d9dce1; --page: #fff; --head: #f4f5f7;
  --held: #1a7f37; --violated: #c5273a; --inconclusive: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa3ad; --line: #343a42; --page: #15181c;
  --head: #1e2227; --held: #4ac26b; --violated: #ff7b86; --inconclusive: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.why { font-size: 1.1rem; margin: .25rem 0 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
pre { background: var(--head); padding: .75rem; overflow-x: auto; font-size: .85rem; } .soft { color: var(--soft); }
.held { color: var(--held); } .violated { color: var(--violated); } .inconclusive { color: var(--inconclusive); }
"""


def report(
    entries: Sequence[Entry], view: View, run_dir: Path, *, with_plot: bool = False, scenario_file: Path | None = None
) -> str:
    """The whole page. `scenario_file` is what the commands name; the copy in the run folder unless given."""
    file = scenario_file or run_dir / "scenario.yaml"
    name = scrub(view.run.name) if view.run else "a run without a first line"
    verdict = judgements.verdict_of(view)
    body = [
        f'<h1><span class="{escape(verdict)}">{escape(verdict.upper())}</span> {escape(name)}</h1>',
        f'<p class="why">{_text(judgements.why(view))}</p>',
        f'<p class="violated">ENGINE: {_text(view.wrong_engine)}</p>' if view.wrong_engine else "",
        _facts(view, run_dir, file),
        *_drawing(entries, view, with_plot=with_plot),
        *_failure(entries, view, run_dir, file),
        *_judged(view),
        *_kill_switch(view),
        *_decisions(view),
        *_pauses(view),
        *_faults(entries),
    ]
    return page(f"{verdict.upper()} {name}", body)


def page(title: str, body: Iterable[str]) -> str:
    """A whole page that loads nothing; `body` is HTML, empty parts are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, body))
        + "\n</body>\n</html>\n"
    )


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
    page = report(entries, view, run_dir, with_plot=with_plot, scenario_file=scenario_file)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def _facts(view: View, run_dir: Path, scenario_file: Path) -> str:
    run = view.run
    rows = [
        ("seed", str(run.seed) if run else "unknown"),
        ("began", run.started if run else ""),
        ("took", f"{view.t:.3f} s"),
        *text.figures(view),
        ("host", ", ".join(f"{key} {of_host(value)}" for key, value in run.host.items()) if run else ""),
        ("run again", failure.run_command(view, run_dir, scenario_file)),
        ("look at it", failure.replay_command(run_dir)),
    ]
    return _table((), [row for row in rows if row[1]])


def of_host(value: Any) -> str:
    """What is known of the host, for people: numbers this large are bytes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return words.size(value) if isinstance(value, int) and value > 1 << 20 else str(value)


def _drawing(entries: Sequence[Entry], view: View, *, with_plot: bool) -> list[str]:
    if not with_plot:
        return [f'<p class="soft">{_text(WITHOUT_PLOT)}</p>']
    drawn = plot(entries, view)
    return ["<h2>Memory of the node, and the pauses (measured)</h2>", drawn] if drawn else [
        f'<p class="soft">{_text(WITHOUT_PLOTLY)}</p>'
    ]  # fmt: skip


def _failure(entries: Sequence[Entry], view: View, run_dir: Path, scenario_file: Path) -> list[str]:
    block = failure.failure_block(view, run_dir, scenario_file, entries)
    return ["<h2>What failed</h2>", f"<pre>{_text(block)}</pre>"] if block else []


def _judged(view: View) -> list[str]:
    rows = [
        (each.name, each.verdict + (", as expected" if each.expected else ""), each.checked, len(each.violations))
        for each in [*judgements.invariants(view), *judgements.expectations(view)]
    ]
    return _section("Invariants and expectations", ("judged", "verdict", "checked", "violations"), rows)


def _kill_switch(view: View) -> list[str]:
    found = judgements.propagation(view)
    if found is None:
        return []
    took = found.took_ms
    figures = [f"{each:.3f}" for each in (took.min, took.median, took.p95, took.max)] if took else ["", "", "", ""]
    row = (judgements.SOURCES.get(found.source, found.source), took.n if took else 0, *figures, found.unawaited)
    head = ("source", "waited for", "min ms", "median ms", "p95 ms", "max ms", "not awaited")
    late = found.latest_punch_ms
    said = f'<p class="soft">A pause decided {late:.1f} ms after a kill switch still punched.</p>' if late else ""
    return [*_section("Kill switch: from its source to the node (measured)", head, [row]), said]


def _decisions(view: View) -> list[str]:
    """Which value each flag had in how many pauses, and why."""
    counted = Counter(
        (flag, words.flag_value(each.get("value")), _reason(each), str(each.get("source_state", "")))
        for pause in view.pauses
        for flag, each in pause.decision.items()
    )
    rows = [(*key, count) for key, count in sorted(counted.items())]
    return _section("Decisions", ("flag", "value", "reason", "flag source", "pauses"), rows)


def _reason(evaluation: Mapping[str, Any]) -> str:
    reason = str(evaluation.get("reason"))
    return "not served: its safe value" if reason == "ERROR:FLAG_NOT_FOUND" else reason


def _pauses(view: View) -> list[str]:
    head = (
        *("sandbox", "pause", "began s", "path", "decision", "outcome", "dirty", "freed", "peak over", "peak"),
        *("answered ms", "copy ms", "remarks"),
    )
    return _section("Pauses", head, [_pause(each) for each in view.pauses])


def _pause(pause: PauseView) -> tuple[Any, ...]:
    paced = "slowed or stopped on screen: in no figure" if pause.paced else None
    remarks = [paced, pause.error, pause.condemn_error, pause.punch_error, *pause.notes]
    return (
        pause.sandbox,
        pause.id,
        f"{pause.began:.3f}",
        pause.path or "",
        f"{'punch' if pause.punch else 'no punch'}: {pause.punch_reason}" if pause.punch_reason else "",
        (pause.outcome or "not settled") + (", a checkpoint" if pause.checkpoint else ""),
        _size(pause.dirty_bytes),
        _size(pause.punched_bytes),
        _size(pause.peak_over),
        "" if pause.peak_ratio is None else f"{pause.peak_ratio:.2f}x",
        "" if pause.blocked_ms is None else f"{pause.blocked_ms:.1f}",
        "" if pause.copy_ms is None else f"{pause.copy_ms:.1f}",
        "; ".join(filter(None, remarks)),
    )


def _faults(entries: Iterable[Entry]) -> list[str]:
    """Every fault that was ever armed, and whom it hit: the view knows only those that still are."""
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
        whom = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in names.items())
        rows.append((number, fault.fault, fault.error, fault.at, fault.sandboxes, names.total(), whom))
    return _section("Faults", ("fault", "point", "gives", "at", "sandboxes", "fired", "hit"), rows)


def _size(count: int | None) -> str:
    return "" if count is None else words.size(count)


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", _table(head, rows)] if rows else []


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Every cell is escaped here."""
    top = "".join(f"<th>{_text(each)}</th>" for each in head)
    lines = ["".join(_cell(each) for each in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{f"<tr>{top}</tr>" if top else ""}\n{body}\n</table></div>'


def _cell(value: Any) -> str:
    shown, first = _text(str(value)), str(value).partition(",")[0]
    kind = f' class="{first}"' if first in {"held", "violated", "inconclusive"} else ""
    return f"<td{kind}>{shown}</td>"


def _text(value: str) -> str:
    return escape(scrub(value))
