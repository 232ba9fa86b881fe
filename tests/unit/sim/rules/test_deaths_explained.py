"""`deaths_explained`: a guest, zygote or node that dies unasked is named, and nothing else is."""

from __future__ import annotations

import dataclasses

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.verdict import Verdict
from tests.story import Story

NAME = "deaths_explained"
KILLED = events.FaultFired(1, "copy.read", "kill-guest", 0, "kill-guest")
NODE_KILLED = events.FaultFired(1, "copy.read", "SIGKILL of the node", 0, "kill-node")
GUEST = events.ProcessDied("guest", 20, "web-0.1", "running")
UNEXPLAINED = ": no fault, step or act of the engine explains it"


def step(kind: str) -> events.StepStarted:
    return events.StepStarted(0, kind, 1, 1)


def crashed(reason: str = "web-0.1 died") -> events.StateChanged:
    return events.StateChanged("running", "killed", reason, "crashed")


def test_a_sound_run_explains_every_death(sound: Story) -> None:
    found = sound.found(NAME)
    assert (found.verdict, found.checked) == (Verdict.HELD, 4)  # two guests, the node and its zygote


def test_a_guest_that_dies_while_idle_is_named_once_with_time_pid_and_state(story: Story) -> None:
    at = len(story.entries)
    found = story.tell(GUEST).tell(crashed()).end().found(NAME)
    (missing,) = found.missing
    assert found.verdict is Verdict.INCONCLUSIVE
    assert missing == {
        "sandbox": "web-0",
        "reason": f"the guest web-0.1 (pid 20) died {at:.3f} s into the run while its sandbox was running{UNEXPLAINED}",
        "incarnation": "web-0.1",
        "pid": 20,
        "state": "running",
        "t": float(at),
    }


def test_a_guest_that_was_killed_as_it_did_not_answer_is_named(ledger: Story) -> None:
    (reason,) = ledger.tell(dataclasses.replace(GUEST, code="silent")).end().missing(NAME)
    assert "(pid 20) did not answer and was killed" in reason


def test_a_zygote_is_named(ledger: Story) -> None:
    (reason,) = ledger.tell(events.ProcessDied("zygote", 11), None).end().missing(NAME)
    at = len(ledger.entries) - 2
    assert reason == f"the zygote (pid 11) died {at:.3f} s into the run{UNEXPLAINED}"


@pytest.mark.parametrize(
    "found_dead",
    [copying.GuestLooked("condemn", None, "dead"), events.GuestThawed("web-0.1", code="dead")],
    ids=["looked", "thawed"],
)
def test_a_guest_that_a_pause_found_dead_is_named(ledger: Story, found_dead: Event) -> None:
    (reason,) = ledger.begin_pause().tell(found_dead, pause="web-0.p1").end().missing(NAME)
    assert reason.startswith("the guest web-0.1 (pid 20) was found dead ")
    assert "while its sandbox was pausing" in reason


def test_a_guest_that_ran_is_another_rules_matter(ledger: Story) -> None:
    ran = copying.GuestLooked("condemn", {}, "ran")
    assert ledger.begin_pause().tell(ran, pause="web-0.p1").end().missing(NAME) == []


def test_an_old_ledger_that_only_says_that_the_guest_was_gone_is_believed(ledger: Story) -> None:
    (reason,) = ledger.tell(crashed()).end().missing(NAME)
    assert reason.startswith("the guest web-0.1 (pid 20) was found dead ")


def test_a_fault_that_kills_the_guest_explains_its_death_and_not_that_of_the_next_one(ledger: Story) -> None:
    ledger.begin_pause().tell(KILLED, pause="web-0.p1")
    ledger.tell(copying.GuestLooked("condemn", None, "dead"), pause="web-0.p1").tell(crashed())
    assert ledger.found(NAME).missing == []
    ledger.spawn("web-0.2").tell(crashed())
    (reason,) = ledger.end().missing(NAME)
    assert "web-0.2" in reason


