from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.linux import SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from engine.plan import (
    PUNCH_REASONS,
    DedupOptions,
    MemoryFacts,
    Path,
    PauseOptions,
    PausePlan,
    PunchCode,
    plan,
    punch_legality,
)
from engine.ranges import Blocks

MIB = 1 << 20
PAGE = 4096
FACTS = MemoryFacts(
    size=8 * MIB,
    page_size=PAGE,
    block_size=PAGE,
    seals=SEAL_SHRINK | SEAL_GROW,
    consumed=True,
    parent_finished=True,
)
PUNCH = PauseOptions(punch=True)
SERVING = PauseOptions(punch=True, dedup=DedupOptions(enabled=True), inflight_serve=True)


def test_punching_is_legal_for_a_consumed_memfd_over_a_finished_parent() -> None:
    assert punch_legality(PUNCH, FACTS) is PunchCode.LEGAL
    assert "condemned first" in plan(PUNCH, FACTS, Blocks([1])).punch_reason


def test_every_code_has_its_own_words() -> None:
    assert set(PUNCH_REASONS) == set(PunchCode)
    assert len(set(PUNCH_REASONS.values())) == len(PunchCode)


@pytest.mark.parametrize(
    ("options", "facts", "code", "reason"),
    [
        (PauseOptions(punch=False), FACTS, "off", "memfd-punch-on-snapshot is off"),
        (PUNCH, dataclasses.replace(FACTS, consumed=False), "borrowed", "borrowed"),
        (PUNCH, dataclasses.replace(FACTS, memfd=False), "no-memfd", "no memfd"),
        (PUNCH, dataclasses.replace(FACTS, parent_finished=False), "parent-unfinished", "not finished"),
        (PUNCH, dataclasses.replace(FACTS, seals=SEAL_WRITE), "sealed", "sealed against writing"),
        (PUNCH, dataclasses.replace(FACTS, seals=SEAL_FUTURE_WRITE | SEAL_GROW), "sealed", "sealed against writing"),
        (SERVING, FACTS, "readers", "in-flight readers"),
    ],
)
def test_punching_is_illegal_for_a_reason_with_a_code_and_words(
    options: PauseOptions, facts: MemoryFacts, code: str, reason: str
) -> None:
    made = plan(options, facts, Blocks([1]))
    assert not made.punch
    assert made.punch_code.value == code
    assert reason in made.punch_reason
    assert made.clean_pages() == []


@pytest.mark.parametrize(
    ("asked", "consumed", "finished", "seal"),
    list(itertools.product([True, False], [True, False], [True, False], [0, SEAL_WRITE, SEAL_FUTURE_WRITE])),
)
def test_no_single_fact_makes_up_for_another(asked: bool, consumed: bool, finished: bool, seal: int) -> None:
    facts = dataclasses.replace(FACTS, consumed=consumed, parent_finished=finished, seals=seal)
    legal = punch_legality(PauseOptions(punch=asked), facts) is PunchCode.LEGAL
    assert legal == (asked and consumed and finished and not seal)


def test_the_background_copy_is_its_own_path_and_condemns_early() -> None:
    background = plan(PauseOptions(background_copy=True), FACTS, Blocks())
    sync = plan(PauseOptions(background_copy=False), FACTS, Blocks())
    assert (background.path, background.background, background.condemns_early) == (Path.MEMFD_BACKGROUND, True, True)
    assert (sync.path, sync.background, sync.condemns_early) == (Path.MEMFD, False, False)


def test_a_pause_that_punches_condemns_early_on_either_path() -> None:
    assert plan(PauseOptions(background_copy=False, punch=True), FACTS, Blocks()).condemns_early


def test_a_block_size_that_does_not_divide_the_memory_is_refused() -> None:
    with pytest.raises(EngineError, match="not a multiple"):
        plan(PUNCH, dataclasses.replace(FACTS, size=8 * MIB + PAGE, block_size=2 * MIB), Blocks())


def test_a_dirty_block_outside_the_memory_is_refused() -> None:
    with pytest.raises(EngineError, match="outside"):
        plan(PUNCH, FACTS, Blocks([2048]))


LAYOUTS = st.sampled_from([(PAGE, PAGE), (PAGE, 2 * MIB), (2 * MIB, PAGE), (2 * MIB, 2 * MIB)])


@st.composite
def plans(draw: st.DrawFn) -> PausePlan:
    page_size, block_size = draw(LAYOUTS)
    size = draw(st.integers(1, 6)) * 2 * MIB
    dirty = Blocks(draw(st.sets(st.integers(0, size // block_size - 1), max_size=40)))
    facts = dataclasses.replace(FACTS, size=size, page_size=page_size, block_size=block_size)
    return plan(PUNCH, facts, dirty)


@given(plans())
def test_every_dirty_block_is_copied_once_and_packed_without_a_gap(made: PausePlan) -> None:
    block = made.facts.block_size
    copied = [int(index) for chunk in made.chunks for index in chunk.blocks]
    assert copied == sorted(set(copied))
    assert len(copied) * block == made.dirty_bytes == sum(chunk.length for chunk in made.chunks)
    at = 0
    for chunk in made.chunks:
        assert chunk.cache_offset == at
        at += chunk.length


@given(plans())
def test_what_is_punched_as_clean_is_whole_pages_that_hold_no_dirty_block(made: PausePlan) -> None:
    block, page = made.facts.block_size, made.facts.page_size
    for offset, length in made.clean_pages():
        assert offset % page == length % page == 0
        assert 0 <= offset < offset + length <= made.facts.size
        for chunk in made.chunks:
            starts = chunk.blocks.astype(int) * block
            assert not ((starts < offset + length) & (starts + block > offset)).any()


@given(plans())
def test_clean_pages_and_the_spans_of_chunks_leave_no_page_unpunched(made: PausePlan) -> None:
    page = made.facts.page_size
    spans = [(offset, offset + length) for offset, length in made.clean_pages()]
    spans += [(chunk.start, chunk.end) for chunk in made.chunks]
    punched = {at for start, end in spans for at in range(start, end, page)}
    assert punched == set(range(0, made.facts.size, page))
