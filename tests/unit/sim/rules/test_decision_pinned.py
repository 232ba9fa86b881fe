"""`decision_pinned`: what a pause did is what its one decision says."""

from __future__ import annotations

from typing import Any

import pytest

from engine import events as copying
from engine import plan as plans
from engine.plan import PunchCode
from sim.record import events
from sim.record.verdict import Verdict
from tests.story import MIB, Story, decided, planned

NAME = "decision_pinned"
PUNCH, BACKGROUND = "memfd-punch-on-snapshot", "memfd-background-copy"
SEALED = "the memfd is sealed against writing, so the kernel refuses to punch it"


def acted(story: Story, **settled: Any) -> Story:
    """The pause that was decided, settled so."""
    return story.freeze().settle(**settled)


@pytest.mark.parametrize("punch", [False, True])
@pytest.mark.parametrize(("background", "path"), [(False, "memfd"), (True, "memfd-background")])
def test_a_pause_that_did_what_was_decided_is_right_whatever_the_flag_is_now(
    story: Story, punch: bool, background: bool, path: str
) -> None:
    story.tell(decided(punch=punch, background=background), pause="web-0.p1")
    story.tell(events.FlagSet(PUNCH, not punch), None).tell(events.FlagSet(BACKGROUND, not background), None)
    found = acted(story, path=path, punch=punch, punched_bytes=4096 if punch else 0).found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_bytes_freed_against_the_decision_are_caught(story: Story) -> None:
    story.tell(decided(punch=False), pause="web-0.p1")
    (found,) = acted(story, punch=False, punched_bytes=4096).found(NAME).violations
    assert found["reason"] == "4096 bytes were freed, and the decision was not to punch"
    assert (found["pause"], found["incarnation"]) == ("web-0.p1", "web-0.1")


def test_bytes_that_were_not_freed_although_they_might_be_are_no_contradiction(story: Story) -> None:
    story.tell(decided(), pause="web-0.p1")
    assert acted(story, punched_bytes=0, outcome="rolled-back").reasons(NAME) == []


@pytest.mark.parametrize(
    ("background", "path"),
    [(True, "memfd"), (False, "memfd-background"), (False, "dedup"), (False, "in-place"), (False, "process")],
)
def test_a_path_against_the_decision_is_caught(story: Story, background: bool, path: str) -> None:
    story.tell(decided(background=background), pause="web-0.p1")
    assert acted(story, path=path).reasons(NAME) == [f"the path was {path}, which is not what the flags said"]


@pytest.mark.parametrize(
    ("decision", "path"),
    [({"background": True}, "memfd"), ({"memfile_diff_dedup": {"enabled": True}}, "memfd"),
     ({"memfile_diff_dedup": {"enabled": True}}, "in-place")],
)  # fmt: skip
def test_an_engine_that_reads_the_flags_wrong_is_caught_though_the_rules_are_its_own(
    story: Story, monkeypatch: pytest.MonkeyPatch, decision: dict[str, Any], path: str
) -> None:
    def path_of(*_: object) -> plans.Path:
        return plans.Path(path)

    monkeypatch.setattr(plans, "path_of", path_of)
    story.tell(decided(punch=False, **decision), pause="web-0.p1")
    assert acted(story, path=path, punch=False).reasons(NAME) == [
        f"the path was {path}, which is not what the flags said"
    ]


def test_a_pause_that_asked_twice_is_caught(story: Story) -> None:
    story.begin_pause().tell(decided(), pause="web-0.p1")
    assert story.reasons(NAME) == ["the pause has 2 decisions, not one"]


def test_a_pause_that_never_asked_is_caught_where_every_decision_is_recorded_else_lacks_evidence(story: Story) -> None:
    blind = story.pause().end().without(events.Decided)
    if story.reality is not None:
        assert blind.reasons(NAME) == ["the pause has 0 decisions, not one"]
        return
    assert blind.reasons(NAME) == []
    assert blind.missing(NAME) == ["missing evidence: no `decided` event says what the flags said for web-0.p1"]


def test_an_evaluation_that_says_other_than_the_decision_is_caught(story: Story) -> None:
    punching = {"feature_flag.key": PUNCH, "feature_flag.result.value": True}
    assert story.pause().changed(events.Decided, evaluations=[punching]).reasons(NAME) == []
    other = story.changed(events.Decided, evaluations=[{**punching, "feature_flag.result.value": False}])
    assert other.reasons(NAME) == ["memfd-punch-on-snapshot was decided true, and its evaluation says false"]


