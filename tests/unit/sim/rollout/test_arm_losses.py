from __future__ import annotations

import pathlib

from engine.events import Event, Stranded
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import EVENTS_FILE, Entry
from sim.record.view import View
from sim.rollout.arm_losses import salvaged, three_arms

MIB = 1 << 20
Told = tuple[float, Event, str | None, str | None]


def run(*told: Told) -> StoredRun:
    return StoredRun(pathlib.Path("runs") / EVENTS_FILE, [Entry(*each) for each in told], View())


def stranded(t: float, name: str, mib: int) -> Told:
    return t, Stranded(f"{name}.p1", 1, mib * MIB), name, f"{name}.p1"


def settled(t: float, name: str, outcome: str, salvage: str | None) -> Told:
    return t, events.PauseSettled(outcome, f"{name}.p1", salvage=salvage), name, f"{name}.p1"


def gone(t: float, name: str) -> Told:
    return t, events.StateChanged("paused", "discarded", "its copy failed"), name, None


def sample(t: float, mib: int) -> Told:
    return t, events.MemorySampled(mib * MIB, 0, 0, 0, 0), None, None


def step(t: float, index: int) -> Told:
    return t, events.StepStarted(index, "pause", 1, 1), None, None


def test_a_build_counts_from_its_first_failure_with_the_bytes_that_were_left_then() -> None:
    found = salvaged(
        run(
            stranded(1.0, "web-0", 8),
            stranded(2.0, "web-0", 6),  # tried again: a chunk more was copied
            stranded(3.0, "web-1", 4),
            settled(5.0, "web-0", "finished", "whole"),
            stranded(6.0, "web-2", 2),
            settled(7.0, "web-1", "discarded", "corrupt-chunk"),
            settled(8.0, "web-3", "discarded", "torn"),  # never stranded
            settled(8.5, "web-4", "finished", None),
            sample(9.0, 1),
        )
    )
    assert found.failed == ("web-0", "web-1", "web-2", "web-3")
    assert (found.stranded, found.completed, found.sandboxes, found.left) == (3, 1, ("web-0",), 1)
    assert (found.bytes, found.at_once) == (8 * MIB, 10 * MIB)
    assert (found.longest, found.seconds) == (4.0, 4.0 + 4.0 + 3.0)
    assert found.not_salvaged == {"corrupt-chunk": 1, "torn": 1}


def test_a_run_without_failures_salvaged_nothing() -> None:
    found = salvaged(run())
    assert (found.failed, found.stranded, found.completed, found.bytes, found.seconds) == ((), 0, 0, 0, 0)


def test_what_the_arm_with_the_flag_off_did_after_the_other_had_stopped_does_not_count() -> None:
    off = run(step(0.0, 0), sample(1.0, 4), gone(2.0, "web-0"), step(3.0, 1), sample(4.0, 9), gone(5.0, "web-1"))
    on = run(step(0.0, 0), sample(1.0, 5), gone(2.0, "web-2"), gone(2.5, "web-3"))
    third = run(step(0.0, 0), sample(1.0, 7))
    found = three_arms("memfd-punch-on-snapshot", off, on, third, 0)
    assert (found.off.lost, found.off.peak) == (("web-0",), 4 * MIB)
    assert (found.on.lost, found.on.peak) == (("web-2", "web-3"), 5 * MIB)
    assert (found.salvage.lost, found.salvage.peak) == ((), 7 * MIB)
    assert three_arms("memfd-punch-on-snapshot", off, on, third, None).off.lost == ("web-0", "web-1")
