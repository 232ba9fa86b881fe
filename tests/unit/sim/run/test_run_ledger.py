"""The ledger of a run that may last keeps what is judged again, and judges it as the whole would be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.events import ChunkPublished, ChunkPunched
from sim.record import events
from sim.record.ledger import EVENTS_FILE, read
from sim.rules import judge
from sim.rules.evidence import Evidence
from sim.rules.reality import Reality
from sim.run.run_ledger import UNJUDGED, RunLedger
from tests.story import Story


def followed(story: Story, folder: Path, *, long: bool) -> RunLedger:
    """As a runner keeps what the node has written."""
    ledger = RunLedger(lambda _: None, long=long)
    ledger.open(folder / EVENTS_FILE, time.monotonic(), 1)
    story.write(folder / EVENTS_FILE)
    ledger.view()
    return ledger


def story(*, punch: bool = True) -> Story:
    told = Story().begin("web-0")
    for tick in range(50):
        told.tell(events.Ticked(tick), None).tell(events.GuestMeasured(tick)).tell(events.MemorySampled(1, 1, 1), None)
    return told.pause(punch=punch)


def verdicts(ledger: RunLedger) -> dict[str, tuple[int, list[object], list[object]]]:
    found = judge(Evidence(ledger.entries, ledger.view()))
    return {name: (each.checked, list(each.violations), list(each.missing)) for name, each in found.items()}


def test_ticks_and_measurements_are_not_kept(tmp_path: Path) -> None:
    ledger = followed(story(), tmp_path, long=True)
    assert not [each for each in ledger.entries if type(each.event) in UNJUDGED]
    assert ledger.view().tick == 49
    ledger.close()


@pytest.mark.parametrize("punch", [False, True])
def test_what_is_kept_of_a_judged_pause_is_judged_as_the_whole(tmp_path: Path, punch: bool) -> None:
    ledger = followed(story(punch=punch), tmp_path, long=True)
    before, chunks = verdicts(ledger), [each for each in ledger.entries if isinstance(each.event, ChunkPublished)]
    ledger.judged(ledger.view(), [])
    left = [each for each in ledger.entries if isinstance(each.event, ChunkPublished | ChunkPunched)]
    assert len(left) == 1 + punch < len(chunks) * (1 + punch)
    assert verdicts(ledger) == before
    ledger.recall()
    assert [each for each in ledger.entries if isinstance(each.event, ChunkPublished)] == chunks
    ledger.close()


def test_a_run_that_lasts_may_write_more_than_a_strangers_ledger_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.record.ledger.MOST_LEDGER_BYTES", 100)
    ledger = followed(story(), tmp_path, long=True)
    ledger.recall()
    assert ledger.view().tick == 49
    ledger.close()
    reality = Reality("r", 1, tmp_path, tmp_path, tmp_path)
    assert len(reality.entries_by_now()) > len(ledger.entries)


def test_a_pause_that_violates_is_kept_whole(tmp_path: Path) -> None:
    told = Story().begin("web-0").begin_pause(punch=True)
    told.tell(ChunkPunched(1, 4096), pause="web-0.p1").publish(1).settle().go("paused")
    ledger = followed(told, tmp_path, long=True)
    before = verdicts(ledger)
    assert before["no_unpublished"][1]
    ledger.judged(ledger.view(), ["web-0.p1"])
    assert verdicts(ledger) == before
    ledger.close()


def test_other_runs_keep_everything(tmp_path: Path) -> None:
    ledger = followed(story(), tmp_path, long=False)
    ledger.judged(ledger.view(), [])
    ledger.recall()
    assert len(ledger.entries) == len(read(tmp_path / EVENTS_FILE))
    ledger.close()


def test_decisions_that_are_alike_are_one_object(tmp_path: Path) -> None:
    flags = {"memfd-punch-on-snapshot": {"value": True, "version": 3}}
    told = Story().begin("web-0")
    told.tell(events.Decided(flags), pause="web-0.p1").tell(events.Decided(dict(flags)), pause="web-0.p2")
    first, second = (e.event for e in read(told.write(tmp_path / EVENTS_FILE)) if isinstance(e.event, events.Decided))
    assert first == second
    assert first.flags is second.flags
