"""report.html: the verdict first, everything escaped, nothing loaded, from a ledger's entries alone."""

from __future__ import annotations

import html
import json
import pathlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from engine.events import Event, Planned
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report.html import report, write_report

MIB = 1 << 20
RUN_DIR = pathlib.Path("runs/demo/20260102T030405Z-42")
NASTY = '</script><script>alert("x\'y")</script><img src="http://x/y">&\x00\x1b'


def started(name: str = "demo") -> events.RunStarted:
    return events.RunStarted(
        1, "0", "r1", name, 42, [], "2026-01-02T03:04:05Z", 1 << 30, "disk", None, host={"cpus": 2}
    )


def settled(**changes: Any) -> events.PauseSettled:
    fields: dict[str, Any] = {
        "outcome": "finished",
        "path": "memfd",
        "punch": True,
        "punch_reason": "legal",
        "dirty_bytes": 32 * MIB,
        "punched_bytes": 32 * MIB,
        "peak_over": MIB,
        "copier_bytes": 8 * MIB,
        "peak_ratio": 1.03,
        "copy_ms": 12.5,
        "blocked_ms": 3.25,
        "condemned": True,
        "build": "b1",
        "content_hash": "c1",
    }
    return events.PauseSettled(**fields | changes)


def ledger(
    *last: Event, name: str = "demo", sandbox: str = "web-0", error: str | None = None, value: Any = True
) -> list[Entry]:
    pause = f"{sandbox}.p1"
    flags = {"memfd-punch-on-snapshot": {"value": value, "reason": "FALLTHROUGH", "source_state": "VALID"}}
    if value is NASTY:
        flags = {NASTY: {"value": NASTY, "reason": NASTY, "source_state": NASTY}}
    told: list[Entry] = [
        Entry(0.0, started(name), None, None),
        Entry(0.1, events.SandboxCreated(32 * MIB, 4096, 4096, "python", "acme", "local"), sandbox, None),
        Entry(0.2, events.FaultArmed(1, "copy.write", "EIO", "first", "web-*"), None, None),
        Entry(0.3, events.MemorySampled(32 * MIB, 0, 0), None, None),
        Entry(0.4, events.Decided(flags), sandbox, pause),
        Entry(0.5, Planned("memfd", True, "legal", 16, 32 * MIB), sandbox, pause),
        Entry(0.6, events.FaultFired(1, "copy.write", "EIO", 0), sandbox, pause),
        Entry(0.7, events.MemorySampled(16 * MIB, 16 * MIB, 0), None, None),
        Entry(0.8, settled(error=error), sandbox, pause),
        Entry(0.9, events.FaultsCleared(), None, None),
        Entry(1.0, events.FlagSet("memfd-punch-on-snapshot", True, True, 1.0), None, None),
        Entry(1.1, events.FlagSet("memfd-punch-on-snapshot", False, True, 2.5), None, None),
    ]
    return [*told, *(Entry(2.0, each, None, None) for each in last)]


def view_of(entries: list[Entry]) -> View:
    fold = Fold()
    fold.apply(entries)
    return fold.view()


def page_of(entries: list[Entry], *, with_plot: bool = False) -> str:
    return report(entries, view_of(entries), RUN_DIR, with_plot=with_plot)


HELD = events.Judged("invariant:bytes_exact", "held", 4), events.RunEnded("held", 0, {}, "d" * 64, 48 * MIB)


