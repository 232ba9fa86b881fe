"""What a fleet file says, what it leaves to be assumed, and its mistakes."""

from __future__ import annotations

import pathlib
from fractions import Fraction

import numpy as np
import pytest

from flags.document import DocumentError
from sim.files import fleet_file
from sim.files.fleet_file import Fleet, assumptions, load, load_text
from sim.files.scenario import discover

EXAMPLE = pathlib.Path(__file__).parents[4] / "scenarios" / "fleets" / "example.yaml"
SMALLEST = """kind: fleet
name: small
node: {memory: 1GiB, sandboxes: 10}
groups:
  - {name: web, count: 25, memory: 64MiB}
"""
MISTAKEN = """kind: fleet
name: Bad
scale: 64
node: {memory: 48, sandboxes: 0, concurency: 3}
groups:
  - {name: a, count: 1.5, memory: {p50: 1GiB, p90: 1MiB}, dirty: [{value: 120%}], team_size: {p50: x}}
  - {name: b, memory: [1GiB], pauses_per_hour: {median: 3, peak: 1}}
mass_eviction: {nodes: 2}
mass_eviction: {nodes: 3%}
"""


def fleet(text: str = SMALLEST) -> Fleet:
    return load_text(text, pathlib.Path("f.yaml"))


def mistakes(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        fleet(text)
    return str(caught.value).splitlines()


def test_the_shipped_fleet_is_valid_and_is_no_scenario() -> None:
    shipped = load(EXAMPLE)
    assert (shipped.name, shipped.count, shipped.nodes, shipped.scale) == (
        "example",
        1_000_000,
        25_000,
        Fraction(1, 64),
    )
    assert EXAMPLE.read_text().startswith("# ")
    assert discover([EXAMPLE.parent]) == []


def test_nodes_are_as_many_as_the_sandboxes_need() -> None:
    assert (fleet().count, fleet().nodes) == (25, 3)


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    assert mistakes(MISTAKEN) == [
        'f.yaml:2:7: error: name: expected a short name of a-z, 0-9 and "-", got "Bad"',
        "f.yaml:3:8: error: scale: expected a scale such as 1/64, or 1, got 64",
        "f.yaml:4:16: error: node.memory: expected a size such as 32MiB, got 48",
        "f.yaml:4:31: error: node.sandboxes: expected at least 1, got 0",
        'f.yaml:4:34: error: node.concurency: unknown key; did you mean "concurrency"?',
        "f.yaml:6:22: error: groups[0].count: expected a whole number, got 1.5",
        "f.yaml:6:35: error: groups[0].memory: a percentile is smaller than one before it; give them in rising order",
        'f.yaml:6:75: error: groups[0].dirty[0].value: expected a share of at most 100%, got "120%"',
        'f.yaml:6:100: error: groups[0].team_size.p50: expected a whole number, got "x"',
        "f.yaml:7:5: error: groups[1].count: missing; it is required",
        'f.yaml:7:24: error: groups[1].memory[0]: expected a mapping, got "1GiB"',
        "f.yaml:7:66: error: groups[1].pauses_per_hour.peak: expected at least the median, 3, got 1",
        "f.yaml:8:24: error: mass_eviction.nodes: expected a share such as 40%, got 2",
        'f.yaml:9:1: error: duplicate key "mass_eviction"; the first is in line 8',
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("memory: 64MiB}", "memory: 64MiB, page_size: 2MiB}"), "give node.hugetlb the size of its pool"),
        (("memory: 64MiB}", "memory: 0MiB}"), "expected more than no memory"),
        (("memory: 64MiB}", "memory: 64MiB}\n  - {name: web, count: 1, memory: 1MiB}"), 'two groups are named "web"'),
    ],
)
def test_what_does_not_fit_together_is_refused(change: tuple[str, str], told: str) -> None:
    (line,) = mistakes(SMALLEST.replace(*change))
    assert told in line


def test_what_is_left_out_is_assumed_and_what_is_written_is_not() -> None:
    assumed = {each.label: each.value for each in assumptions(fleet(SMALLEST.replace("64MiB}", "64MiB, dirty: 5%}")))}
    assert {"web.page_size", "web.resident", "node.concurrency", "paused_for", "mass_eviction", "propagation"} <= set(
        assumed
    )
    assert not {"web.dirty", "web.memory", "node.memory", "name"} & set(assumed)
    assert assumed["web.pauses_per_hour.peak"] == "2"


def test_draws_from_percentiles_have_these_percentiles() -> None:
    memory = load(EXAMPLE).groups[0].memory
    drawn = fleet_file.at(memory, np.random.default_rng(1).random(100_000)) / 2**20
    assert np.percentile(drawn, [75, 90, 99]) == pytest.approx([832, 1024, 2048], rel=0.02)


def test_draws_from_a_list_have_its_weights() -> None:
    memory = load(EXAMPLE).groups[1].memory
    drawn = fleet_file.at(memory, np.random.default_rng(1).random(100_000))
    assert (drawn == 1 << 30).mean() == pytest.approx(0.75, abs=0.01)
    assert fleet_file.mean(memory) == pytest.approx(1.25 * 2**30)