def test_a_fault_explains_deaths_of_its_own_sandbox_alone() -> None:
    story = Story().begin("web-0", "web-1").tell(KILLED, "web-1").tell(crashed(), "web-0").end()
    (missing,) = story.found(NAME).missing
    assert missing["sandbox"] == "web-0"


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (NODE_KILLED, events.NodeCrashed(10, asked=False)),
        (step("wait"), events.NodeCrashed(10, asked=True)),
        (step("crash"), events.NodeCrashed(10)),
        (step("restart"), events.NodeCrashed(10)),
    ],
    ids=["fault", "asked", "old crash", "old restart"],
)
def test_a_node_that_was_to_die_is_explained(ledger: Story, before: Event, event: Event) -> None:
    assert ledger.tell(before, None).tell(event, None).end().found(NAME).verdict is Verdict.HELD


@pytest.mark.parametrize("asked", [False, None])
def test_a_node_that_was_killed_from_outside_is_named(ledger: Story, asked: bool | None) -> None:
    ledger.tell(step("pause"), None).tell(events.NodeCrashed(10, asked), None)
    (reason,) = ledger.end().missing(NAME)
    assert reason.startswith("the node (pid 10) died ")


def test_a_fault_explains_one_death_of_the_node(ledger: Story) -> None:
    ledger.tell(NODE_KILLED, None).tell(events.NodeCrashed(10, asked=False), None)
    ledger.tell(events.NodeStarted(12, 1, 11, 1, recovered=True), None)
    ledger.tell(events.NodeCrashed(12, asked=False), None)
    (reason,) = ledger.end().missing(NAME)
    assert "(pid 12)" in reason


def test_every_kind_of_death_is_named_when_several_die(ledger: Story) -> None:
    ledger.tell(GUEST).tell(events.ProcessDied("zygote", 11), None).tell(events.NodeCrashed(10, asked=False), None)
    assert [each.get("pid") for each in ledger.end().findings()[NAME].missing] == [20, 11, 10]


def test_a_death_is_named_once_also_when_another_one_comes_between() -> None:
    other = events.ProcessDied("guest", 21, "web-1.1", "running")
    story = Story().begin("web-0", "web-1").tell(GUEST).tell(other, "web-1").tell(crashed()).end()
    assert [each["incarnation"] for each in story.found(NAME).missing] == ["web-0.1", "web-1.1"]


def test_a_node_that_no_event_says_was_started_may_be_killed_from_outside_too() -> None:
    (missing,) = Story().tell(events.NodeCrashed(10, asked=False), None).found(NAME).missing
    assert (missing["pid"], missing["t"], missing["sandbox"]) == (10, 0.0, "*")


@pytest.mark.parametrize(
    ("kind", "error", "explained"),
    [
        ("kill-node", "", "node"),
        (None, "SIGKILL of the node", "node"),
        ("kill-guest", "", "guest"),
        (None, "EIO", ""),
        ("errno", "SIGKILL of the node", ""),
    ],
)
def test_a_fault_explains_what_its_kind_kills_and_its_words_do_only_where_it_has_none(
    ledger: Story, kind: str | None, error: str, explained: str
) -> None:
    ledger.begin_pause().tell(events.FaultFired(1, "copy.read", error, 0, kind), pause="web-0.p1")
    ledger.tell(copying.GuestLooked("condemn", None, "dead"), pause="web-0.p1")
    ledger.tell(events.NodeCrashed(10, asked=False), None)
    missing = ledger.found(NAME).missing
    assert [each["pid"] for each in missing] == [
        pid for pid, name in ((20, "guest"), (10, "node")) if name != explained
    ]
    for each in missing:
        assert each["t"] == float(len(ledger.entries) - (1 if each["pid"] == 10 else 2))
        assert each.get("pause") == ("web-0.p1" if each["pid"] == 20 else None)
