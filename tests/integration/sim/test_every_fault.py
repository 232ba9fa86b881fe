"""Every kind of fault at every point, on real guests: one sandbox a point, and every invariant judged."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from sim.files.faults import CATALOGUE, KILL_NODE, AtChunk, FaultPoint, Harm, Kind, failing, points_with
from sim.files.faults import KINDS as FAULT_KINDS
from sim.files.scenario import load_text
from sim.record import events
from sim.record.folder import StoredRun
from sim.run.node_link import NodeDiedError
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

BEFORE: frozenset[FaultPoint] = frozenset({"freeze", "scan", "cache.create", "reserve"})
AFTER: frozenset[FaultPoint] = frozenset({"teardown", "death", "close"})
NOT_FATAL: frozenset[FaultPoint] = frozenset({"condemn", "punch"})
HARMLESS: frozenset[Kind] = frozenset({"delay", "corrupt", "free-pages", "second-writer"})
WOKEN: frozenset[Kind] = frozenset({"wake-guest", "trace-guest"})
HARMS: dict[Kind, Harm] = {
    "errno": failing("ENOSPC"),
    "delay": Harm("delay", seconds=0.05),
    "hang": Harm("hang", seconds=0.05),
}
KINDS: tuple[Kind, ...] = tuple(kind for kind in FAULT_KINDS if kind != "kill-node")


def expected(point: FaultPoint, kind: Kind, chunk: int) -> tuple[str, str | None]:
    """State and outcome of a sandbox in whose foreground pause (or resume) the fault fired at this chunk."""
    if CATALOGUE[point].of_resume:
        return ("running", "finished") if kind == "delay" else ("paused", "finished")
    if kind in WOKEN | {"kill-guest"} and point in {"condemn", "teardown"}:  # between the record and our own kill
        return "discarded", "discarded"
    if kind in HARMLESS or point in AFTER | {"punch"}:
        return "paused", "finished"
    is_before = point in BEFORE or (CATALOGUE[point].chunked and chunk == 0)
    if kind == "kill-guest":
        return ("killed", "rolled-back") if is_before else ("paused", "finished")
    if kind in WOKEN | {"cancel"}:
        return ("running", "rolled-back") if is_before else ("paused", "finished")
    if point in NOT_FATAL:
        return "paused", "finished"
    return ("running", "rolled-back") if is_before else ("discarded", "discarded")


def violations(view: Any) -> list[Any]:
    return [(each.subject, each.violations) for each in view.judged if each.verdict != "held"]


@pytest.mark.parametrize("chunk", [0, 1], ids=["uncondemned", "condemned"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_fault_ends_as_the_rules_say_and_every_invariant_holds(runs: Any, kind: Kind, chunk: int) -> None:
    names = {f"web-{index}": point for index, point in enumerate(points_with(kind))}
    async with runs.drill(count=len(names), memory="4MiB") as drill:
        await drill.tick()
        for name, point in names.items():
            await drill.inject(point, HARMS.get(kind, Harm(kind)), AtChunk(chunk), name)
        await drill.pause(list(names))
        await drill.resume([name for name, point in names.items() if CATALOGUE[point].of_resume])
        view = drill.view()
        found = {point: (view.sandboxes[n].state, view.sandboxes[n].pause.outcome) for n, point in names.items()}
        assert found == {point: expected(point, kind, chunk) for point in names.values()}
        assert {each.sandboxes for each in view.faults if each.fired} == set(names)
        await drill.clear()
        await drill.resume([name for name, each in view.sandboxes.items() if each.state == "paused"])
        await drill.tick()
        await drill.pause([name for name, each in drill.view().sandboxes.items() if each.state == "running"])
        view = await drill.finish()
    assert violations(view) == []
    assert {each.state for each in view.sandboxes.values()} <= {"paused", "discarded", "killed"}
    runs.assert_nothing_is_left()


@pytest.mark.parametrize("kind", sorted(WOKEN))
async def test_a_guest_that_was_woken_during_a_checkpoint_in_place_loses_nothing_that_it_wrote(
    runs: Any, kind: Kind
) -> None:
    names = {f"web-{n}": point for n, point in enumerate(points_with(kind)) if not CATALOGUE[point].of_resume}
    async with runs.drill(count=len(names), memory="4MiB", in_place=True) as drill:
        await drill.tick()
        for name, point in names.items():
            await drill.inject(point, Harm(kind), AtChunk(0), name)
        await drill.checkpoint(list(names))
        fired = {each.sandboxes for each in drill.view().faults if each.fired}
        await drill.clear()
        await drill.pause([name for name, each in drill.view().sandboxes.items() if each.state == "running"])
        await drill.resume([name for name, each in drill.view().sandboxes.items() if each.state == "paused"])
        view = await drill.finish()
    assert violations(view) == []
    assert "finish" in {names[name] for name in fired}  # after the last look, before its writes are watched anew


@pytest.mark.parametrize("harm", [failing("EIO"), Harm("hang", seconds=0.02)], ids=["errno", "hang"])
async def test_a_checkpoint_in_place_that_cannot_close_what_it_used_leaves_its_guest_alone(
    runs: Any, harm: Harm
) -> None:
    async with runs.drill(count=1, memory="4MiB", in_place=True) as drill:
        await drill.tick()
        await drill.inject("close", harm, AtChunk(0), "web-0")
        await drill.checkpoint(["web-0"])
        found = drill.view().sandboxes["web-0"]
        assert (found.state, found.incarnation, found.pause.outcome) == ("running", "web-0.1", "finished")
        await drill.tick()
        view = await drill.finish()
    assert violations(view) == []


async def test_a_damaged_snapshot_is_refused_by_its_name_and_its_sandbox_stays_paused(runs: Any) -> None:
    async with runs.drill(count=2, memory="4MiB") as drill:
        await drill.tick()
        await drill.inject("copy.write", Harm("corrupt"), AtChunk(1), "web-0")
        await drill.inject("header.write", Harm("corrupt"), AtChunk(0), "web-1")
        await drill.pause(["web-0", "web-1"])
        for _ in range(2):
            await drill.resume(["web-0", "web-1"])
            found = drill.view().sandboxes
            assert [each.state for each in found.values()] == ["paused", "paused"]
            assert "build web-0.p1: chunk 1 does not match its digest" in found["web-0"].reason
            assert "build web-1.p1: the header's checksum does not match" in found["web-1"].reason
            await drill.crash()
            await drill.restart()
        view = await drill.finish()
    assert violations(view) == []


SAME = """\
name: same
fleet:
  - {{name: read, memory: 4MiB, workload: {{dirty: 100%, pattern: full}}}}
  - {{name: write, memory: 4MiB, workload: {{dirty: 100%, pattern: full}}}}
  - {{name: punch, memory: 4MiB, workload: {{dirty: 100%, pattern: full}}}}
  - {{name: again, memory: 4MiB, workload: {{dirty: 100%, pattern: full}}}}
