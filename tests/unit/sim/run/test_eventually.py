"""`eventually`: ticks pass until it holds, never more than were given, and not where the node is down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flags.document import DocumentError
from sim.files.scenario import Scenario, load_text
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.rules import RULES
from sim.rules.finding import Finding, Reason
from sim.run.judging import HELD, INCONCLUSIVE, VIOLATED, judge_expectations, judged
from sim.run.runner import Awaited, await_all, awaited_at_the_end

SCENARIO = """\
name: later
fleet:
  - {name: web, memory: 4MiB}
steps:
  - tick: 1
expect:
"""


def scenario(*expect: str) -> Scenario:
    return load_text(SCENARIO + "".join(f"  - {each}\n" for each in expect), Path("later.yaml"))


class Clock:
    """Counts the ticks, and says what holds when."""

    def __init__(self, *, up: bool = True) -> None:
        self.ticks = 0
        self.up = up

    async def tick(self) -> bool:
        self.ticks += self.up
        return self.up

    def holding_at(self, *ticks: int) -> Awaited:
        return Awaited(lambda: self.look(self.ticks in ticks), within=5)

    def look(self, held: bool) -> events.Judged:
        reasons = [] if held else [{"sandbox": "*", "reason": "not yet"}]
        return judged("state:*", HELD if held else VIOLATED, 1, (1, 1), reasons)

    def outcome(self, *awaited: Awaited) -> list[str]:
        found = asyncio.run(await_all(dict(enumerate(awaited)), self.tick))
        self.found = found
        return [found[index].verdict for index in range(len(awaited))]


def test_what_holds_at_once_takes_no_tick() -> None:
    clock = Clock()
    assert (clock.outcome(clock.holding_at(0)), clock.ticks) == ([HELD], 0)


def test_it_holds_at_the_first_that_holds_whatever_comes_later() -> None:
    clock = Clock()
    assert (clock.outcome(clock.holding_at(2), clock.holding_at(4)), clock.ticks) == ([HELD, HELD], 4)


@pytest.mark.parametrize(("at", "verdict"), [(5, HELD), (6, VIOLATED)])
def test_it_has_as_many_ticks_as_were_given_and_no_more(at: int, verdict: str) -> None:
    clock = Clock()
    assert (clock.outcome(clock.holding_at(at)), clock.ticks) == ([verdict], 5)


def test_what_never_held_says_how_long_it_was_awaited() -> None:
    clock = Clock()
    clock.outcome(clock.holding_at())
    assert [each["reason"] for each in clock.found[0].violations] == ["not yet (after 5 ticks)"]


def test_where_nothing_ticks_it_is_judged_as_it_stands() -> None:
    clock = Clock(up=False)
    assert (clock.outcome(clock.holding_at(3)), clock.ticks) == ([VIOLATED], 0)


# -- the final list


@pytest.fixture
def fold() -> Fold:
    made = Fold()
    made.apply([Entry(0.0, events.SandboxCreated(4 << 20, 4096, 4096, "base", "default", "local"), "web-0", None)])
    return made


def state(fold: Fold, old: str, new: str) -> None:
    fold.apply([Entry(1.0, events.StateChanged(old, new, "told"), "web-0", None)])


def looks(made: Scenario, findings: dict[str, Finding], view: View) -> dict[int, str]:
    awaited = awaited_at_the_end(made, lambda: findings, lambda: view, whole_fleet=True)
    return {index: each.look().verdict for index, each in awaited.items()}


def test_each_kind_of_expectation_may_be_awaited(fold: Fold) -> None:
    made = scenario(
        "{state: running, eventually: {within: 3}}",
        "{metric: pauses, min: 1, eventually: {within: 3}}",
        "{invariant: peak_bounded, eventually: {within: 3}}",
        "{verdict: violated, invariant: no_leaks, eventually: {within: 3}}",
        "{state: paused}",
    )
    findings = {name: Finding() for name in RULES}
    state(fold, "created", "paused")
    assert looks(made, findings, fold.view()) == {0: VIOLATED, 1: VIOLATED, 2: INCONCLUSIVE, 3: INCONCLUSIVE}
    state(fold, "paused", "running")
    findings["peak_bounded"].checked = 1
    findings["no_leaks"].violated("web-0", Reason("x", "an fd is left"))
    assert looks(made, findings, fold.view()) == {0: HELD, 1: VIOLATED, 2: HELD, 3: HELD}


def test_what_was_awaited_is_not_judged_a_second_time(fold: Fold) -> None:
    made = scenario("{state: running, eventually: {within: 3}}", "{state: paused}", "{invariant: no_leaks}")
    state(fold, "created", "paused")
    settled = judged("state:*", HELD, 1, (1, 1), [])
    found = judge_expectations(made, fold.view(), whole_fleet=True, settled={0: settled})
    assert [each.verdict for each in found] == [HELD, HELD]


@pytest.mark.parametrize("within", ["0", "3s", "-1", "1.5"])
def test_ticks_are_a_whole_number_from_one(within: str) -> None:
    with pytest.raises(DocumentError, match=r"expect\[0\]\.eventually\.within"):
        scenario(f"{{state: running, eventually: {{within: {within}}}}}")
