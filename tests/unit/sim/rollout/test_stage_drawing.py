from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from sim.files.plan import load_plan_text
from sim.rollout.decision_page import decision_page
from sim.rollout.outputs import rehearsal_page
from sim.rollout.results import Rehearsal
from sim.rollout.stage_drawing import Bar, stage_panels
from sim.rollout.stretch import Figures, PauseCost, Pools

Made = Callable[..., Rehearsal]
MIB = 1 << 20
TEXT = """\
kind: plan
name: drawn
node: {memory: 16MiB}
production: {sandboxes: 4000, pausesPerMinute: 40, nodes: 100}
fleet: [{name: web, count: 4, memory: 1MiB}]
demand: {lost_because_of_the_flag: "< 50 % at 95 %"}
steps:
  - setWeight: 0
  - setWeight: 100
"""


def peaks(mib: int, over: int, *, punched: bool) -> Figures:
    cost = PauseCost("web-0", 0, 0.0, on=punched, punched=punched, peak_over=over * MIB)
    names = ("web-0", "web-1") if punched else ()
    return Figures(pools=Pools(both=mib * MIB, samples=1), costs=(cost,), punched=names, punched_bytes=3 * MIB)


@pytest.fixture
def found(rehearsed: Made) -> Rehearsal:
    plan = load_plan_text(TEXT, pathlib.Path("plan.yaml"))
    made = rehearsed(plan, off=peaks(8, 5, punched=False), on=peaks(6, 1, punched=True))
    none = replace(made.stages[0], on=Figures(), off=Figures())
    return replace(made, stages=(none, replace(made.stages[1], saved=4 * MIB)))


def test_each_stage_has_its_exposure_its_bound_and_both_peaks(found: Rehearsal) -> None:
    exposed, bound, memory = stage_panels(found)
    assert [each.bars for each in exposed.rows] == [(Bar(0.0, "0 of 4"),), (Bar(1.0, "4 of 4"),)]
    assert bound.rows[0].bars == (Bar(None, "none punched"),)
    assert bound.rows[1].bars[0].text == "< 77.7 %, 0 lost"  # 1 - 0.05 ** (1 / 2), up
    assert (bound.marked, round(bound.mark or 0, 3)) == ("demanded < 50 % at 95 %", 0.644)
    assert [each.length for each in memory.rows[1].bars] == [1.0, 0.75]
    assert [each.text for each in memory.rows[0].bars] == ["off: not sampled", "on: not sampled"]


def test_the_page_draws_them_before_its_second_section_without_a_script(found: Rehearsal) -> None:
    page = rehearsal_page(found)
    assert "<script" not in page
    assert [page.count(each) for each in ("<svg", 'class="mark"')] == [3, 1]
    assert page.index("</svg>") < page.index("<h2>")
    assert re.findall(r'width="([0-9.]+)" height="16" class="(on|off)"', page)[-2:] == [
        ("170.0", "off"),
        ("127.5", "on"),
    ]


def test_a_rehearsal_without_a_stage_draws_nothing(found: Rehearsal) -> None:
    assert "<svg" not in rehearsal_page(replace(found, stages=()))


def test_saved_memory_is_one_line_here_at_the_peak_and_on_all_nodes(found: Rehearsal) -> None:
    (line,) = [each for each in map(str, decision_page(found)[0].content[1].items) if each.startswith("memory")]  # type: ignore[union-attr]
    assert line == (
        "memory at 100 %: 3.0 MiB came back while copies ran, all pauses added up (measured); the node's peak was "
        "8.0 MiB with the flag off and 6.0 MiB with it on (measured); the 4 largest pauses at once need 4.0 MiB less "
        "(derived); on 100 nodes that each have so many at once, 400.0 MiB less (derived)"
    )
