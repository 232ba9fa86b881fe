from __future__ import annotations

from pathlib import Path

from engine.events import Stranded
from sim.record import events
from sim.record.folder import open_run
from tests.command_line import rehearse

PLAN = """\
kind: plan
name: third
seed: 3
pacing: {mostRounds: 1}
fleet:
  - {name: code, count: 4, memory: 6MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-background-copy: false}
metrics:
  - {name: lost_because_of_the_flag, failureCondition: result > 0, critical: true, onFailure: abort}
steps:
  - setWeight: 100
  - inject: {fault: copy.write, errno: ENOSPC, at: after_condemn, rate: 50%}
  - wait: {for: 1m}
  - analysis: {}
  - clear: {}
  - wait: {for: 1m}
"""


def test_what_the_flag_costs_is_lost_in_the_second_arm_alone_and_completed_in_the_third(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    chat = tmp_path / "chat.md"
    found = rehearse(tmp_path / "plan.yaml", tmp_path, "--salvage-arm", "--summary", str(chat))
    arms = found["salvage_arm"]
    assert (found["decision"], found["exit_code"]) == ("no-go", 1)
    lost = set(arms["on"]["lost"])
    assert 0 < len(lost) < 4
    assert (arms["off"]["lost"], arms["salvage"]["lost"]) == ([], [])
    # the plan aborted at its analysis, with the faults still armed: they are cleared before the last attempt
    assert set(arms["salvaged"]["failed"]) == set(arms["salvaged"]["sandboxes"]) == lost
    assert (arms["salvaged"]["left"], arms["salvaged"]["not_salvaged"]) == (0, {})
    assert arms["salvaged"]["bytes"] >= arms["salvaged"]["at_once"] > 0
    assert all(arms[each]["peak"] > 0 for each in ("off", "on", "salvage"))
    assert found["runs"]["salvage"]["verdict"] == "held"
    latest = tmp_path / "runs" / "third" / "latest"
    assert latest.resolve() == Path(found["folders"]["on"]).resolve()
    _stranded_memory_is_counted_as_held(Path(found["folders"]["salvage"]))
    page = (latest / "rehearsal.html").read_text()
    assert "on, with salvage" in page
    assert "on, with salvage" in chat.read_text()


def _stranded_memory_is_counted_as_held(folder: Path) -> None:
    """After the first round of pauses no guest is left, and every page that is dirty is in a build or stranded."""
    held: dict[str | None, int] = {}
    last = None
    for entry in open_run(folder).entries:
        match entry.event:
            case Stranded(length=length):
                held[entry.pause] = length
            case events.MemorySampled(guests=guests):
                last = guests
            case events.StepStarted(step="resume"):
                break
    assert last == sum(held.values()) > 0
