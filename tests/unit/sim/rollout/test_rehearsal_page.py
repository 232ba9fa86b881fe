from __future__ import annotations

import html
import importlib.util
import pathlib
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.events import Event
from sim.files.plan import load_plan_text
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.report.html import WITHOUT_PLOTLY
from sim.report.table import plain
from sim.rollout import outputs
from sim.rollout import outputs as plot
from sim.rollout.analysis import MetricOutcome
from sim.rollout.outputs import WITHOUT_PLOT, rehearsal_page
from sim.rollout.results import Rehearsal, StepResult, Weakness
from sim.rollout.sections import first_page, report, sections

Made = Callable[..., Rehearsal]
MIB = 1 << 20
TEXT = """\
kind: plan
name: small
node: {memory: 16MiB}
fleet: [{name: web, count: 4, memory: 1MiB}]
steps:
  - setWeight: 0
  - setWeight: 50
"""


@pytest.fixture
def found(rehearsed: Made) -> Rehearsal:
    made = rehearsed(load_plan_text(TEXT, pathlib.Path("plan.yaml")), reasons=("why",))
    on, off = ledger(4, 6, 5), ledger(4, 12)
    return replace(made, on=StoredRun(made.on.path, on, made.on.view), off=StoredRun(made.off.path, off, made.off.view))


def ledger(first: int, *second: int) -> list[Entry]:
    """Memory in MiB as sampled in the first step, and in the second."""
    told: list[Event] = [events.StepStarted(0, "tick", 1, 1), sample(first), events.StepStarted(1, "flag", 1, 1)]
    return [Entry(float(n), each, None, None) for n, each in enumerate([*told, *map(sample, second)])]


def sample(mib: int) -> events.MemorySampled:
    return events.MemorySampled((mib - 1) * MIB, MIB, 0, 0, 0)


def test_both_arms_are_drawn_over_the_steps_that_both_take(found: Rehearsal) -> None:
    off, on, budget = outputs.memory(found, 2)
    assert (off["x"], off["y"]) == ([0.0, 1.0], [4.0, 12.0])
    assert (on["x"], on["y"]) == ([0.0, 1.0, 1.5], [4.0, 6.0, 5.0])
    assert (budget["y"], budget["visible"]) == ([16.0, 16.0], True)


def test_a_way_on_which_off_is_never_obeyed_stays_at_none(found: Rehearsal) -> None:
    lines = {each["name"]: each for each in outputs.propagation(found)}
    assert lines["half-open: never"]["y"] == [0, 0]
    stream = lines["stream (assumed)"]
    assert (stream["y"][-1], stream["x"]) == (1.0, sorted(stream["x"]))


def test_the_page_without_a_plot_says_how_to_get_one(found: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WITHOUT_PLOT in rehearsal_page(found)
    monkeypatch.setattr(plot, "plot", lambda _found: None)
    assert WITHOUT_PLOTLY.partition("'")[0] in rehearsal_page(found, with_plot=True)


def test_nothing_that_is_quoted_is_markup_of_the_page_or_of_the_evidence(found: Rehearsal) -> None:
    nasty = """<script>alert("x'y")</script>|`*"""
    step = StepResult(0, "assert", nasty, 0.0, MetricOutcome.FAILED, nasty, 0.0, 0.0)
    weakness = Weakness(nasty, nasty, nasty, mended=False, shown=False)
    made = replace(found, reasons=(nasty,), conditions=(nasty,), steps=(step,), weaknesses=(weakness,))
    page, evidence = rehearsal_page(made), first_page(made)
    assert "<script" not in page + evidence
    assert html.unescape(page).count(nasty) == 7
    assert evidence.count("""&lt;script>alert("x'y")&lt;/script>\\|\\`\\*""") == 7


def test_terminal_page_and_evidence_have_the_same_sections(found: Rehearsal) -> None:
    titles = [plain(each.title) for each in sections(found) if each.content and each.title]
    assert len(titles) >= 10
    assert re.findall("<h2>(.*?)</h2>", html.unescape(rehearsal_page(found))) == titles
    assert re.findall("^## (.*)", first_page(found), re.MULTILINE) == titles
    shown = report(found, width=200).splitlines()
    assert [line for line in shown if line in titles] == titles


def test_the_terminal_is_told_it_in_eighty_columns(found: Rehearsal) -> None:
    assert max(map(len, report(found, width=80).splitlines())) <= 80


@pytest.mark.skipif(importlib.util.find_spec("plotly") is None, reason="needs the extra: snapdrill[report]")
def test_the_page_with_a_plot_loads_nothing(found: Rehearsal) -> None:
    page = rehearsal_page(found, with_plot=True)
    assert 'id="plot"' in page
    assert "<script src" not in page
