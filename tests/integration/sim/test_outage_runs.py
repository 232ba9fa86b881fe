"""Runs whose flags come over a real socket, through the real SDK, from a relay that is made to fail."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from engine.errors import UserError
from flags.catalog import FLAGS
from sim.files.scenario import load_text
from sim.files.steps import Outage
from sim.record import events, source_events
from sim.record.folder import StoredRun
from sim.record.ledger import Entry
from sim.report.judgements import why
from sim.run.drill import Drill
from sim.run.forked_nodes import nodes_for
from sim.run.node_link import NodeStarter
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

Told = TypeVar("Told")
PUNCH = "memfd-punch-on-snapshot"
KEY = "sdk-11111111-not-a-real-one"
FLEET = """
name: outage
fleet:
  - {name: web, count: 2, memory: 4MiB, workload: {dirty: 100%, pattern: full}}
"""


async def run(folder: Path, text: str) -> StoredRun:
    scenario = load_text(FLEET.lstrip() + text, folder / "outage.yaml")
    return await run_scenario(scenario, RunOptions(runs_dir=folder / "runs", start_node=forked_node))


def drill(folder: Path, flags: str, start_node: NodeStarter = forked_node) -> Drill:
    text = f"{FLEET.lstrip()}flags: {flags}\nsteps:\n  - tick: 1\n"
    return Drill(load_text(text, folder / "outage.yaml"), runs_dir=folder / "runs", start_node=start_node)


def told(entries: Sequence[Entry], kind: type[Told]) -> list[Told]:
    return [each.event for each in entries if isinstance(each.event, kind)]


def source_states(fleet: Drill) -> list[source_events.FlagSourceChanged]:
    """As the node has told them up to now."""
    fleet.view()
    return told(fleet.entries, source_events.FlagSourceChanged)


def decided(subject: Drill | StoredRun, sandbox: str) -> tuple[object, str, str]:
    """Of the punch flag, in the sandbox's last pause."""
    view = subject.view() if isinstance(subject, Drill) else subject.view
    pauses = [each for each in view.pauses if each.sandbox == sandbox]
    flag = pauses[-1].decision[PUNCH]
    return flag["value"], flag["reason"], flag["source_state"]


async def test_each_evaluation_is_told_in_opentelemetrys_names_too(tmp_path: Path) -> None:
    async with drill(tmp_path, f"{{{PUNCH}: true}}") as fleet:
        await fleet.pause(["web-0"])
        fleet.view()
    (event,) = told(fleet.entries, events.Decided)
    evaluations = {each["feature_flag.key"]: each for each in event.evaluations}
    assert evaluations.keys() == event.flags.keys() == FLAGS.keys()
    assert evaluations[PUNCH] == {
        "feature_flag.key": PUNCH,
        "feature_flag.provider.name": "LaunchDarkly",
        "feature_flag.result.value": True,
        "feature_flag.result.variant": "1",
        "feature_flag.result.reason": "default",
        "feature_flag.version": "1",
        "feature_flag.context.id": "web-0",
    }


async def test_half_open_a_change_is_not_effective_and_the_sdk_says_valid_until_it_is_over(tmp_path: Path) -> None:
    async with drill(tmp_path, f"{{source: relay, {PUNCH}: true}}") as fleet:
        await fleet.outage(Outage(fault="freeze"))
        await fleet.set_flag(PUNCH, value=False)
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (True, "FALLTHROUGH", "VALID")
        await fleet.outage(Outage(fault="recover"))
        await fleet.pause(["web-1"])
        assert decided(fleet, "web-1") == (False, "FALLTHROUGH", "VALID")
        await fleet.set_flag(PUNCH, value=True)
        await fleet.finish()
    changes = told(fleet.entries, events.FlagSet)
    assert [(each.value, each.effective) for each in changes] == [(True, True), (False, False), (True, True)]
    assert [each.took_ms is not None for each in changes] == [False, False, True]
    assert told(fleet.entries, source_events.OutageBegan) == [source_events.OutageBegan("freeze", "")]
    assert len(told(fleet.entries, source_events.OutageEnded)) == 1


async def test_a_lease_makes_the_difference(tmp_path: Path) -> None:
    steps = "steps:\n  - tick: 1\n  - outage: {fault: freeze}\n  - wait: 700ms\n  - pause: {}\n"
    without = await run(tmp_path, f"flags: {{source: relay, {PUNCH}: true}}\n{steps}")
    leased = await run(tmp_path, f"flags: {{source: relay, lease: 500ms, {PUNCH}: true}}\n{steps}")
    assert decided(without, "web-0") == (True, "FALLTHROUGH", "VALID")
    assert decided(leased, "web-0") == (False, "lease_expired", "VALID")
    assert [each.punched_bytes > 0 for each in without.view.pauses] == [True, True]
    assert [each.punched_bytes for each in leased.view.pauses] == [0, 0]


