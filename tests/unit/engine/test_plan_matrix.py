"""Every combination of flags against every combination of facts: what the plan says is so, and says all of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.linux import SEAL_FUTURE_WRITE, SEAL_GROW, SEAL_SHRINK, SEAL_WRITE
from engine.plan import DedupOptions, MemoryFacts, Path, PauseOptions, PausePlan, path_of, plan, without_effect
from engine.ranges import Blocks

MIB = 1 << 20
PAGE = 4096
BOTH = (False, True)
SETTINGS = ("bestEffort", "directIO", "maxFetchWindowsPerBlock")
DEDUPS = (DedupOptions(), DedupOptions(True), DedupOptions(True, SETTINGS), DedupOptions(False, SETTINGS))
SEALS = (0, SEAL_SHRINK | SEAL_GROW, SEAL_WRITE, SEAL_FUTURE_WRITE, SEAL_SHRINK | SEAL_WRITE | SEAL_FUTURE_WRITE)

OPTIONS = [PauseOptions(*flags) for flags in itertools.product(BOTH, BOTH, BOTH, DEDUPS, BOTH)]
FACTS = [
    MemoryFacts(8 * MIB, PAGE, PAGE, seals, consumed, finished, memfd)
    for seals, consumed, finished, memfd in itertools.product(SEALS, BOTH, BOTH, BOTH)
]
MATRIX = [(options, facts) for options in OPTIONS for facts in FACTS]
DIRTY = Blocks([0, 3, 700, 2047])


def legal_by_rule_1(options: PauseOptions, facts: MemoryFacts) -> bool:
    """Written down apart from the engine: a punch is legal only where all of it holds."""
    may_be_read_on = options.dedup.enabled and options.inflight_serve
    sealed = facts.seals & SEAL_WRITE or facts.seals & SEAL_FUTURE_WRITE
    return (
        options.punch and facts.memfd and facts.consumed and facts.parent_finished and not may_be_read_on and not sealed
    )


def path_by_the_table(options: PauseOptions, facts: MemoryFacts) -> str:
    if not facts.memfd:
        return "process"
    if not facts.consumed:
        return "in-place"
    if options.dedup.enabled:
        return "dedup"
    return "memfd-background" if options.background_copy else "memfd"


def deeds(made: PausePlan) -> tuple[object, ...]:
    """What a plan makes the engine do, apart from what it says."""
    return (made.path, made.punch, made.background, made.condemns_early, made.clean_pages())


def changes_nothing(options: PauseOptions, other: PauseOptions, facts: MemoryFacts) -> bool:
    return deeds(plan(options, facts, DIRTY)) == deeds(plan(other, facts, DIRTY))


def test_the_matrix_is_whole() -> None:
    assert len(OPTIONS) == 2 * 2 * 2 * 4 * 2
    assert len(MATRIX) == len(OPTIONS) * 40
    assert {path_of(options, facts) for options, facts in MATRIX} == set(Path)


def test_every_combination_has_the_path_of_the_table() -> None:
    for options, facts in MATRIX:
        assert path_of(options, facts) == path_by_the_table(options, facts), (options, facts)


def test_every_combination_has_a_reason_in_words() -> None:
    for options, facts in MATRIX:
        made = plan(options, facts, DIRTY)
        assert len(made.punch_reason.split()) > 2, (options, facts)


def test_punching_is_legal_exactly_where_all_of_the_rule_holds() -> None:
    for options, facts in MATRIX:
        assert plan(options, facts, DIRTY).punch == legal_by_rule_1(options, facts), (options, facts)
    assert any(legal_by_rule_1(*each) for each in MATRIX)


@pytest.mark.parametrize("path", [Path.IN_PLACE, Path.PROCESS])
def test_no_flag_makes_a_borrowed_or_absent_memfd_be_punched_or_its_guest_condemned_early(path: Path) -> None:
    plans = [plan(options, facts, DIRTY) for options, facts in MATRIX if path_of(options, facts) is path]
    assert plans
    assert {(made.punch, made.condemns_early, made.background) for made in plans} == {(False, False, False)}
    assert {tuple(made.clean_pages()) for made in plans} == {()}


def test_a_memfd_that_in_flight_readers_may_need_is_never_punched() -> None:
    for options, facts in MATRIX:
        if options.inflight_serve and path_of(options, facts) is Path.DEDUP:
            assert not plan(options, facts, DIRTY).punch, (options, facts)


def test_clean_pages_are_owed_to_nobody_only_where_punching_is_legal() -> None:
    for options, facts in MATRIX:
        made = plan(options, facts, DIRTY)
        assert bool(made.clean_pages()) == made.punch, (options, facts)


def named(flag: str, notes: tuple[str, ...]) -> bool:
    """The subject of a note, not a word in it."""
    return any(note.startswith((f"{flag} has no effect", f"{flag} on has", f"{flag} off has")) for note in notes)


@pytest.mark.parametrize(
    ("flag", "is_set", "unset"),
    [
        ("memfd-punch-on-snapshot", lambda o: o.punch, {"punch": False}),
        ("memfile-diff-dedup", lambda o: o.dedup.enabled, {"dedup": DedupOptions()}),
        ("memfd-dedup-inflight-serve", lambda o: o.inflight_serve, {"inflight_serve": False}),
    ],
)
def test_a_flag_is_said_to_have_no_effect_exactly_where_unsetting_it_changes_nothing(
    flag: str, is_set: object, unset: dict[str, object]
) -> None:
    assert callable(is_set)
    for options, facts in MATRIX:
        idle = is_set(options) and changes_nothing(options, replace(options, **unset), facts)  # type: ignore[arg-type]
        assert named(flag, without_effect(options, facts)) == idle, (options, facts)


def test_background_copy_is_named_exactly_where_the_answer_comes_at_another_time_than_it_asks_for() -> None:
    for options, facts in MATRIX:
        made = plan(options, facts, DIRTY)
        contradicted = options.background_copy != made.background
        assert named("memfd-background-copy", made.notes) == contradicted, (options, facts)


def test_a_latched_use_memfd_is_named_exactly_where_the_guest_was_started_otherwise() -> None:
    for options, facts in MATRIX:
        notes = without_effect(options, facts)
        assert named("use-memfd", notes) == (options.use_memfd != facts.memfd), (options, facts)
        assert changes_nothing(options, replace(options, use_memfd=not options.use_memfd), facts)


def test_every_setting_of_an_enabled_dedup_that_does_nothing_is_named() -> None:
    for options, facts in MATRIX:
        notes = without_effect(options, facts)
        for setting in SETTINGS:
            said = any(setting in note for note in notes)
            assert said == (options.dedup.enabled and setting in options.dedup.ignored), (options, facts)


def test_a_note_that_speaks_of_a_path_speaks_of_the_one_taken() -> None:
    for options, facts in MATRIX:
        for note in without_effect(options, facts):
            for path in Path:
                assert f"the {path} path" not in note or path is path_of(options, facts), (options, facts, note)


def test_a_plan_without_a_flag_set_and_a_memfd_of_its_own_has_nothing_to_note() -> None:
    made = plan(PauseOptions(background_copy=False), FACTS[0], DIRTY)
    facts = MemoryFacts(8 * MIB, PAGE, PAGE, 0, consumed=True, parent_finished=True)
    assert plan(PauseOptions(background_copy=False), facts, DIRTY).notes == ()
    assert made.notes != ()  # the same options, where the guest gave no memfd


@given(
    options=st.sampled_from(OPTIONS),
    facts=st.sampled_from(FACTS),
    layout=st.sampled_from([(PAGE, PAGE), (PAGE, 2 * MIB), (2 * MIB, PAGE), (2 * MIB, 2 * MIB)]),
    data=st.data(),
)
def test_whatever_is_dirty_the_decision_is_the_same_and_what_may_be_freed_is_whole_and_owed_to_nobody(
    options: PauseOptions, facts: MemoryFacts, layout: tuple[int, int], data: st.DataObject
) -> None:
    page, block = layout
    facts = replace(facts, page_size=page, block_size=block)
    dirty = Blocks(data.draw(st.sets(st.integers(0, facts.size // block - 1), max_size=30)))
    made = plan(options, facts, dirty)
    assert made.punch == legal_by_rule_1(options, facts)
    assert made.dirty_bytes == sum(chunk.length for chunk in made.chunks) == len(dirty) * block
    free = {at for offset, length in made.clean_pages() for at in range(offset, offset + length, PAGE)}
    owed = {at for each in dirty for at in range(each * block, (each + 1) * block, PAGE)}
    assert not free & owed
    assert not free or made.punch
    for offset, length in made.clean_pages():
        assert offset % page == length % page == 0
        assert 0 <= offset < offset + length <= facts.size
