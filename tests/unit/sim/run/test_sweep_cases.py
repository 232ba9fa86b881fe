from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.files.faults import CATALOGUE
from sim.run.sweep import Case, Point, cases_of, only, shard


def test_a_point_that_was_passed_again_is_one_point(points: tuple[Point, ...]) -> None:
    assert len(points) == len(set(map(str, points)))
    assert sum(each.fault == "resume.read" for each in points) == 2


def test_the_start_of_a_first_incarnation_and_the_epilogue_are_not_swept(points: tuple[Point, ...]) -> None:
    assert {(each.fault, each.nth) for each in points if each.of_resume} == {("guest.spawn", 2), ("resume.read", 2)}
    assert max(each.step for each in points) == 4


def test_every_point_has_every_kind_that_the_catalogue_allows(points: tuple[Point, ...], cases: list[Case]) -> None:
    assert {each.name for each in cases} == {f"{p}/{kind}" for p in points for kind in CATALOGUE[p.fault].kinds}
    assert len(cases) == sum(len(CATALOGUE[each.fault].kinds) for each in points)


def test_a_case_is_named_for_the_pause_the_point_the_chunk_and_the_kind(cases: list[Case]) -> None:
    names = {each.name for each in cases}
    assert {"web-0.p1/copy.write/1/errno", "web-1.p1/freeze/cancel", "web-0.i2/resume.read/corrupt"} <= names


def test_a_short_budget_covers_every_point_and_kind_before_any_of_them_again(cases: list[Case]) -> None:
    groups = {(each.point.fault, each.kind) for each in cases}
    first = cases[: len(groups)]
    assert {(each.point.fault, each.kind) for each in first} == groups


def test_later_chunks_come_after_the_first_ones(cases: list[Case]) -> None:
    chunks = [each.point.chunk for each in cases if (each.point.fault, each.kind) == ("copy.write", "errno")]
    assert chunks == sorted(chunks, key=lambda each: each or 0)
    assert chunks[-1] == 1


def test_the_order_does_not_depend_on_the_trace(points: tuple[Point, ...], cases: list[Case]) -> None:
    assert cases_of(reversed(points)) == cases


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("copy.write/*", lambda each: each.point.fault == "copy.write"),
        ("*/kill-node", lambda each: each.kind == "kill-node"),
        ("kill-node", lambda each: each.kind == "kill-node"),
        ("web-0.*", lambda each: each.point.sandbox == "web-0"),
        ("web-0.p1/copy.write/1/errno", lambda each: each.name == "web-0.p1/copy.write/1/errno"),
        ("write/*", lambda _: False),
    ],
)
def test_cases_are_selected_by_a_glob_on_the_whole_name_or_its_end(
    cases: list[Case], glob: str, expected: Callable[[Case], bool]
) -> None:
    assert only(cases, [glob]) == [each for each in cases if expected(each)]


def test_without_a_glob_every_case_is_selected(cases: list[Case]) -> None:
    assert only(cases, []) == cases


def _many(chunks: int) -> list[Case]:
    return cases_of(Point("web-0", "copy.write", chunk, 1, 1) for chunk in range(chunks))


@given(chunks=st.integers(0, 12), count=st.integers(1, 9))
def test_the_shards_are_a_partition(chunks: int, count: int) -> None:
    cases = _many(chunks)
    parts = [shard(cases, index, count) for index in range(1, count + 1)]
    assert Counter(each.name for part in parts for each in part) == Counter(each.name for each in cases)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_is_a_mixture_of_kinds_and_keeps_the_order() -> None:
    cases = _many(20)
    part = shard(cases, 1, 8)
    assert len({each.kind for each in part}) > 3
    assert part == [each for each in cases if each in part]