@pytest.mark.parametrize(("fault", "error"), [("refuse", "HTTP 503 from LaunchDarkly"), ("down", "refused")])
async def test_a_lost_service_is_told_and_the_last_good_flags_stay_in_force(
    tmp_path: Path, fault: str, error: str, wait_until: Callable[..., object]
) -> None:
    async with drill(tmp_path, f"{{source: relay, {PUNCH}: true}}") as fleet:
        await fleet.outage(Outage.model_validate({"fault": fault}))
        wait_until(lambda: any(error in (each.error or "") for each in source_states(fleet)))
        await fleet.set_flag(PUNCH, value=False)
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (True, "FALLTHROUGH", "INTERRUPTED")
        await fleet.outage(Outage(fault="recover"))
        await fleet.pause(["web-1"])
        assert decided(fleet, "web-1") == (False, "FALLTHROUGH", "VALID")
    states = [each.state for each in source_states(fleet)]
    assert list(dict.fromkeys(states)) == ["VALID", "INTERRUPTED"]
    assert (states[0], states[-1]) == ("VALID", "VALID")


async def test_a_slow_service_is_waited_for(tmp_path: Path) -> None:
    async with drill(tmp_path, f"{{source: relay, {PUNCH}: true}}") as fleet:
        await fleet.outage(Outage(fault="slow", delay=0.2))
        await fleet.set_flag(PUNCH, value=False)
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (False, "FALLTHROUGH", "VALID")
    (_, off) = told(fleet.entries, events.FlagSet)
    assert off.took_ms is not None
    assert off.took_ms >= 200


async def test_a_dropped_stream_is_waited_for_and_a_flapping_one_is_not(tmp_path: Path) -> None:
    async with drill(tmp_path, f"{{source: relay, {PUNCH}: true}}") as fleet:
        await fleet.outage(Outage(fault="drop"))
        await fleet.set_flag(PUNCH, value=False)
        await fleet.outage(Outage(fault="flap", every=0.05))
        await fleet.set_flag(PUNCH, value=True)
        await fleet.outage(Outage(fault="recover"))
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (True, "FALLTHROUGH", "VALID")
    assert [each.effective for each in told(fleet.entries, events.FlagSet)] == [True, True, False]


