from __future__ import annotations

import numpy as np
import pytest

from engine.errors import EngineError
from engine.mapping import (
    MAX_SIZE,
    Extent,
    Extents,
    Mapping,
    MappingError,
    builds,
    create,
    diff,
    merge,
    normalise,
    validate,
    zero,
)
from engine.ranges import Blocks

K = 4096


def mapping(size: int, *rows: Extent) -> Mapping:
    return Mapping(size, K, Extents.of(rows))


def rows(value: Mapping | Extents) -> list[Extent]:
    return list(value.extents if isinstance(value, Mapping) else value)


def test_the_template_is_one_run_of_zeros() -> None:
    assert rows(zero(8 * K, K)) == [Extent(0, 8 * K, None, 0)]


@pytest.mark.parametrize(("size", "block_size"), [(0, K), (K + 1, K), (K, 2 * K), (K, 0), (K, 100), (2 * MAX_SIZE, K)])
def test_a_template_of_an_impossible_size_is_refused(size: int, block_size: int) -> None:
    with pytest.raises(MappingError, match="size"):
        zero(size, block_size)


def test_created_blocks_are_packed_and_the_rest_is_zeros() -> None:
    assert rows(create(Blocks([1, 2, 5]), "b1", 6 * K, K)) == [
        Extent(0, K, None, 0),
        Extent(K, 2 * K, "b1", 0),
        Extent(3 * K, 2 * K, None, 0),
        Extent(5 * K, K, "b1", 2 * K),
    ]


def test_creating_without_a_dirty_block_gives_the_template() -> None:
    assert create(Blocks(), "b1", 4 * K, K) == zero(4 * K, K)


def test_a_diff_says_nothing_about_clean_blocks() -> None:
    assert rows(diff(Blocks([2]), Blocks([7]), "b1", K)) == [
        Extent(2 * K, K, "b1", 0),
        Extent(7 * K, K, None, 0),
    ]


def test_an_empty_block_that_is_also_dirty_is_zeros_and_takes_no_slot() -> None:
    assert rows(diff(Blocks([0, 1, 2]), Blocks([1]), "b1", K)) == [
        Extent(0, K, "b1", 0),
        Extent(K, K, None, 0),
        Extent(2 * K, K, "b1", K),
    ]


def test_a_diff_does_not_change_the_sets_it_was_given() -> None:
    dirty, empty = Blocks([0, 1]), Blocks([1])
    diff(dirty, empty, "b1", K)
    assert (dirty, empty) == (Blocks([0, 1]), Blocks([1]))


def test_a_base_extent_cut_in_the_middle_keeps_storage_on_the_left_and_shifts_on_the_right() -> None:
    base = mapping(8 * K, Extent(0, 8 * K, "a", 16 * K))
    assert rows(merge(base, Extents.of([Extent(3 * K, 2 * K, "b", 0)]))) == [
        Extent(0, 3 * K, "a", 16 * K),
        Extent(3 * K, 2 * K, "b", 0),
        Extent(5 * K, 3 * K, "a", 21 * K),
    ]


def test_a_change_swallows_the_base_extents_it_covers() -> None:
    base = mapping(4 * K, Extent(0, K, "a", 0), Extent(K, K, None, 0), Extent(2 * K, 2 * K, "a", K))
    assert rows(merge(base, Extents.of([Extent(0, 3 * K, "b", 0)]))) == [
        Extent(0, 3 * K, "b", 0),
        Extent(3 * K, K, "a", 2 * K),
    ]


def test_a_change_of_nothing_returns_the_base() -> None:
    base = create(Blocks([1]), "a", 4 * K, K)
    assert merge(base, diff(Blocks(), Blocks(), "b", K)) is base


def test_a_change_to_zeros_wins_over_the_base() -> None:
    base = create(Blocks([0, 1]), "a", 2 * K, K)
    assert rows(merge(base, diff(Blocks(), Blocks([0]), "b", K))) == [
        Extent(0, K, None, 0),
        Extent(K, K, "a", K),
    ]


def test_merging_does_not_change_the_base() -> None:
    base = create(Blocks([0, 1]), "a", 2 * K, K)
    before = rows(base)
    merge(base, diff(Blocks([1]), Blocks([0]), "b", K))
    assert rows(base) == before


def test_a_build_that_nothing_refers_to_any_more_is_forgotten() -> None:
    base = create(Blocks([0]), "a", 2 * K, K)
    merged = merge(base, diff(Blocks([0]), Blocks(), "b", K))
    assert merged.extents.builds == ("b",)
    assert builds(merged) == ("b",)


def test_builds_are_named_oldest_first() -> None:
    merged = create(Blocks([3]), "z", 4 * K, K)
    for name, block in (("m", 0), ("a", 1)):
        merged = merge(merged, diff(Blocks([block]), Blocks(), name, K))
    assert builds(merged) == ("z", "m", "a")


def test_a_build_that_only_the_table_names_is_not_referenced() -> None:
    listed = Extents.of([Extent(0, K, "b", 0)])
    padded = Extents(listed.offset, listed.length, listed.storage, listed.build + np.int32(1), ("a", "b"))
    assert builds(Mapping(K, K, padded)) == ("b",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([Extent(2 * K, K, "b", 0), Extent(0, K, "b", K)], "overlap"),
        ([Extent(0, 2 * K, "b", 0), Extent(K, K, "b", 2 * K)], "overlap"),
        ([Extent(3 * K, 2 * K, "b", 0)], "end past"),
        ([Extent(4 * K, K, "b", 0)], "offset outside"),
        ([Extent(0, 100, "b", 0)], "multiple of 4096"),
        ([Extent(0, 0, "b", 0)], "length outside"),
    ],
)
def test_a_change_that_cannot_be_laid_over_the_base_is_refused(change: list[Extent], message: str) -> None:
    with pytest.raises(MappingError, match=message):
        merge(zero(4 * K, K), Extents.of(change))


