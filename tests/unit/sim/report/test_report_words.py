"""Every event has a sentence, and sizes and decisions read as people say them."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events, source_events
from sim.record.ledger import EVENT_TYPES, Entry
from sim.report import sentences, words

EXAMPLES: dict[str, Any] = {
    "bool": True,
    "int": 3,
    "float": 1.5,
    "str": "some-text",
    "list": [],
    "dict": {},
}


def example(kind: type[Event]) -> Event:
    """An event with every field filled: the first type of each hint decides."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        hint = str(get_type_hints(kind)[field.name]).removeprefix("<class '")
        name = next((each for each in EXAMPLES if hint.startswith(each)), "str")
        values[field.name] = EXAMPLES[name]
    return kind(**values)


def said(event: Event, sandbox: str | None = "web-0") -> str:
    return sentences.sentence(Entry(1.0, event, sandbox, None))


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_every_event_has_a_sentence_of_its_own(name: str) -> None:
    text = said(example(EVENT_TYPES[name]))
    assert text
    assert text != f"web-0 {name.replace('_', ' ')}"
    assert "\n" not in text


def test_a_failure_says_on_which_side_of_the_point_of_no_return_it_was() -> None:
    before = said(copying.CopyFailed(0, "copy.write", "ENOSPC", condemned=False))
    after = said(copying.CopyFailed(3, "copy.write", "ENOSPC", condemned=True))
    assert before == "web-0 pause failed in copy.write at chunk 0 (ENOSPC), before condemn: nothing is lost"
    assert after == "web-0 pause failed in copy.write at chunk 3 (ENOSPC), past the point of no return"


def test_a_published_chunk_tells_where_the_memory_is() -> None:
    event = copying.ChunkPublished(
        chunk=3, length=1 << 20, span=1 << 20, source_resident=30 << 20, cache_resident=4 << 20
    )
    assert said(event) == "web-0 chunk 3 is published (1.0 MiB); memfd 30.0 MiB, cache 4.0 MiB"


def test_a_fired_fault_tells_what_it_gave_and_where() -> None:
    assert (
        said(events.FaultFired(1, "copy.write", "ENOSPC", 3))
        == "web-0 fault fired: copy.write ENOSPC at chunk 3 (fault 1)"
    )


def test_a_flag_that_does_not_reach_the_node_says_so() -> None:
    set_off = events.FlagSet("memfd-punch-on-snapshot", False)
    assert said(set_off, None) == "flag memfd-punch-on-snapshot is now off"
    unheard = dataclasses.replace(set_off, effective=False)
    assert said(unheard, None) == "flag memfd-punch-on-snapshot is now off, but the change does not reach the node"
    assert said(source_events.OutageBegan("freeze", ""), None) == "flag source fails: freeze"


def test_a_fact_without_a_sandbox_names_none() -> None:
    assert said(events.NodeCrashed(7), sandbox=None) == "node crashed: ended by SIGKILL (pid 7)"
    assert said(copying.Retried("copy.read", "EINTR", 1), sandbox=None).startswith("copy.read is tried again")


def test_a_settled_pause_tells_its_peak_and_what_it_freed() -> None:
    event = events.PauseSettled(
        outcome="rolled-back",
        path="memfd",
        punch=True,
        punch_reason="",
        dirty_bytes=4096,
        punched_bytes=1 << 20,
        peak_over=2 << 20,
        peak_ratio=1.5,
        copy_ms=1.0,
        blocked_ms=1.0,
        condemned=False,
        error="No space left on device",
        build="b",
    )
    expected = "web-0 pause is rolled back, peak +2.0 MiB (1.50x), 1.0 MiB freed, No space left on device"
    assert said(event) == expected


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (33554432, "32.0 MiB"), (3 << 29, "1.5 GiB")],
)
def test_sizes_have_one_decimal_and_the_largest_unit_that_fits(count: int, text: str) -> None:
    assert words.size(count) == text


def test_a_rollout_is_told_by_its_share_and_an_object_by_its_parts() -> None:
    assert words.flag_value({"rollout": "50%", "by": "sandbox"}) == "on for 50% by sandbox"
    assert words.flag_value({"enabled": True, "blockFaultPct": 3}) == "enabled on, blockFaultPct 3"
    assert (words.flag_value(True), words.flag_value(False)) == ("on", "off")


def test_times_are_aligned() -> None:
    assert (words.clock(1.2345), words.clock(123.4)) == ("   1.234 s", " 123.400 s")
