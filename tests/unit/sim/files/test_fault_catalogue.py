"""The catalogue of fault points: complete, documented, and one way to say what a fault gives."""

from __future__ import annotations

from typing import get_args

import pytest

from sim.files.faults import (
    CATALOGUE,
    KILL_NODE,
    KINDS,
    AtChunk,
    FaultPoint,
    Harm,
    Kind,
    Place,
    describe_place,
    failing,
    points_by_kernel,
    points_with,
)


def test_every_point_and_every_kind_is_in_the_catalogue_once_with_a_sentence() -> None:
    assert tuple(CATALOGUE) == get_args(FaultPoint)
    assert tuple(KINDS) == get_args(Kind)
    sentences = [spec.sentence for spec in CATALOGUE.values()] + list(KINDS.values())
    assert all(each.endswith(".") and each[0].isupper() for each in sentences)
    assert len(set(sentences)) == len(sentences)


def test_every_point_can_fail_take_time_hang_and_see_the_node_die() -> None:
    for spec in CATALOGUE.values():
        assert {"errno", "delay", "hang", "kill-node"} <= set(spec.kinds)
        assert len(set(spec.kinds)) == len(spec.kinds)


def test_bytes_can_be_cut_short_or_flipped_only_where_bytes_are_moved() -> None:
    assert points_with("short") == ("copy.read", "copy.write", "header.write", "resume.read")
    assert points_with("corrupt") == ("copy.write", "header.write", "resume.read")


def test_only_a_pause_has_a_caller_that_cancels_it() -> None:
    without = {spec.point for spec in CATALOGUE.values() if "cancel" not in spec.kinds}
    assert without == {"death", "guest.spawn", "resume.read"}
    assert {spec.point for spec in CATALOGUE.values() if spec.of_resume} == {"guest.spawn", "resume.read"}


def test_only_a_guest_that_is_there_can_be_killed() -> None:
    assert [spec.point for spec in CATALOGUE.values() if "kill-guest" not in spec.kinds] == ["death", "guest.spawn"]


def test_only_a_frozen_guest_is_woken_and_only_a_running_one_frees_pages_or_has_a_child_that_writes() -> None:
    pause = set(points_with("cancel"))
    assert set(points_with("wake-guest")) == pause - {"freeze"}
    assert points_with("trace-guest") == ("scan", "copy.read", "condemn", "finish", "teardown")
    assert points_with("free-pages") == points_with("second-writer") == ("freeze",)


def test_the_points_of_a_chunk_are_those_of_the_chunk_pipeline() -> None:
    assert [p for p, spec in CATALOGUE.items() if spec.chunked] == ["copy.read", "copy.write", "publish", "punch"]
    assert points_by_kernel() == ("copy.read", "copy.write", "punch")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (failing("ENOSPC"), "ENOSPC"),
        (Harm("delay", seconds=0.3), "delay 300 ms"),
        (Harm("hang", seconds=1_000_000.0), "hang 1000000000 ms"),
        (Harm("corrupt"), "corrupt"),
        (KILL_NODE, "SIGKILL of the node"),
    ],
)
def test_what_a_fault_does_is_said_in_few_words(harm: Harm, error: str) -> None:
    assert harm.error == error


@pytest.mark.parametrize(
    ("point", "place", "nth", "words"),
    [
        ("copy.write", AtChunk(3), None, "chunk 3"),
        ("copy.write", "last", 2, "last of pause 2"),
        ("condemn", "first", None, "every pause"),
        ("condemn", "first", 3, "pause 3"),
        ("resume.read", "first", None, "every resume"),
        ("guest.spawn", "first", 2, "incarnation 2"),
    ],
)
def test_a_ledger_tells_where_a_fault_waits(point: FaultPoint, place: Place, nth: int | None, words: str) -> None:
    assert describe_place(point, place, nth) == words