class Reader(HTMLParser):
    """The tables of a page, and every attribute that could make a browser fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.loads: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self._in_cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [(tag, name) for name, _ in attrs if name in {"src", "href", "data", "action", "srcset"}]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[-1][-1][-1] += data

    def table(self, first: str) -> list[list[str]]:
        (found,) = [each for each in self.tables if each[0][0] == first]
        return found


def test_the_first_thing_is_the_verdict_with_its_reason() -> None:
    reason = {"sandbox": "web-0", "reason": "page 7 differs"}
    judged = events.Judged("invariant:bytes_exact", "violated", 4, [reason])
    page = page_of(ledger(judged, events.RunEnded("violated", 1, {}, None, 0)))
    body = re.sub(r"<[^>]+>", "\n", page.partition("<body>")[2])
    assert [line.strip() for line in body.splitlines() if line.strip()][:3] == [
        "VIOLATED",
        "demo",
        "bytes_exact: page 7 differs",
    ]


def test_a_run_that_held_says_what_held() -> None:
    assert '<p class="why">1 invariant held</p>' in page_of(ledger(*HELD))


def test_a_record_without_an_end_has_no_verdict_but_a_page() -> None:
    page = page_of(ledger())
    assert "INCONCLUSIVE" in page
    assert "the record was cut off: there is no verdict" in page


def test_the_tables_tell_pauses_faults_judgements_decisions_and_the_kill_switch() -> None:
    read = Reader(page_of(ledger(*HELD)))
    assert read.table("judged")[1] == ["bytes_exact", "held", "4", "0"]
    assert read.table("flag")[1] == ["memfd-punch-on-snapshot", "on", "FALLTHROUGH", "VALID", "1"]
    assert read.table("source")[1] == ["request", "1", "2.500", "2.500", "2.500", "2.500", "0"]
    assert read.table("sandbox")[1] == [
        *("web-0", "web-0.p1", "0.400", "memfd", "punch: legal", "finished", "32.0 MiB", "32.0 MiB", "1.0 MiB"),
        *("1.03x", "8.0 MiB", "3.2", "12.5", ""),
    ]


def test_a_fault_that_was_cleared_is_still_told_with_whom_it_hit() -> None:
    assert Reader(page_of(ledger(*HELD))).table("fault")[1] == [
        *("1", "copy.write", "EIO", "first", "web-*", "1", "web-0")
    ]


@pytest.mark.parametrize("with_plot", [False, True])
def test_nothing_in_a_ledger_becomes_markup(with_plot: bool) -> None:
    if with_plot:
        pytest.importorskip("plotly")
    reason = {"sandbox": NASTY, "reason": NASTY}
    judged = events.Judged(f"metric:{NASTY}", "violated", 4, [reason])
    page = page_of(ledger(judged, name=NASTY, sandbox=NASTY, error=NASTY, value=NASTY), with_plot=with_plot)
    read = Reader(page)
    assert "img" not in read.tags
    assert page.count("<script") == (3 if with_plot else 0)
    assert read.loads == []
    assert "\x00" not in page
    assert "\x1b" not in page
    assert "alert(&#34;x&#39;y&#34;)" in page
    assert read.table("flag")[1][:4] == [NASTY.replace("\x00", "\\x00").replace("\x1b", "\\x1b")] * 4
    assert read.table("sandbox")[1][0] == NASTY.replace("\x00", "\\x00").replace("\x1b", "\\x1b")


@pytest.mark.parametrize("with_plot", [False, True])
def test_the_page_loads_nothing_and_tells_the_browser_so(with_plot: bool) -> None:
    if with_plot:
        pytest.importorskip("plotly")
    page = page_of(ledger(*HELD), with_plot=with_plot)
    assert Reader(page).loads == []
    assert "content=\"default-src 'none';" in page
    assert not re.search(r"@import|url\(\s*['\"]?https?:", page.partition("</style>")[0])


def test_tables_alone_are_small_and_say_how_to_have_the_plot() -> None:
    page = page_of(ledger(*HELD))
    assert len(page) < 20_000
    assert "snapdrill run --html" in page
    assert "<script" not in page


def test_without_plotly_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    assert "pip install 'snapdrill[report]'" in html.unescape(page_of(ledger(*HELD), with_plot=True))


def test_the_plot_stacks_memory_and_marks_every_pause() -> None:
    pytest.importorskip("plotly")
    page = page_of(ledger(*HELD), with_plot=True)
    data = page.rpartition("Plotly.newPlot(")[2].partition("[")[2]
    traces = {each["name"]: each for each in json.JSONDecoder().raw_decode("[" + data)[0]}
    assert list(traces) == [
        *("guests", "caches", "budget 1.0 GiB (far above: click)", "flags, outages, faults, crashes", "punched")
    ]
    assert {traces["guests"]["stackgroup"], traces["caches"]["stackgroup"]} == {"memory"}
    assert (traces["caches"]["x"], traces["caches"]["y"]) == ([0.3, 0.7], [0.0, 16.0])
    assert (traces["punched"]["base"], traces["punched"]["y"]) == ([0.4], ["web-0"])


def test_it_is_readable_in_light_and_in_dark() -> None:
    page = page_of(ledger(*HELD))
    assert "color-scheme: light dark" in page
    assert "@media (prefers-color-scheme: dark)" in page


def test_it_is_written_whole(tmp_path: pathlib.Path) -> None:
    entries = ledger(*HELD)
    write_report(tmp_path / "report.html", entries, view_of(entries), RUN_DIR)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text().endswith("</html>\n")
