"""A guest that another process lets run in mid-copy writes: the copy is torn, and never becomes a build."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from sim.files.faults import AtChunk, Harm, Kind
from sim.record import events
from sim.record.oracle import PAGE
from sim.run import tracing

SIDE = 4  # bytes of a page's generation
REFUSED = """\
import errno, sys
from engine import linux
from sim.run import tracing
linux._FAILABLE["ptrace"] = linux._Failable((101,), (117,), None)
linux.fail_calls("ptrace", linux._PTRACE_SEIZE, None, errno.EPERM)
assert tracing.refusal() == "Operation not permitted"
tracing.refusal = lambda: None  # as if it was allowed when the run was checked
from sim.cli import main
sys.exit(main())
"""


def generations(drill: Any, sandbox: str) -> bytes:
    """As the guest has them in its side memory."""
    born = next(
        each.event for each in drill.entries if each.sandbox == sandbox and isinstance(each.event, events.GuestSpawned)
    )
    side = pathlib.Path(f"/proc/{born.pid}/fd/{born.side_fd}").read_bytes()
    return side[: drill.scenario.sandboxes()[0].memory // PAGE * SIDE]


@pytest.mark.parametrize("kind", ["wake-guest", "trace-guest"])
async def test_a_copy_that_a_writing_guest_tears_is_deleted_and_the_next_one_has_what_it_wrote(
    runs: Any, kind: Kind
) -> None:
    if kind == "trace-guest" and (why := tracing.refusal()) is not None:
        pytest.skip(f"ptrace is refused here: {why}")
    async with runs.drill(count=1, memory="8MiB", punch=False) as drill:
        await drill.tick()
        before = generations(drill, "web-0")
        await drill.inject("copy.read", Harm(kind), AtChunk(2), "web-0", count=1)
        await drill.pause(["web-0"])
        pause = drill.view().sandboxes["web-0"].pause
        assert (pause.outcome, list(drill.cache_dir.glob("*.p1*"))) == ("rolled-back", [])
        after = generations(drill, "web-0")
        wrote = [page for page in range(len(after) // SIDE) if after[page * SIDE] == before[page * SIDE] + 1]
        assert wrote[0] < len(after) // SIDE // 2 < wrote[-1] == len(after) // SIDE - 1  # copied already, and not yet
        await drill.pause(["web-0"])  # bytes_exact compares it with what the guest wrote
        view = await drill.finish()
    assert [each.outcome for each in view.pauses] == ["rolled-back", "finished"]
    assert [each.subject for each in view.judged if each.verdict != "held"] == []


def test_a_run_whose_kernel_refuses_ptrace_after_its_start_is_inconclusive_and_says_which_fault_never_fired(
    runs: Any,
) -> None:
    inject = "  - inject: {fault: %s, how: trace-guest, sandboxes: web-%d}\n"
    steps = "  - tick: 1\n" + inject % ("copy.read", 0) + inject % ("condemn", 1) + "  - pause: {}"
    (runs.folder / "traced.yaml").write_text(runs.scenario_text(count=2, memory="4MiB", steps=steps))
    out, err = (process := runs.python(REFUSED, "run", "traced.yaml")).communicate(timeout=60)
    assert process.returncode == 3, out + err
    assert "host:EPERM" in out
    assert out.count("never fired") >= 2
    assert "violated" not in out
