"""A guest, the zygote or the node is killed by somebody else: the run says so, by name, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from typing import Any

import pytest

from sim.record import events
from sim.record.folder import read_record
from sim.record.leftovers import processes_of
from sim.record.verdict import Verdict
from tests.command_line import snapdrill

IDLE = "  - tick: 1\n  - wait: 1s\n  - pause: {sandboxes: web-0}\n"


class Killed:
    """A run as a process whose ledger is followed until its victim is known."""

    def __init__(self, runs: Any, steps: str = IDLE) -> None:
        self.runs = runs
        self.path = runs.folder / "crash.yaml"
        self.path.write_text(runs.scenario_text(steps=steps))
        self.process = runs.command("run", str(self.path), "--runs-dir", str(runs.runs))

    def wait_for(self, kind: type[Any], wait_until: Any, count: int = 1) -> Any:
        return wait_until(lambda: found[-1] if len(found := self.runs.told(kind)) >= count else None)

    def end(self) -> tuple[int, str]:
        output, errors = self.process.communicate(timeout=60)
        assert "Traceback" not in errors
        self.runs.assert_nothing_is_left()
        return self.process.returncode, output

    def check(self, *more: str) -> tuple[int, str]:
        """`snapdrill check` of its ledger, or with `--trace`."""
        (run_dir,) = self.runs.run_dirs()
        target = [*more, str(run_dir / "events.jsonl")] if more else [str(run_dir)]
        done = snapdrill("check", *target)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout


def missing(runs: Any) -> list[dict[str, Any]]:
    (judged,) = [each for each in runs.told(events.Judged) if each.subject == "invariant:deaths_explained"]
    assert judged.verdict == Verdict.INCONCLUSIVE
    return list(judged.violations)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["web-0.1", "web-1.1"])
def test_a_guest_that_is_killed_while_idle_leaves_its_run_inconclusive_and_is_named(
    runs: Any, wait_until: Any, victim: str
) -> None:
    killed = Killed(runs)
    killed.wait_for(events.Ticked, wait_until)
    (born,) = [each for each in runs.told(events.GuestSpawned) if each.incarnation == victim]
    os.kill(born.pid, signal.SIGKILL)
    code, output = killed.end()
    assert code == 3, output
    (found,) = missing(runs)
    assert (found["incarnation"], found["pid"], found["state"]) == (victim, born.pid, "running")
    assert f"the guest {victim} (pid {born.pid}) died" in " ".join(output.split())
    for more in ([], ["--trace"]):
        code, said = killed.check(*more)
        assert (code, f"{victim} (pid {born.pid}) died" in " ".join(said.split())) == (3, True), said


@pytest.mark.slow
@pytest.mark.parametrize("moment", [events.NodeStarted, events.Ticked, events.GuestFrozen, events.PauseSettled])
@pytest.mark.parametrize("victim", ["node", "zygote"])
def test_a_node_or_zygote_that_is_killed_is_a_verdict(
    runs: Any, wait_until: Any, victim: str, moment: type[Any]
) -> None:
    steps = "  - tick: 1\n  - pause: {}\n  - resume: {}\n  - wait: 300ms\n  - tick: 1\n"
    killed = Killed(runs, steps)
    killed.wait_for(moment, wait_until)
    (node,) = runs.told(events.NodeStarted)
    pid = node.pid if victim == "node" else node.zygote_pid
    os.kill(pid, signal.SIGKILL)
    code, output = killed.end()
    assert code == 3, output
    assert any(each["reason"].startswith(f"the {victim} (pid {pid}) died") for each in missing(runs))
    (ended,) = runs.told(events.RunEnded)
    assert ended.digest is None


async def test_a_run_with_an_unexplained_death_claims_no_digest(runs: Any) -> None:
    async with runs.drill() as drill:
        await drill.tick()
        (first, *_) = [each.event for each in drill.entries if isinstance(each.event, events.GuestSpawned)]
        os.kill(first.pid, signal.SIGKILL)
        await drill.tick()
        view = await drill.finish()
    assert view.ended is not None
    assert (view.ended.verdict, view.ended.digest) == ("inconclusive", None)
    assert processes_of(read_record(pathlib.Path(drill.run_dir)).run) == []
    assert json.dumps([each.violations for each in view.judged if "deaths" in each.subject]).count(str(first.pid)) == 2
