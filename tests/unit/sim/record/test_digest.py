"""The digest: blind to what two runs of one scenario may differ in, and to nothing else."""

from __future__ import annotations

import dataclasses
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import ChunkPublished, ChunkPunched, Event, Retried, Scanned
from sim.record import events
from sim.record.digest import digest
from sim.record.ledger import Entry
from sim.record.view import SALVAGE

PUNCH = "memfd-punch-on-snapshot"


def decided(value: bool = True, **details: Any) -> events.Decided:
    return events.Decided({PUNCH: {"value": value, "reason": "FALLTHROUGH", "variation": 1, "version": 3, **details}})


def settled(**changes: Any) -> events.PauseSettled:
    fields: dict[str, Any] = {
        "outcome": "finished",
        "path": "memfd",
        "punch": True,
        "punch_reason": "",
        "dirty_bytes": 8192,
        "punched_bytes": 8192,
        "peak_over": 4096,
        "peak_ratio": 1.1,
        "copy_ms": 1.5,
        "blocked_ms": 2.5,
        "condemned": True,
        "build": "b1",
        "content_hash": "c0ffee",
    }
    return events.PauseSettled(**fields | changes)


def story(sandbox: str) -> list[Entry]:
    """A life of one sandbox: paused, resumed, and asked for too much."""
    pause = f"{sandbox}.p1"
    facts: list[tuple[Event, str | None]] = [
        (events.StateChanged("created", "running", "created"), None),
        (events.GuestSpawned(f"{sandbox}.1", 100, 1, 7, 3, 4, "write-protect-scan", 1.5, None), None),
        (events.StateChanged("running", "pausing", "a pause was requested"), None),
        (decided(), pause),
        (Scanned("write-protect-scan", 8192, 0, 8192, 0.2), pause),
        (events.FaultFired(1, "copy.write", "EINTR", 0), pause),
        (ChunkPublished(0, 4096, 4096, 8192, 4096), pause),
        (ChunkPunched(0, 4096), pause),
        (events.FaultFired(2, "publish", "EIO", 1), pause),
        (settled(), pause),
        (events.StateChanged("pausing", "paused", "done", "paused"), None),
        (events.RequestRefused("pause", "it is paused"), None),
        (events.Resumed(f"{sandbox}.2", pause, 8192, 3.0), None),
    ]
    return [Entry(float(t), fact, sandbox, pause_id) for t, (fact, pause_id) in enumerate(facts)]


STORIES = [story("web-0"), story("web-1")]
SAME = digest([*STORIES[0], *STORIES[1]])


def changed(kind: type[Event], **changes: Any) -> str:
    """The digest where the first such event of web-0 is another."""
    entries = story("web-0")
    at = next(index for index, each in enumerate(entries) if isinstance(each.event, kind))
    entries[at] = dataclasses.replace(entries[at], event=dataclasses.replace(entries[at].event, **changes))
    return digest([*entries, *STORIES[1]])


@settings(max_examples=40)
@given(chance=st.randoms(use_true_random=False))
def test_whoever_was_faster_the_digest_is_the_same(chance: random.Random) -> None:
    left = [list(each) for each in STORIES]
    mixed: list[Entry] = []
    while any(left):
        entry = chance.choice([each for each in left if each]).pop(0)
        mixed.append(dataclasses.replace(entry, t=chance.random()))
    assert digest(mixed) == SAME


