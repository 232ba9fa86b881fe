"""Shrinking against a runner that only pretends: what comes out still fails, and nothing can be taken from it."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from sim.files.scenario import load_text
from sim.files.units import parse_size
from sim.files.yaml import scenario_text
from sim.record.events import Judged
from sim.run.shrink import PASSES, Document, Failure, Shrinking

HERE = pathlib.Path("x.yaml")
PADDED: Document = {
    "version": 1,
    "name": "padded",
    "seed": 3,
    "node": {"memory": "256MiB", "cache": "tmpfs"},
    "fleet": [
        {"name": "web", "count": 4, "memory": "8MiB", "team": "acme", "workload": {"dirty": "60%", "pattern": "runs"}},
        {"name": "api", "count": 2, "memory": "4MiB"},
    ],
    "flags": {"memfd-punch-on-snapshot": {"rollout": "50%", "by": "team"}, "memfd-background-copy": False},
    "steps": [
        {"tick": 5},
        {"pause": {"sandboxes": "api-*", "concurrency": 2}},
        {"resume": {"sandboxes": "api-*"}},
        {"inject": {"fault": "copy.write", "errno": "ENOSPC", "at": {"chunk": 3}, "sandboxes": "web-3", "count": 1}},
        {"pause": {"sandboxes": "web-*"}},
        {"kill": {"sandboxes": "api-1"}},
    ],
    "expect": [{"invariant": "bytes_exact"}, {"metric": "peak_over", "max": "64MiB"}],
}
Culprit = Callable[[Document], bool]


@functools.cache
def loads(text: str) -> bool:
    try:
        load_text(text, HERE)
    except UserError:
        return False
    return True


def is_valid(document: Document) -> bool:
    return loads(scenario_text(document))


def shrunk(culprit: Culprit, document: Document = PADDED, **settings: Any) -> Shrinking:
    def fails(documents: Sequence[Document]) -> list[bool]:
        assert all(is_valid(each) for each in documents)
        return [culprit(each) for each in documents]

    shrinking = Shrinking(document, fails, is_valid=is_valid, **settings)
    shrinking.run()
    return shrinking


def kinds(document: Document) -> list[str]:
    return [key for step in document["steps"] for key in step]


def fault_meets_a_pause(document: Document) -> bool:
    found = kinds(document)
    return "inject" in found and "pause" in found[found.index("inject") :]


def test_what_is_not_needed_goes() -> None:
    assert scenario_text(shrunk(fault_meets_a_pause).document).splitlines() == [
        "version: 1",
        "name: padded",
        "fleet:",
        "  - {name: web, memory: 4KiB}",
        "steps:",
        "  - inject: {fault: copy.write}",
        "  - pause: {}",
    ]


def test_what_is_needed_stays() -> None:
    def needs_four_and_a_rollout(document: Document) -> bool:
        return document["fleet"][0].get("count", 1) >= 4 and "rollout" in str(document.get("flags"))

    document = shrunk(needs_four_and_a_rollout).document
    assert document["fleet"] == [{"name": "web", "count": 4, "memory": "4KiB"}]
    assert document["flags"] == {"memfd-punch-on-snapshot": {"rollout": "100%"}}
    assert len(document["steps"]) == 1


CULPRITS = st.builds(
    lambda needed, count, memory: (
        lambda document: (
            set(needed) <= set(kinds(document))
            and sum(each.get("count", 1) for each in document["fleet"]) >= count
            and parse_size(document["fleet"][0]["memory"]) >= memory
        )
    ),
    st.lists(st.sampled_from(["tick", "pause", "resume", "inject", "kill"]), max_size=3, unique=True),
    st.integers(1, 6),
    st.sampled_from([4096, 1 << 20, 3 << 20, 8 << 20]),
)


@settings(max_examples=10, deadline=None)
@given(culprit=CULPRITS)
def test_the_result_still_fails_and_no_reduction_of_it_does(culprit: Culprit) -> None:
    shrinking = shrunk(culprit)
    assert not shrinking.exhausted
    assert culprit(shrinking.document)
    smaller = [each for reductions in PASSES for each in reductions(shrinking.document)]
    assert [each for each in smaller if is_valid(each) and culprit(each)] == []


@settings(max_examples=5, deadline=None)
@given(culprit=CULPRITS)
def test_the_result_does_not_depend_on_how_many_are_tried_at_a_time(culprit: Culprit) -> None:
    assert shrunk(culprit).document == shrunk(culprit, at_a_time=7).document


def test_nothing_is_tried_twice() -> None:
    tried: list[str] = []

    def remembers(document: Document) -> bool:
        tried.append(str(document))
        return fault_meets_a_pause(document)

    shrinking = shrunk(remembers)
    assert len(set(tried)) == len(tried) == shrinking.tried


def test_the_budget_ends_it_with_the_smallest_so_far() -> None:
    shrinking = shrunk(fault_meets_a_pause, tries=4)
    assert shrinking.tried == 4
    assert shrinking.exhausted
    assert fault_meets_a_pause(shrinking.document)
    assert len(shrinking.document["steps"]) < len(PADDED["steps"])


def test_time_ends_it_too() -> None:
    shrinking = shrunk(fault_meets_a_pause, over=lambda: True)
    assert shrinking.tried == 0
    assert shrinking.document == PADDED


def test_the_given_document_is_left_as_it_is() -> None:
    before = scenario_text(PADDED)
    shrunk(fault_meets_a_pause)
    assert scenario_text(PADDED) == before


def test_a_failure_is_known_again_by_its_subject_and_a_code_whatever_its_words() -> None:
    def failure(subject: str, *reasons: dict[str, str]) -> Failure:
        return Failure.of(Judged(subject, "violated", 1, list(reasons)))

    first = failure("invariant:x", {"sandbox": "web-1", "code": "lost", "reason": "page 12 is lost"})
    assert first.is_like(
        failure("invariant:x", {"code": "other"}, {"code": "lost", "reason": "page 3 of web-9 is gone"})
    )
    assert not first.is_like(failure("invariant:x", {"code": "runs", "reason": "page 12 is lost"}))
    assert not first.is_like(failure("invariant:y", {"code": "lost", "reason": "page 12 is lost"}))
    assert str(first) == "invariant:x: web-1: page 12 is lost"


def test_a_failure_of_an_older_ledger_has_no_code_and_is_known_again_by_its_subject() -> None:
    old = Failure.of(Judged("invariant:x", "violated", 1, [{"sandbox": "web-1", "reason": "page 12 is lost"}]))
    new = Failure.of(Judged("invariant:x", "violated", 1, [{"code": "lost", "reason": "page 12 is lost"}]))
    other = Failure.of(Judged("invariant:y", "violated", 1, [{"code": "lost", "reason": "page 12 is lost"}]))
    assert old.is_like(new)
    assert new.is_like(old)
    assert not old.is_like(other)