def test_neighbours_of_one_build_join_only_if_storage_goes_on() -> None:
    split = mapping(4 * K, Extent(0, K, "a", 0), Extent(K, K, "a", K), Extent(2 * K, 2 * K, "a", 0))
    assert rows(normalise(split)) == [Extent(0, 2 * K, "a", 0), Extent(2 * K, 2 * K, "a", 0)]


def test_neighbours_of_two_builds_never_join() -> None:
    split = mapping(2 * K, Extent(0, K, "a", 0), Extent(K, K, "b", K))
    assert normalise(split) == split


def test_neighbouring_zeros_always_join() -> None:
    split = mapping(3 * K, Extent(0, K, None, 7 * K), Extent(K, 2 * K, None, 0))
    assert rows(normalise(split)) == [Extent(0, 3 * K, None, 0)]


def test_extents_of_no_length_are_dropped() -> None:
    split = mapping(2 * K, Extent(0, K, "a", 0), Extent(K, 0, "b", 0), Extent(K, K, "a", K))
    assert rows(normalise(split)) == [Extent(0, 2 * K, "a", 0)]


def test_a_mapping_that_covers_its_size_is_valid() -> None:
    validate(mapping(3 * K, Extent(0, K, "a", 0), Extent(K, 2 * K, None, 0)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "extent 0 at offset 16384 has a gap"),
        ([Extent(K, 3 * K, "a", 0)], "extent 0 at offset 4096 has a gap"),
        ([Extent(0, K, "a", 0), Extent(2 * K, 2 * K, "a", K)], "extent 1 at offset 8192 has a gap"),
        ([Extent(0, 3 * K, "a", 0)], "extent 1 at offset 16384 has a gap"),
        ([Extent(0, 3 * K, "a", 0), Extent(2 * K, 2 * K, "a", K)], "extent 1 at offset 8192 has an overlap"),
        ([Extent(0, K, "a", 0), Extent(K, 4 * K, "a", K)], "overlap"),
        ([Extent(0, 4 * K, "a", 1)], "multiple of 4096"),
        ([Extent(0, K + 1, "a", 0), Extent(K + 1, 3 * K - 1, "a", 0)], "multiple of 4096"),
        ([Extent(0, 4 * K, "a", -K)], "storage offset out of range"),
        ([Extent(0, 4 * K, "a", MAX_SIZE)], "storage offset out of range"),
        ([Extent(-K, 5 * K, "a", 0)], "offset outside"),
        ([Extent(0, 4 * K, "a", 0), Extent(4 * K, 0, "a", 0)], "offset outside"),
        ([Extent(0, 4 * K, "a", 0), Extent(0, 0, "a", 0)], "length outside"),
        ([Extent(0, 2**63 - K, "a", 0)], "length outside"),
    ],
)
def test_a_mapping_that_does_not_cover_its_size_once_is_refused(bad: list[Extent], message: str) -> None:
    with pytest.raises(MappingError, match=message):
        validate(mapping(4 * K, *bad))


def test_an_extent_of_an_unknown_build_is_refused() -> None:
    known = Extents.of([Extent(0, K, "a", 0)])
    for index in (1, -2):
        unknown = Extents(known.offset, known.length, known.storage, np.array([index], dtype=np.int32), ("a",))
        with pytest.raises(MappingError, match="unknown build"):
            validate(Mapping(K, K, unknown))


def test_a_build_named_twice_is_refused() -> None:
    known = Extents.of([Extent(0, K, "a", 0)])
    twice = Extents(known.offset, known.length, known.storage, known.build, ("a", "a"))
    with pytest.raises(MappingError, match="repeat"):
        validate(Mapping(K, K, twice))


def test_columns_of_different_length_are_refused() -> None:
    known = Extents.of([Extent(0, K, "a", 0)])
    short = Extents(known.offset, known.length[:0], known.storage, known.build, known.builds)
    with pytest.raises(MappingError, match="columns"):
        validate(Mapping(K, K, short))


def test_mappings_are_equal_by_build_name_whatever_the_index() -> None:
    one = Extents.of([Extent(0, K, "a", 0), Extent(K, K, "b", 0)])
    other = Extents(one.offset, one.length, one.storage, 1 - one.build, ("b", "a"))
    assert one == other
    assert Mapping(2 * K, K, one) == Mapping(2 * K, K, other)
    assert one != Extents.of([Extent(0, K, "a", 0), Extent(K, K, "a", 0)])


def test_extents_come_back_as_the_rows_they_were_made_of() -> None:
    made = [Extent(0, K, "b", 5 * K), Extent(K, K, None, 0), Extent(2 * K, K, "a", 0)]
    assert list(Extents.of(made)) == made
    assert len(Extents.of(made)) == 3


def test_a_mapping_error_is_an_engine_error_and_a_value_error() -> None:
    assert issubclass(MappingError, EngineError)
    assert issubclass(MappingError, ValueError)


def test_a_mapping_without_any_extent_keeps_its_sizes() -> None:
    for empty in (mapping(8 * K), mapping(8 * K, Extent(0, 0, "a", 0))):
        joined = normalise(empty)
        assert (joined.size, joined.block_size, len(joined.extents)) == (8 * K, K, 0)
