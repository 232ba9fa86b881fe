"""The catalogue of fault points: complete, documented, and one way to say what a fault gives."""

from __future__ import annotations

from typing import get_args

import pytest

from sim.files.faults import (
    CATALOGUE,
    CRASH,
    KINDS,
    AtChunk,
    FaultPoint,
    Kind,
    Place,
    delay_of,
    describe_place,
    hang_of,
    in_words_of_delay,
    in_words_of_hang,
    kind_of,
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
    assert {spec.point for spec in CATALOGUE.values() if "cancel" not in spec.kinds} == {"guest.spawn", "resume.read"}
    assert {spec.point for spec in CATALOGUE.values() if spec.of_resume} == {"guest.spawn", "resume.read"}


def test_only_a_guest_that_is_there_can_be_killed() -> None:
    assert [spec.point for spec in CATALOGUE.values() if "kill-guest" not in spec.kinds] == ["guest.spawn"]


def test_the_points_of_a_chunk_are_those_of_the_chunk_pipeline() -> None:
    assert [p for p, spec in CATALOGUE.items() if spec.chunked] == ["copy.read", "copy.write", "publish", "punch"]
    assert points_by_kernel() == ("copy.read", "copy.write", "punch")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ENOSPC", "errno"),
        ("delay 300 ms", "delay"),
        ("hang 2000 ms", "hang"),
        ("short", "short"),
        ("corrupt", "corrupt"),
        ("cancel", "cancel"),
        ("kill-guest", "kill-guest"),
        (CRASH, "kill-node"),
    ],
)
def test_a_fault_s_error_says_its_kind(error: str, kind: Kind) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize("seconds", [0.001, 0.3, 2.0, 59.999, 3600.0, 1_000_000.0])
def test_how_long_a_fault_takes_is_read_back_from_its_words(seconds: float) -> None:
    assert delay_of(in_words_of_delay(seconds)) == pytest.approx(seconds)
    assert hang_of(in_words_of_hang(seconds)) == pytest.approx(seconds)
    assert delay_of(in_words_of_hang(seconds)) is None
    assert hang_of(in_words_of_delay(seconds)) is None


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
