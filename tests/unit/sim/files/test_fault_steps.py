"""The `inject` and `crash` steps: everything that a fault can be, and a clear word for what it cannot."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from engine.errors import UserError
from sim.files.faults import CATALOGUE, KINDS, AtChunk, points_with
from sim.files.scenario import load_text
from sim.files.steps import Crash, Inject

SCENARIO = """\
name: faults
fleet:
  - {{name: web, count: 2, memory: 4MiB}}
steps:
  - {step}
"""
WRITTEN = {"errno": "errno: ENOSPC", "delay": "delay: 300ms", "hang": "hang: 2s"}


def step(written: str) -> Any:
    return load_text(SCENARIO.format(step=written), pathlib.Path("s.yaml")).steps[0]


def mistake(written: str) -> str:
    with pytest.raises(UserError) as refused:
        step(written)
    line, _, message = str(refused.value).partition(": error: ")
    assert line.startswith("s.yaml:5:")
    return message


def inject(written: str) -> Inject:
    found = step(f"inject: {{{written}}}")
    assert isinstance(found, Inject)
    return found


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("fault: copy.write", "EIO"),
        ("fault: copy.write, errno: ENOSPC", "ENOSPC"),
        ("fault: teardown, delay: 300ms", "delay 300 ms"),
        ("fault: freeze, hang: 2s", "hang 2000 ms"),
        ("fault: copy.read, how: short", "short"),
        ("fault: header.write, how: corrupt", "corrupt"),
        ("fault: scan, how: cancel", "cancel"),
        ("fault: reserve, how: kill-guest", "kill-guest"),
    ],
)
def test_what_a_fault_gives_is_one_string(written: str, error: str) -> None:
    assert inject(written).harm.error == error


@pytest.mark.parametrize("point", CATALOGUE)
def test_every_kind_that_a_point_has_can_be_written(point: str) -> None:
    for kind in CATALOGUE[point].kinds:  # type: ignore[index]
        if kind != "kill-node":
            assert inject(f"fault: {point}, {WRITTEN.get(kind, f'how: {kind}')}").fault == point
    crash = step(f"crash: {{at: {{fault: {point}, nth: 2}}}}")
    assert isinstance(crash, Crash)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(WRITTEN) - {"kill-node"}))
def test_a_kind_that_a_point_has_not_is_refused_with_what_there_is(kind: Any) -> None:
    for point in set(CATALOGUE) - set(points_with(kind)):
        said = mistake(f"inject: {{fault: {point}, how: {kind}}}")
        assert said.startswith(f"steps[0].inject.how: {point} has no {kind}; it has errno, ")
        assert said.endswith(f"{kind} is for {', '.join(points_with(kind))}")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("fault: copy.write, how: kill-node", 'how: unknown value "kill-node"; did you mean "kill-guest"?'),
        ("fault: copy.write, how: delay", 'how: unknown value "delay"; use one of: '),
        ("fault: copy.write, errno: EIO, delay: 1s", ": a fault does one thing; remove errno or delay"),
        ("fault: copy.write, hang: 1s, how: short", ": a fault does one thing; remove hang or how"),
        ("fault: publish, by: kernel", "by: by: kernel is for copy.read, copy.write, punch; remove it at publish"),
        ("fault: copy.read, delay: 1s, by: kernel", "by: by: kernel returns an errno; remove delay"),
        ("fault: copy.read, how: short, by: kernel", "by: by: kernel returns an errno; remove how"),
        ("fault: copy.read, errno: EINTR, by: kernel", "by: the call would be made again for ever after EINTR"),
        ("fault: condemn, at: {chunk: 1}", "at: condemn has no chunks; remove at"),
        ("fault: freeze, at: first", "at: freeze has no chunks; remove at"),
        ("fault: punch, errno: ENOMEM, by: kernel, count: 1", "count: the kernel returns it to every retry"),
        ("fault: resume.read, nth: 1", "nth: no resume starts the first incarnation; resume.read takes 2 or more"),
    ],
)
def test_a_wrong_combination_is_told_at_its_place(written: str, said: str) -> None:
    assert said in mistake(f"inject: {{{written}}}")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{fault: reserve, chunk: 0}", "chunk: reserve has no chunks; remove chunk"),
        ("{fault: guest.spawn, nth: 1}", "nth: no resume starts the first incarnation; guest.spawn takes 2 or more"),
        ("{chunk: 1}", "crash.at.fault: missing"),
    ],
)
def test_a_crash_names_a_point_as_an_injection_does(written: str, said: str) -> None:
    assert said in mistake(f"crash: {{at: {written}}}")


def test_a_crash_waits_at_the_first_chunk_unless_told_otherwise() -> None:
    places = [step(f"crash: {{at: {{fault: publish{more}}}}}").at.place for more in ("", ", chunk: 2")]
    assert places == [AtChunk(0), AtChunk(2)]


def test_a_fault_may_come_from_the_kernel_in_the_second_pause_alone() -> None:
    found = inject("fault: copy.write, errno: ENOSPC, by: kernel, at: 50%, nth: 2, count: 1")
    assert (found.by, found.nth, found.count, found.harm.error) == ("kernel", 2, 1, "ENOSPC")
