from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from flags.inline import Rollout, flag_from
from flags.relay import Relay
from sim.cli import main
from sim.rollout.exposure import weight_of

PUNCH = "memfd-punch-on-snapshot"
PLAN = """\
kind: plan
name: follow
time: real
fleet:
  - {name: code, count: 4, memory: 1MiB}
flags: {source: launchdarkly}
accept:
  jump: the operator turns it at once
  no-metrics: only who is exposed is looked at
  half-open: the relay is sound
steps:
  - setWeight: 0
  - wait: {for: 100ms}
  - setWeight: 100
  - wait: {for: 100ms}
"""


def served(weight: float) -> dict[str, Any]:
    return flag_from(PUNCH, Rollout(weight, "sandbox"))


@pytest.mark.parametrize("weight", [0.0, 0.5, 10.0, 100.0])
def test_the_weight_is_read_from_the_flag_as_it_is_served(weight: float) -> None:
    assert weight_of(served(weight), safe=False) == weight


def test_a_flag_that_is_off_or_serves_one_value_has_a_weight_too() -> None:
    assert weight_of({**served(50.0), "on": False}, safe=False) == 0.0
    assert weight_of(flag_from(PUNCH, True), safe=False) == 100.0
    assert weight_of({"on": True, "variations": [False, True], "fallthrough": {}}, safe=False) is None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_plan_follows_the_real_flag_as_its_operator_turns_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-loopback")
    with Relay({PUNCH: served(0.0)}) as relay:
        monkeypatch.setenv("LAUNCHDARKLY_STREAM_URI", relay.uri)
        turned = threading.Event()
        operator = threading.Thread(target=_operate, args=(relay, tmp_path / "runs", turned))
        operator.start()
        try:
            code = main(["rehearse", str(tmp_path / "plan.yaml"), "--json", "--runs-dir", str(tmp_path / "runs")])
        finally:
            turned.set()
            operator.join()
    found = json.loads(capsys.readouterr().out)
    assert (code, found["decision"]) == (0, "go")
    assert [len(each["exposed"]["sandboxes"]) for each in found["stages"]] == [0, 4]
    assert [len(each["on"]["punched"]) for each in found["stages"]] == [0, 4]


def test_a_plan_that_never_reaches_launchdarkly_is_inconclusive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("LAUNCHDARKLY_STREAM_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-loopback")
    monkeypatch.setattr("sim.rollout.exposure.READY_SECONDS", 0.5)
    code = main(["rehearse", str(tmp_path / "plan.yaml"), "--json", "--runs-dir", str(tmp_path / "runs")])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["decision"], found["first_failing_step"]) == (3, "inconclusive", 0)
    assert [each for each in found["reasons"] if "LaunchDarkly was never reached: " in each] == found["reasons"][:2]


def _operate(relay: Relay, runs: Path, done: threading.Event) -> None:
    """Turns the flag to 100 % once the run with the flag has paused everybody twice at 0 %."""
    while not done.wait(0.05):
        ledgers = [path.read_text() for path in runs.glob("follow/*/events.jsonl") if "latest" not in str(path)]
        if len(ledgers) == 2 and any(
            '"launchdarkly"' in each and each.count('"pause_settled"') >= 8 for each in ledgers
        ):
            relay.set(served(100.0))
            return
