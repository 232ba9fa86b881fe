"""rehearsal.html: the rehearsal on one page that loads nothing, the decision first. It links to both runs' reports."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from sim.rehearsal.evidence import first_page
from sim.rehearsal.results import Rehearsal
from sim.report.html import WITHOUT_PLOTLY, page
from sim.report.printable import scrub

HTML_FILE = "rehearsal.html"
WITHOUT_PLOT = "Tables only. snapdrill rehearse --html draws memory over the plan and propagation as well."
DRAWN = "Memory of the node over the plan (measured), and how long a kill switch takes"
_CLASSES = {"go": "held", "no-go": "violated", "inconclusive": "inconclusive"}
_OUTCOMES = {"successful": "held", "failed": "violated", "error": "violated", "inconclusive": "inconclusive"}


def rehearsal_page(found: Rehearsal, *, with_plot: bool = False) -> str:
    """What the evidence's first page says, as a page; with a plot where it is asked for and plotly is installed."""
    kind = _CLASSES[found.decision]
    title = f"{found.decision.upper()}: {found.plan.name}"
    body = [f'<h1><span class="{kind}">{escape(found.decision.upper())}</span> {escape(found.plan.name)}</h1>']
    body += list(_sections(first_page(found)[1:]))
    body += _drawing(found, with_plot=with_plot)
    links = {"with the flag": found.on.run_dir, "with the flag off": found.off.run_dir}
    runs = ", ".join(f'<a href="{escape(_link(found, run))}">{name}</a>' for name, run in links.items())
    return page(title, [*body, f"<p>The runs themselves: {runs}.</p>"])


def _drawing(found: Rehearsal, *, with_plot: bool) -> list[str]:
    if not with_plot:
        return [f'<p class="soft">{escape(WITHOUT_PLOT)}</p>']
    from sim.rehearsal.plot import plot

    drawn = plot(found)
    return [f"<h2>{escape(DRAWN)}</h2>", drawn] if drawn else [f'<p class="soft">{escape(WITHOUT_PLOTLY)}</p>']


def write_page(found: Rehearsal, *, with_plot: bool = False) -> None:
    """Beside the other reports of the run with the flag on, atomically."""
    path = found.folder / HTML_FILE
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(rehearsal_page(found, with_plot=with_plot), encoding="utf-8")
    os.replace(partial, path)


def _link(found: Rehearsal, run: Path) -> str:
    return os.path.relpath(run / "report.html", found.folder)


def _sections(lines: Sequence[str]) -> Iterator[str]:
    """The first page's own Markdown: headings, lists, tables and one code block."""
    rows: list[str] = []
    items: list[str] = []
    code = False
    for line in [*lines, ""]:
        if rows and not line.startswith("|"):
            yield _table(rows)
            rows = []
        if items and not line.startswith("- "):
            yield "<ul>" + "".join(f"<li>{_inline(each)}</li>" for each in items) + "</ul>"
            items = []
        if line == "```":
            code = not code
        elif code:
            yield f"<pre>{_text(line)}</pre>"
        elif line.startswith("## "):
            yield f"<h2>{_inline(line[3:])}</h2>"
        elif line.startswith("- "):
            items.append(line[2:])
        elif line.startswith("|"):
            rows.append(line)


def _table(rows: Sequence[str]) -> str:
    head, _, *body = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    top = "".join(f"<th>{_inline(each)}</th>" for each in head)
    lines = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in body)
    return f'<div class="scroll"><table>\n<tr>{top}</tr>\n{lines}\n</table></div>'


def _cell(text: str) -> str:
    kind = f' class="{_OUTCOMES[text]}"' if text in _OUTCOMES else ""
    return f"<td{kind}>{_inline(text)}</td>"


def _inline(text: str) -> str:
    shown = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", _text(text.replace("\\|", "|")))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", shown)


def _text(text: str) -> str:
    return escape(scrub(text))
