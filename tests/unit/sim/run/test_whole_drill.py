"""The look from outside at a command: which of exit code, JUnit file, ledger and states contradict each other."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from engine.errors import UserError
from sim.files.expectations import ViolationExpectation
from sim.files.scenario import load
from sim.files.shipped import scenario_folder
from sim.rules import RULES
from sim.run import both_halves, whole_drill, wrong_drills
from sim.run.self_test import FOLDER
from sim.run.whole_drill import _Left
from sim.run.wrong_drills import (
    CODE,
    DIGEST,
    DRILLS,
    EYES_SHUT,
    FILES,
    HALF_BLIND,
    LEDGER_UNREAD,
    LEFT_BY,
    OTHER_HALF,
    RECORD,
    STATES,
)


def judged(subject: str, verdict: str) -> dict[str, Any]:
    return {"event": "judged", "subject": subject, "verdict": verdict}


CALM = judged("invariant:no_leaks", "held")
BROKEN = judged("invariant:never_resumed", "violated")
SUNG = judged("verdict:violated:invariant:never_resumed", "held")
MOVED = {"event": "state_changed", "sandbox": "web-0", "old": "running", "new": "paused"}


def a_run(
    *lines: dict[str, Any], verdict: str = "held", scenario: str = "", failing: bool | None = None, **end: Any
) -> _Left:
    ended = {"event": "run_ended", "verdict": verdict, "counts": {"paused": 1}, "digest": None, **end}
    return _Left([MOVED, *lines, ended], scenario, verdict != "held" if failing is None else failing)


def found(run: _Left, exit_code: int) -> list[str]:
    return [subject for subject, _ in whole_drill._contradictions({"a.yaml": run}, exit_code)]


@pytest.mark.parametrize(
    ("run", "exit_code", "subjects"),
    [
        (a_run(CALM), 0, []),
        (a_run(BROKEN, verdict="violated"), 1, []),
        (a_run(BROKEN, SUNG), 0, []),
        (a_run(judged("x", "inconclusive"), verdict="inconclusive"), 3, []),
        (a_run(CALM), 1, [CODE]),
        (a_run(BROKEN, verdict="violated"), 0, [CODE]),
        (a_run(BROKEN, verdict="violated", failing=False), 1, [FILES]),
        (a_run(CALM, failing=True), 0, [FILES]),
        (a_run(BROKEN), 0, [RECORD]),
        (a_run(CALM, verdict="violated"), 1, [RECORD]),
        (a_run(judged("invariant:never_resumed", "inconclusive"), SUNG), 0, [RECORD]),
        (a_run(CALM, scenario="- pause: {until: returned}", digest="aa"), 0, [DIGEST]),
        (a_run(CALM, scenario="- pause: {}", digest="aa"), 0, []),
        (a_run(CALM, counts={"pausing": 1}), 0, [STATES]),
    ],
)
def test_what_contradicts_itself_is_named_and_nothing_else_is(run: _Left, exit_code: int, subjects: list[str]) -> None:
    assert found(run, exit_code) == subjects


def test_the_worst_of_several_runs_is_the_exit_code() -> None:
    runs = {"a.yaml": a_run(CALM), "b.yaml": a_run(BROKEN, verdict="violated")}
    assert list(whole_drill._contradictions(runs, 1)) == []
    assert [subject for subject, _ in whole_drill._contradictions(runs, 0)] == [CODE]


def test_every_rule_is_blinded_by_half_and_each_of_its_eyes_once() -> None:
    assert set(HALF_BLIND) == set(RULES)
    assert set(EYES_SHUT) == {name for name, rule in RULES.items() if rule.observe is not None}
    assert set(LEDGER_UNREAD) == set(EYES_SHUT) - {"no_leaks"}  # in a run its ledger says nothing more


def test_both_halves_of_every_rule_are_taken_from_a_ledger_that_another_drill_leaves() -> None:
    blind = {"half-blind": HALF_BLIND, "eyes-shut": EYES_SHUT, "ledger-unread": LEDGER_UNREAD}
    assert set(LEFT_BY) == set(RULES)
    assert all(file in blind[switch].values() for switch, file in LEFT_BY.values())


def test_a_doubled_ledger_has_everything_of_a_sandbox_twice_and_everything_else_once() -> None:
    lines = [
        {"event": "run_started", "name": "web"},
        {"event": "decided", "sandbox": "web-0", "pause": "web-0.p1", "note": "web-01"},
        {"event": "decided", "sandbox": "web-01", "pause": "web-01.p1"},
    ]
    again = [{**lines[1], "sandbox": "web-0-again", "pause": "web-0-again.p1"}]
    again += [{**lines[2], "sandbox": "web-01-again", "pause": "web-01-again.p1"}]
    found = [json.loads(line) for line in both_halves.doubled(lines)]
    assert found == [lines[0], lines[1], again[0], lines[2], again[1]]


@pytest.mark.parametrize(
    ("right", "halves", "why"),
    [
        ({"a", "a-again"}, [{"a"}, {"a-again"}], ""),
        ({"a", "a-again"}, [set(), {"a"}], ""),
        ({"a", "a-again"}, [{"a"}, {"a", "a-again"}], "`check` by half of the rule names all the same"),
        ({"a"}, [set(), set()], "the right `check` names a, not a sandbox and its double"),
        (set(), [set(), set()], "the right `check` names nothing, not a sandbox and its double"),
    ],
)
def test_a_rule_survives_that_names_all_by_half_or_too_little_as_a_whole(
    right: set[str], halves: list[set[str]], why: str
) -> None:
    assert both_halves.survives(right, halves) == why


@pytest.mark.parametrize("name", [name for name in DRILLS if ":" in name and not name.startswith(OTHER_HALF)])
def test_a_blind_rule_is_run_where_its_own_canary_must_sing(name: str) -> None:
    (file,) = DRILLS[name].scenarios
    canaries = [each for each in load(scenario_folder(FOLDER) / file).expect if isinstance(each, ViolationExpectation)]
    assert name.partition(":")[2] in {each.invariant for each in canaries}


@pytest.mark.parametrize("asked", ["half-blind", "half-blind:ME", "half-blind:1x", "no:PARENT"])
def test_a_wrong_drill_is_refused_to_all_but_the_process_that_started_it(asked: str) -> None:
    before = dict(RULES)
    asked = asked.replace("ME", str(os.getpid())).replace("PARENT", str(os.getppid()))
    with pytest.raises(UserError, match="SNAPDRILL_WRONG_DRILL is for the self-test alone; remove it"):
        wrong_drills.switch_on(asked)
    assert dict(RULES) == before


def test_a_wrong_drill_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(wrong_drills, "SWITCHES", {"deaf": lambda: done.append("deaf")})
    wrong_drills.switch_on(f"deaf:{os.getppid()}")
    assert done == ["deaf"]
    assert capsys.readouterr().err == "WRONG DRILL: deaf. Nothing that this command says can be believed.\n"