async def test_a_service_that_is_down_at_start_means_safe_values_also_after_a_restart(tmp_path: Path) -> None:
    async with drill(tmp_path, f"{{source: relay, start: down, {PUNCH}: true}}") as fleet:
        await fleet.crash()
        await fleet.restart()
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (False, "ERROR:CLIENT_NOT_READY", "INITIALIZING")
        await fleet.outage(Outage(fault="recover"))
        await fleet.pause(["web-1"])
        assert decided(fleet, "web-1") == (True, "FALLTHROUGH", "VALID")


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> str:
    """LaunchDarkly's address is a port of the loopback that was just closed."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("LAUNCHDARKLY_STREAM_URI", address)
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", KEY)
    return address


@pytest.mark.usefixtures("nobody_listens")
async def test_launchdarkly_that_never_answers_is_inconclusive_and_no_expectation_is_violated_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.node.flags.READY_SECONDS", 0.5)
    scenario = load_text(
        FLEET.lstrip() + "flags: {source: launchdarkly}\nsteps: [{tick: 1}, {pause: {}}]\n"
        "expect: [{metric: punched_bytes, min: 1}]\n",
        tmp_path / "outage.yaml",
    )
    result = await run_scenario(scenario, RunOptions(runs_dir=tmp_path / "runs"))
    assert result.view.ended is not None
    assert (result.view.ended.verdict, result.view.ended.exit_code) == ("inconclusive", 3)
    found = {each.subject: each for each in result.view.judged if each.verdict != "held"}
    assert {subject: each.verdict for subject, each in found.items()} == {
        "metric:punched_bytes": "inconclusive",
        "flags:launchdarkly": "inconclusive",
    }
    reason = found["flags:launchdarkly"].violations[0]
    assert (reason["line"], reason["reason"].startswith("LaunchDarkly was never reached: ")) == (4, True)
    assert decided(result, "web-0")[:2] == (False, "ERROR:CLIENT_NOT_READY")
    assert "flags:launchdarkly: LaunchDarkly was never reached: " in why(result.view)


async def test_what_never_reaches_the_node_is_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.flag_source._LASTING", frozenset())  # as if a frozen service could be waited for
    monkeypatch.setattr("sim.run.flag_source.EFFECTIVE_SECONDS", 0.3)
    steps = f"steps:\n  - outage: {{fault: freeze}}\n  - flag: {{{PUNCH}: false}}\n"
    result = await run(tmp_path, f"flags: {{source: relay, {PUNCH}: true}}\n{steps}")
    assert result.view.ended is not None
    assert result.view.ended.verdict == "violated"
    (late,) = [each for each in result.view.judged if each.subject == "deadline:flag"]
    assert (late.violations[0]["line"], "did not reach the node" in late.violations[0]["reason"]) == (7, True)
    assert told(result.entries, events.FlagSet)[-1] == events.FlagSet(PUNCH, False, effective=False)


async def test_a_torn_flag_file_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "flags.json").write_text('{"flags": {}}')
    async with drill(tmp_path, "{file: flags.json}") as fleet:
        await fleet.outage(Outage(fault="tear"))
        with pytest.raises(UserError, match="torn"):
            await fleet.set_flag(PUNCH, value=True)
        await fleet.outage(Outage(fault="recover"))
        await fleet.set_flag(PUNCH, value=True)
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0")[0] is True


async def test_a_node_that_starts_again_finds_the_flag_file_torn_and_recovers_with_safe_values(tmp_path: Path) -> None:
    (tmp_path / "flags.json").write_text('{"flags": {}}')
    async with drill(tmp_path, "{file: flags.json}") as fleet:
        await fleet.set_flag(PUNCH, value=True)
        await fleet.outage(Outage(fault="tear"))
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (True, "FALLTHROUGH", "INTERRUPTED"), "the last good content"
        await fleet.crash()
        await fleet.restart()
        assert fleet.view().counts == {"paused": 1, "running": 1}
        await fleet.pause(["web-1"])
        assert decided(fleet, "web-1") == (False, "ERROR:CLIENT_NOT_READY", "INITIALIZING")
        await fleet.outage(Outage(fault="recover"))
        await fleet.resume(["web-0"])
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0") == (True, "FALLTHROUGH", "VALID")


@pytest.mark.parametrize("runs", [1, 2])
async def test_the_sdk_key_reaches_neither_the_run_folder_nor_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", KEY)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there, so nothing leaves this machine
    with nodes_for(runs) as start_node:
        async with drill(tmp_path, "{source: launchdarkly}", start_node) as fleet:
            guests = [each.pid for each in told(fleet.entries, events.GuestSpawned)]
            (node,) = told(fleet.entries, events.NodeStarted)
            holders = [pid for pid in (node.pid, node.zygote_pid, *guests) if KEY.encode() in environment(pid)]
            executed = [node.pid] if runs == 1 else []  # a forked one was sent the key
            assert (len(guests), holders) == (2, executed)
            await fleet.pause(["web-0"])
            assert decided(fleet, "web-0")[:2] == (False, "ERROR:CLIENT_NOT_READY")
            await fleet.finish()
    files = [path for path in fleet.run_dir.rglob("*") if path.is_file()]
    assert [path.name for path in files if KEY.encode() in path.read_bytes()] == []
    assert {"node.json", "events.jsonl", "node.log"} <= {path.name for path in files}


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_edits_from_outside_of_the_followed_file_are_judged(tmp_path: Path) -> None:
    """A hand in the run folder turns the flag off, tears the file, and puts it back: the run notes each, and judges."""
    flag = {"key": PUNCH, "on": True, "variations": [False, True], "fallthrough": {"variation": 1}, "offVariation": 0}
    text = json.dumps({"flags": {PUNCH: flag}})
    (tmp_path / "flags.json").write_text(text)
    async with drill(tmp_path, "{file: flags.json, lease: 200ms}") as fleet:
        copy = fleet.run_dir / "flags.json"

        async def noted(content: str, found: str) -> None:
            copy.write_text(content)
            async with asyncio.timeout(20):
                while [each.found for each in told(fleet.entries, source_events.FlagFileEdited)][-1:] != [found]:
                    await asyncio.sleep(0.01)
                    fleet.view()

        await noted(text.replace('"on": true', '"on": false'), "off")
        await asyncio.sleep(0.4)  # half of the lease, and what a line of the ledger may take
        await fleet.pause(["web-0"])
        assert decided(fleet, "web-0")[:2] == (False, "OFF")
        await noted(text[:-1], "torn")
        await asyncio.sleep(0.5)
        await fleet.pause(["web-1"])
        assert decided(fleet, "web-1")[:2] == (False, "lease_expired")
        await noted(text, "not off")
        await fleet.finish()
        judged = fleet.findings["off_arrives"]
    assert (judged.checked, judged.violations) == (2, [])