def test_the_digest_is_a_sha256_in_hex() -> None:
    assert re.fullmatch("[0-9a-f]{64}", SAME)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (events.GuestSpawned, {"pid": 4711, "start_time": 99, "memfd_inode": 1, "spawn_ms": 80.0, "memfd_fd": 9}),
        (events.StateChanged, {"reason": "in other words"}),
        (events.Decided, {"flags": decided(version=4, reason="OFF").flags}),
        (events.Decided, {"evaluations": [{"feature_flag.key": PUNCH, "feature_flag.version": "4"}]}),
        (Scanned, {"tracker": "shared-bitmap", "resident_bytes": 1, "scan_ms": 9.0}),
        (ChunkPublished, {"chunk": 5, "source_resident": 1, "cache_resident": 2}),
        (events.FaultFired, {"fault_id": 9, "chunk": 3}),
        (events.PauseSettled, {"peak_over": 1, "peak_ratio": 2.0, "copy_ms": 9.0, "blocked_ms": 9.0}),
        (events.Resumed, {"written": 1, "resume_ms": 9.0}),
        (events.RequestRefused, {"reason": "in other words"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_pids_times_sizes_versions_and_words_are_not_in_it(kind: type[Event], changes: dict[str, Any]) -> None:
    assert changed(kind, **changes) == SAME


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (events.StateChanged, {"old": "paused"}),
        (events.StateChanged, {"new": "killed"}),
        (events.StateChanged, {"stop_reason": "crashed"}),
        (events.Decided, {"flags": decided(value=False).flags}),
        (events.Decided, {"flags": {"memfd-background-copy": {"value": True}}}),
        (events.FaultFired, {"fault": "publish"}),
        (events.FaultFired, {"error": "ENOSPC"}),
        (events.PauseSettled, {"outcome": "discarded"}),
        (events.PauseSettled, {"path": "memfd-background"}),
        (events.PauseSettled, {"punch": False}),
        (events.PauseSettled, {"dirty_bytes": 4096}),
        (events.PauseSettled, {"content_hash": "decaf"}),
        (events.Resumed, {"build": "web-0.p2"}),
        (events.RequestRefused, {"request": "resume"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_another_decision_firing_outcome_or_content_is_another_digest(
    kind: type[Event], changes: dict[str, Any]
) -> None:
    assert changed(kind, **changes) != SAME


def test_what_happens_to_one_sandbox_in_another_order_is_another_digest() -> None:
    entries = story("web-0")
    entries[-1], entries[-2] = entries[-2], entries[-1]
    assert digest([*entries, *STORIES[1]]) != SAME


def test_the_same_life_of_another_sandbox_is_another_digest() -> None:
    assert digest([*STORIES[0], *story("web-2")]) != SAME
    assert digest(STORIES[0]) != SAME


def test_a_retried_call_fires_its_fault_once_more_and_is_still_the_same_run() -> None:
    first = STORIES[0][5]
    again = [first, Entry(5.5, Retried("copy.write", "Interrupted", 1), "web-0", "web-0.p1"), first]
    assert digest([*STORIES[0][:5], *again, *STORIES[0][6:], *STORIES[1]]) == SAME


def test_a_fault_that_fired_in_another_pause_is_another_run() -> None:
    moved = [
        dataclasses.replace(e, pause="web-0.p2") if isinstance(e.event, events.FaultFired) else e for e in STORIES[0]
    ]
    assert digest([*moved, *STORIES[1]]) != SAME


def test_firings_of_copiers_that_overtake_each_other_are_the_same_run() -> None:
    entries = story("web-0")
    entries[5], entries[8] = entries[8], entries[5]
    assert digest([*entries, *STORIES[1]]) == SAME


def test_facts_of_the_run_as_a_whole_are_not_in_it() -> None:
    noise = [events.Ticked(3), events.MemorySampled(1, 2, 3), events.NodeCrashed(99), events.FlagSet(PUNCH, True)]
    assert digest([*(Entry(0.0, each, None, None) for each in noise), *STORIES[0], *STORIES[1]]) == SAME


def checkpoint(*, first: str, ends: str = "finished") -> list[Entry]:
    """One with a new guest; `first`: its copy had ended, or the guest was filled."""
    over = events.PauseSettled(ends, "web-0.p1", "memfd", checkpoint=True, consumed=True)
    resumed = events.Resumed("web-0.2", "web-0.p1", 0, 1.0)
    told = {"copied": [over, resumed], "filled": [resumed, over]}[first]
    running = events.StateChanged("checkpointing", "running", "resumed")
    told.insert(told.index(resumed) + 1, running)
    return [Entry(float(at), event, "web-0", None) for at, event in enumerate(told)]


def test_whether_a_new_guest_was_filled_before_its_checkpoint_was_copied_is_not_in_it() -> None:
    assert digest(checkpoint(first="filled")) == digest(checkpoint(first="copied"))
    assert digest(checkpoint(first="filled")) != digest(checkpoint(first="filled", ends="rolled-back"))


def test_a_new_guest_that_ran_for_a_moment_on_a_lost_build_is_not_in_it() -> None:
    lost = [*checkpoint(first="filled", ends="discarded")]
    lost.append(Entry(9.0, events.StateChanged("running", "discarded", "lost", "discarded"), "web-0", None))
    never = [Entry(0.0, events.StateChanged("checkpointing", "discarded", "lost", "discarded"), "web-0", None)]
    never.append(
        Entry(1.0, events.PauseSettled("discarded", "web-0.p1", "memfd", checkpoint=True, consumed=True), "web-0", None)
    )
    assert digest(lost) == digest(never)


def test_salvage_counts_where_its_flag_is_served_and_is_left_out_where_it_is_not() -> None:
    def of(reason: str, value: bool) -> str:
        flags = decided().flags | {SALVAGE: {"value": value, "reason": reason, "variation": None, "version": None}}
        return digest([Entry(0.0, events.Decided(flags), "web-0", "web-0.p1")])

    unserved = digest([Entry(0.0, decided(), "web-0", "web-0.p1")])
    assert of("ERROR:FLAG_NOT_FOUND", value=False) == unserved
    assert len({unserved, of("OFF", value=False), of("FALLTHROUGH", value=True)}) == 3


def read_pause(*told: Event) -> list[Entry]:
    """One that is read at once, and then what becomes of it."""
    begins = events.StateChanged("paused", "resuming", "a reader came")
    return [Entry(float(at), event, "web-0", None) for at, event in enumerate([begins, *told])]


RESUMED = events.Resumed("web-0.2", "b1", 0, 1.0)
RUNS = events.StateChanged("resuming", "running", "resumed")


def test_whether_a_reader_had_its_guest_before_the_copy_ended_is_not_in_it() -> None:
    over = settled(read=True)
    assert digest(read_pause(over, RESUMED, RUNS)) == digest(read_pause(RESUMED, RUNS, over))
    assert digest(read_pause(over, RESUMED, RUNS)) != digest(read_pause(settled(read=True, content_hash="no")))


def test_whether_a_reader_had_its_guest_before_the_copy_was_lost_is_not_in_it() -> None:
    lost = settled(read=True, outcome="discarded", content_hash=None)
    gone = events.StateChanged("running", "discarded", "lost", "discarded")
    never = events.StateChanged("resuming", "discarded", "lost", "discarded")
    assert digest(read_pause(RESUMED, RUNS, lost, gone)) == digest(read_pause(never, lost))