flags: {{memfd-punch-on-snapshot: true, memfd-background-copy: {background}, use-memfd: {memfd}}}
steps:
  - tick: 1
  - inject: {{fault: copy.read, errno: EIO, at: {{chunk: 1}}, sandboxes: read-0{by}}}
  - inject: {{fault: copy.write, errno: ENOSPC, at: {{chunk: 1}}, sandboxes: write-0{by}}}
{punch}
  - inject: {{fault: copy.read, errno: ENOMEM, at: {{chunk: 0}}, sandboxes: again-0{by}}}
  - pause: {{}}
  - clear: {{}}
  - resume: {{allow_empty: true}}
  - tick: 1
  - pause: {{allow_empty: true}}
"""


async def run_same(folder: pathlib.Path, by: str, **flags: str) -> StoredRun:
    punch = f"  - inject: {{fault: punch, errno: EPERM, at: {{chunk: 1}}, sandboxes: punch-0{by}}}"
    text = SAME.format(by=by, punch=punch if flags["memfd"] == "true" else "", **flags)
    result = await run_scenario(
        load_text(text, folder / "same.yaml"), RunOptions(folder / "runs", start_node=forked_node)
    )
    assert violations(result.view) == []
    return result


@pytest.mark.parametrize(
    ("background", "memfd"),
    [("false", "true"), ("true", "true"), ("false", "false")],
    ids=["sync", "background", "process"],
)
async def test_what_the_kernel_returns_and_what_is_wrapped_end_in_the_same_digest(
    tmp_path: pathlib.Path, background: str, memfd: str
) -> None:
    wrapped = await run_same(tmp_path, "", background=background, memfd=memfd)
    kernel = await run_same(tmp_path, ", by: kernel", background=background, memfd=memfd)
    told = [[each.error or each.punch_error for each in run.view.pauses[:4]] for run in (wrapped, kernel)]
    assert [("(injected)" in str(error)) for error in told[0]] == [error is not None for error in told[1]]
    assert not any("(injected)" in str(error) for error in told[1])
    assert wrapped.view.ended is not None
    assert kernel.view.ended is not None
    assert wrapped.view.ended.digest == kernel.view.ended.digest is not None


async def test_a_fault_of_the_second_pause_lets_the_first_be(runs: Any) -> None:
    async with runs.drill(count=1, memory="4MiB") as drill:
        await drill.inject("copy.write", failing("EIO"), AtChunk(0), "*", nth=2)
        await drill.inject("resume.read", failing("EIO"), AtChunk(0), "*", nth=3)
        for _ in range(3):
            await drill.tick()
            await drill.pause(["web-0"])
            await drill.resume(["web-0"])
        view = drill.view()
        assert [each.outcome for each in view.pauses] == ["finished", "rolled-back", "finished"]
        assert view.sandboxes["web-0"].state == "paused"
        await drill.resume(["web-0"])
        assert drill.view().sandboxes["web-0"].incarnation == "web-0.4"
        view = await drill.finish()
    assert violations(view) == []


TRACED = """\
name: traced
fleet:
  - {name: web, memory: 2MiB}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: false}
