from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from sim.files.plan import Plan, load_plan_text
from sim.rollout.production import Way, ways
from sim.rollout.results import Rehearsal
from sim.rollout.sections import first_page, report

Made = Callable[..., Rehearsal]
TEXT = """\
kind: plan
name: small
production: {sandboxes: 1000, pausesPerMinute: 600}
propagation: {measured: [1s, 2s]}
fleet: [{name: web, count: 4, memory: 1MiB}]
steps:
  - setWeight: 0
  - setWeight: 50
"""


def plan_of(text: str = TEXT) -> Plan:
    return load_plan_text(text, pathlib.Path("plan.yaml"))


def by_name(found: Rehearsal) -> dict[str, Way]:
    return {each.name: each for each in ways(found)}


def test_each_way_says_what_its_figures_rest_on(rehearsed: Made) -> None:
    found = by_name(rehearsed(plan_of()))
    assert {name: each.known for name, each in found.items()} == {
        "stream": "measured",
        "file": "derived",
        "half-open": "given",
        "half-open, leased": "derived",
    }
    assert "lease 1.5s assumed" in found["half-open, leased"].note


def test_half_open_without_a_lease_off_is_never_obeyed(rehearsed: Made) -> None:
    made = rehearsed(plan_of())
    assert by_name(made)["half-open"].seconds is None
    assert "every exposed sandbox is punched" in by_name(made)["half-open"].note
    (line,) = [each for each in report(made, width=120).splitlines() if each.startswith("  half-open  ")]
    assert line.split()[1:5] == ["never"] * 4
    assert "\n| half-open | never | never | never | never |" in first_page(made)


def test_with_a_lease_it_lasts_no_longer_than_the_lease(rehearsed: Made) -> None:
    text = TEXT.replace("fleet:", "time: real\nlease: 2s\nflags: {source: relay}\nfleet:")
    found = by_name(rehearsed(plan_of(text), kill_switch_ms=(1.0, 3.0)))
    leased, loopback = found["half-open, leased"], found["stream, loopback"]
    assert leased.seconds == (2.0, 2.0, 2.0, 2.0)
    assert "lease 2s given" in leased.note
    assert (loopback.seconds, loopback.known) == ((0.001, 0.003, 0.003, 0.003), "measured")


def test_the_last_of_many_nodes_is_a_way_of_its_own_and_unknown_without_most(rehearsed: Made) -> None:
    text = TEXT.replace("pausesPerMinute: 600}", "pausesPerMinute: 600, nodes: 1008}")
    given = text.replace("{measured: [1s, 2s]}", "{p50: 200ms, p95: 1s, p99: 5s, most: 30s}")
    last = by_name(rehearsed(plan_of(given)))["stream, last node"]
    assert last.seconds is not None
    assert last.seconds[0] == pytest.approx(28.28, abs=0.01)
    unknown = rehearsed(plan_of(given.replace(", most: 30s", "")))
    assert by_name(unknown)["stream, last node"].seconds == (None,) * 4
    (line,) = [each for each in report(unknown, width=120).splitlines() if each.startswith("  stream, last node")]
    assert line.split()[3:7] == ["unknown"] * 4


def test_a_rehearsal_of_nothing_has_no_way_to_tell_of(rehearsed: Made) -> None:
    made = replace(rehearsed(plan_of()), stages=())
    assert ways(made) == []
    assert "OFF is obeyed after" not in report(made)