def test_a_guest_that_gave_no_memfd_goes_by_its_process(story: Story) -> None:
    story.entries.clear()
    story.begin(use_memfd=False).tell(decided(), pause="web-0.p1")
    story.tell(planned(path="process", punch=False, punch_code="no-memfd"), pause="web-0.p1")
    assert story.found(NAME).verdict is Verdict.HELD
    story.tell(planned(path="process"), pause="web-0.p1")
    assert story.reasons(NAME) == ["it was to punch, and there is no memfd to punch"]


def test_a_plan_to_punch_that_the_decision_does_not_give_is_caught(story: Story) -> None:
    story.tell(decided(punch=False), pause="web-0.p1")
    assert acted(story, punched_bytes=0).reasons(NAME) == ["it was to punch, and memfd-punch-on-snapshot is off"]


@pytest.mark.parametrize("code", [each for each in PunchCode if each is not PunchCode.SEALED])
def test_a_plan_not_to_punch_is_caught_whatever_its_reason_but_a_seal(story: Story, code: PunchCode) -> None:
    story.tell(decided(), pause="web-0.p1")
    acted(story, punch=False, punch_code=code.value, punch_reason="its fate is sealed")
    assert story.reasons(NAME) == ["the decision was to punch, and the plan was not to: its fate is sealed"]


@pytest.mark.parametrize(
    "told",
    [{"punch_code": "sealed", "punch_reason": "as you like it"}, {"punch_code": None, "punch_reason": SEALED}],
    ids=["by its code", "by the sentence of a ledger from before there were codes"],
)
def test_a_sealed_memfd_is_a_reason_not_to_punch(story: Story, told: dict[str, Any]) -> None:
    story.tell(decided(), pause="web-0.p1").tell(events.FlagSet(PUNCH, False), None)
    found = acted(story, punch=False, **told).end().found(NAME)
    assert (found.checked, found.verdict) == (1, Verdict.HELD)


def test_a_reason_that_only_says_sealed_excuses_nothing(story: Story) -> None:
    story.tell(decided(), pause="web-0.p1")
    acted(story, punch=False, punch_code=None, punch_reason="the fate of this guest is sealed").end()
    assert story.found(NAME).verdict is Verdict.INCONCLUSIVE
    assert story.missing(NAME) == [
        "missing evidence: the plan was not to punch, and no code says why: the fate of this guest is sealed"
    ]


@pytest.mark.parametrize(
    ("punch", "left", "found"),
    [
        (False, 2 * MIB, ["6291456 bytes were freed from the guest, which was not to be punched"]),
        (False, 8 * MIB - 1, ["1 bytes were freed from the guest, which was not to be punched"]),
        (False, 8 * MIB, []),
        (True, 2 * MIB, []),
    ],
    ids=["freed unasked", "a byte", "whole", "freed as decided"],
)
def test_what_the_kernel_freed_is_seen_whatever_the_pause_says_of_itself(
    story: Story, punch: bool, left: int, found: list[str]
) -> None:
    story.tell(decided(punch=punch), pause="web-0.p1").scan().publish(0).publish(1, resident=left)
    assert acted(story, punch=punch, punched_bytes=0).reasons(NAME) == found


def test_memory_that_no_kernel_account_covers_was_not_seen_to_go(story: Story) -> None:
    story.tell(decided(punch=False), pause="web-0.p1").scan(resident=None).publish(0, resident=None)
    assert acted(story, punch=False).reasons(NAME) == []


def test_a_refused_pause_decided_and_did_nothing_else(story: Story) -> None:
    story.tell(decided(), pause="web-0.p1").tell(events.FlagSet(PUNCH, False), None)
    story.tell(events.PauseSettled("refused", "web-0.p1"), pause="web-0.p1").end()
    found = story.found(NAME)
    assert (found.checked, found.verdict) == (1, Verdict.HELD)


@pytest.mark.parametrize("moment", ["before", "after", "the same value", "never"])
def test_a_pause_in_whose_window_no_flag_changed_exercises_nothing(story: Story, moment: str) -> None:
    """It would read the same twice; its violations count all the same."""
    flip = events.FlagSet(PUNCH, False)
    story.tell(events.FlagSet(PUNCH, True), None)
    if moment == "before":
        story.tell(flip, None).tell(events.FlagSet(PUNCH, True), None)
    story.tell(decided(), pause="web-0.p1")
    if moment == "the same value":
        story.tell(events.FlagSet(PUNCH, True), None)
    acted(story)
    if moment == "after":
        story.tell(flip, None)
    assert story.found(NAME).checked == 0
    story.entries = story.changed(events.PauseSettled, path="in-place").entries
    assert len(story.found(NAME).violations) == 1


