"""`decision_pinned`: what a pause did is what its one decision says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine import plan as plans
from engine.events import ChunkPublished, Scanned
from sim.record import events
from sim.rules.decision_pinned import DecisionPinned

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Scene

PUNCH, BACKGROUND, DEDUP = "memfd-punch-on-snapshot", "memfd-background-copy", "memfile-diff-dedup"


def decided(scene: Scene, *, punch: bool, background: bool = False) -> None:
    flags = {PUNCH: {"value": punch, "version": 3}, BACKGROUND: {"value": background, "version": 1}}
    scene.tell(events.Decided(flags), "web-0", "web-0.p1")


def judged(scene: Scene, **settled: Any) -> DecisionPinned:
    scene.freeze()
    scene.settle(**settled)
    checker = DecisionPinned()
    for _ in range(2):
        checker.observe(scene.evidence())
    checker.conclude(scene.evidence())
    return checker


def reasons(checker: DecisionPinned) -> list[str]:
    return [each["reason"] for each in checker.violations]


@pytest.mark.parametrize("punch", [False, True])
@pytest.mark.parametrize(("background", "path"), [(False, "memfd"), (True, "memfd-background")])
def test_a_pause_that_did_what_was_decided_is_right_whatever_the_flag_is_now(
    scene: Scene, punch: bool, background: bool, path: str
) -> None:
    decided(scene, punch=punch, background=background)
    scene.tell(events.FlagSet(PUNCH, not punch), None)
    scene.tell(events.FlagSet(BACKGROUND, not background), None)
    checker = judged(scene, path=path, punch=punch, punched_bytes=4096 if punch else 0)
    assert (checker.checked, checker.violations) == (1, [])


def test_bytes_freed_against_the_decision_are_caught(scene: Scene) -> None:
    decided(scene, punch=False)
    checker = judged(scene, punched_bytes=4096)
    assert reasons(checker) == ["4096 bytes were freed, and the decision was not to punch"]
    assert (checker.violations[0]["pause"], checker.violations[0]["incarnation"]) == ("web-0.p1", "web-0.1")


def test_bytes_that_were_not_freed_although_they_might_be_are_no_contradiction(scene: Scene) -> None:
    decided(scene, punch=True)
    assert judged(scene, punched_bytes=0, outcome="rolled-back").violations == []


@pytest.mark.parametrize(("background", "path"), [(True, "memfd"), (False, "memfd-background")])
def test_a_path_against_the_decision_is_caught(scene: Scene, background: bool, path: str) -> None:
    decided(scene, punch=True, background=background)
    assert reasons(judged(scene, path=path)) == [f"the path was {path}, which is not what the flags said"]


@pytest.mark.parametrize(
    ("decision", "path"),
    [({BACKGROUND: True}, "memfd"), ({DEDUP: {"enabled": True}}, "memfd"), ({DEDUP: {"enabled": True}}, "in-place")],
)
def test_an_engine_that_reads_the_flags_wrong_is_caught_though_the_rules_are_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, decision: dict[str, Any], path: str
) -> None:
    def path_of(*_: object) -> plans.Path:
        return plans.Path(path)

    monkeypatch.setattr(plans, "path_of", path_of)
    told = {flag: {"value": value, "version": 1} for flag, value in decision.items()}
    scene.tell(events.Decided(told), "web-0", "web-0.p1")
    checker = judged(scene, path=path, punch=False, punched_bytes=0)
    assert reasons(checker) == [f"the path was {path}, which is not what the flags said"]


def test_a_pause_that_asked_twice_is_caught(scene: Scene) -> None:
    decided(scene, punch=True)
    decided(scene, punch=True)
    assert reasons(judged(scene)) == ["the pause has 2 decisions, not one"]


def test_a_pause_that_never_asked_is_caught(scene: Scene) -> None:
    checker = judged(scene, path=None, punched_bytes=0)
    assert reasons(checker) == ["the pause has 0 decisions, not one"]


@pytest.mark.parametrize(
    ("asked", "planned", "reason"),
    [
        (False, True, "it was to punch, and memfd-punch-on-snapshot is off"),
        (True, False, "the decision was to punch, and the plan was not to: because"),
    ],
)
def test_a_plan_to_punch_or_not_that_the_decision_does_not_give_is_caught(
    scene: Scene, asked: bool, planned: bool, reason: str
) -> None:
    decided(scene, punch=asked)
    checker = judged(scene, punch=planned, punch_reason="because", punched_bytes=0)
    assert reasons(checker) == [reason]


def test_a_sealed_memfd_is_a_reason_not_to_punch(scene: Scene) -> None:
    decided(scene, punch=True)
    assert judged(scene, punch=False, punch_reason="the memfd is sealed", punched_bytes=0).violations == []


def test_a_pause_under_way_is_not_judged_yet(scene: Scene) -> None:
    scene.freeze()
    checker = DecisionPinned()
    checker.observe(scene.evidence())
    assert checker.checked == 0


@pytest.mark.parametrize(
    ("punch", "left", "found"),
    [
        (False, 2 << 20, ["6291456 bytes were freed from the guest, which was not to be punched"]),
        (False, 8 << 20, []),
        (True, 2 << 20, []),
    ],
    ids=["freed unasked", "whole", "freed as decided"],
)
def test_what_the_kernel_freed_is_seen_whatever_the_pause_says_of_itself(
    scene: Scene, punch: bool, left: int, found: list[str]
) -> None:
    decided(scene, punch=punch)
    scene.tell(Scanned("none", 8 << 20, 0, 8 << 20, 0.1), "web-0", "web-0.p1")
    scene.tell(ChunkPublished(0, 1 << 20, 1 << 20, 8 << 20, 0), "web-0", "web-0.p1")
    scene.tell(ChunkPublished(1, 1 << 20, 1 << 20, left, 0), "web-0", "web-0.p1")
    assert reasons(judged(scene, punch=punch, punched_bytes=0)) == found


def test_memory_that_no_kernel_account_tells_of_was_not_seen_to_go(scene: Scene) -> None:
    decided(scene, punch=False)
    scene.tell(Scanned("none", 8 << 20, 0, None, 0.1), "web-0", "web-0.p1")
    scene.tell(ChunkPublished(0, 1 << 20, 1 << 20, None, 0), "web-0", "web-0.p1")
    assert judged(scene, punch=False, punched_bytes=0).violations == []