steps:
  - tick: 1
  - pause: {}
  - resume: {}
"""


async def test_a_traced_run_tells_every_point_of_the_catalogue_in_order(tmp_path: pathlib.Path) -> None:
    reached: list[list[events.PointReached]] = []
    for trace in (True, False):
        options = RunOptions(tmp_path / "runs", trace=trace, start_node=forked_node)
        result = await run_scenario(load_text(TRACED, tmp_path / "t.yaml"), options)
        reached.append([each.event for each in result.entries if isinstance(each.event, events.PointReached)])
    at = list(CATALOGUE)
    at.insert(at.index("condemn") + 1, at.pop(at.index("teardown")))  # it is to be punched, so it is killed first
    at.insert(at.index("teardown") + 1, at.pop(at.index("death")))
    assert [each.fault for each in reached[0]] == at
    assert {each.fault: each.chunk for each in reached[0]} == {
        p: 0 if s.chunked else None for p, s in CATALOGUE.items()
    }
    assert [each.nth for each in reached[0]] == [2 if CATALOGUE[p].of_resume else 1 for p in at]
    assert reached[1] == []


# -- the node dies at every point

DISCARDED: frozenset[FaultPoint] = frozenset(
    {"copy.read", "copy.write", "publish", "punch", "header.write", "finish", "teardown", "death"}
)


def after_a_crash(point: FaultPoint) -> str:
    return "discarded" if point in DISCARDED else "running" if point in BEFORE | {"condemn"} else "paused"


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True], ids=["sync", "background"])
@pytest.mark.parametrize("half", [0, 1])
async def test_a_crash_at_any_point_is_recovered_from(runs: Any, background: bool, half: int) -> None:
    names = {f"web-{index}": point for index, point in enumerate(list(CATALOGUE)[half::2])}
    async with runs.drill(count=len(names) + 1, memory="4MiB", background=background) as drill:
        await drill.tick()
        for name, point in names.items():
            act = drill.pause
            if CATALOGUE[point].of_resume:
                await drill.pause([name])
                act = drill.resume
            await drill.inject(point, KILL_NODE, AtChunk(1), name, 1)
            with pytest.raises(NodeDiedError):
                await act([name])
            await drill.restart()
            assert drill.view().sandboxes[name].state == after_a_crash(point), point
        await drill.tick()
        await drill.resume([name for name, each in drill.view().sandboxes.items() if each.state == "paused"])
        await drill.tick()
        await drill.pause([name for name, each in drill.view().sandboxes.items() if each.state == "running"])
        view = await drill.finish()
    assert violations(view) == []
    assert {each.state for each in view.sandboxes.values()} == {"paused", "discarded"}
    runs.assert_nothing_is_left()