def test_a_rollout_that_grows_in_mid_pause_exercises_it(story: Story) -> None:
    story.tell(events.FlagSet(PUNCH, {"rollout": "10%", "by": "sandbox"}), None)
    story.tell(decided(), pause="web-0.p1")
    story.tell(events.FlagSet(PUNCH, {"rollout": "50%", "by": "sandbox"}), None)
    assert acted(story).found(NAME).checked == 1


def test_a_pause_that_only_has_begun_is_not_judged(story: Story) -> None:
    story.freeze().tell(copying.Condemned("web-0.p1"), pause="web-0.p1")
    assert story.found(NAME).checked == 0


CHECKPOINT: dict[str, Any] = {"checkpoint": True, "punch": False, "punched_bytes": 0, "condemned": False}


@pytest.mark.parametrize("sync_wp", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("consumed", [False, True])
def test_a_checkpoint_is_in_place_exactly_where_both_of_its_flags_say_so(
    sync_wp: bool, in_place: bool, consumed: bool
) -> None:
    story = (
        Story().begin(use_sync_wp=sync_wp).tell(decided(punch=False, in_place_checkpoint=in_place), pause="web-0.p1")
    )
    found = acted(story, **CHECKPOINT, consumed=consumed, path="memfd" if consumed else "in-place").reasons(NAME)
    said = "in place" if sync_wp and in_place else "with a new guest"
    was = "consumed" if consumed else "borrowed"
    wrong = [f"the checkpoint's memory was {was}, and the flags said {said}"]
    assert found == (wrong if consumed is (sync_wp and in_place) else [])


@pytest.mark.parametrize("event", [copying.Condemned("web-0.p1"), copying.GuestKilled(), copying.ChunkPunched(0, 1)])
def test_a_checkpoint_recorded_as_in_place_whose_guest_was_given_up_is_caught(event: copying.Event) -> None:
    story = Story().begin(use_sync_wp=True).tell(decided(punch=False, in_place_checkpoint=True), pause="web-0.p1")
    story.freeze().tell(event, pause="web-0.p1")
    found = story.settle(**CHECKPOINT, consumed=False, path="in-place").reasons(NAME)
    assert "the checkpoint is recorded as in place, and its guest was given up" in found


def test_in_an_older_ledger_every_checkpoint_was_in_place() -> None:
    story = Story().begin().tell(decided(), pause="web-0.p1")
    assert acted(story, **CHECKPOINT, path="in-place").reasons(NAME) == []


def test_a_checkpoint_in_place_that_a_crash_cut_off_is_no_pause_on_the_wrong_path() -> None:
    story = Story().begin(use_sync_wp=True).tell(decided(punch=False, in_place_checkpoint=True), pause="web-0.p1")
    story.freeze().scan().tell(planned(punch=False, path="in-place"), pause="web-0.p1")
    story.tell(events.NodeCrashed(10), None)
    assert story.reasons(NAME) == []
    as_pause = story.settle(punch=False, punched_bytes=0, path="in-place")
    assert as_pause.reasons(NAME) == ["the path was in-place, which is not what the flags said"]


@pytest.mark.parametrize(
    ("before", "within", "exercised"),
    [([], [True], 0), ([], [False], 1), ([True], [True], 0), ([False], [False], 0), ([True], [False], 1),
     ([True, False], [False], 0), ([False, True], [False], 1)],
)  # fmt: skip
def test_a_flag_that_is_set_to_what_it_was_has_not_changed(
    story: Story, before: list[bool], within: list[bool], exercised: int
) -> None:
    """The decision was to punch; what was set before it counts where there is such a line."""
    for value in before:
        story.tell(events.FlagSet(PUNCH, value), None)
    story.begin_pause()
    for value in within:
        story.tell(events.FlagSet(PUNCH, value), None)
    assert story.copy().finish().found(NAME).checked == exercised


@pytest.mark.parametrize(("path", "code"), [("memfd", "legal"), ("process", "no-memfd")])
def test_where_no_line_says_what_a_guest_was_started_with_either_is_plausible(
    ledger: Story, path: str, code: str
) -> None:
    punch = code == "legal"
    ledger.tell(decided(), pause="web-0.p1")
    ledger.tell(planned(path=path, punch=punch, punch_code=code), pause="web-0.p1").settle(path=path, punch=punch)
    assert (ledger.reasons(NAME) == []) == punch  # it was started with one
    assert ledger.without(events.GuestSpawned).reasons(NAME) == []
