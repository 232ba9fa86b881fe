"""The scenario of a case: the swept one with one more fault, then an epilogue without faults that shows liveness."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sim.scenario import Scenario
from sim.scenario_text import scenario_text
from sim.sweep.cases import Case, Point
from sim.yaml_positions import parse

Data = dict[str, Any]

HOLDUP = "10ms"
DEADLINE = "30s"
FINAL = ("running", "discarded", "killed")
_SELECTING = frozenset({"pause", "checkpoint", "resume", "kill"})
_AWAITED = _SELECTING - {"kill"}
_FORGETTING = frozenset({"clear", "restart"})
_STAYS_CORRUPT = frozenset({"copy.write", "header.write"})
_LONGEST_NAME = 60


class Swept:
    """A scenario as its sweep runs it: judged on invariants alone, since its own counts hold without other faults."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        data: Data = parse(scenario.source_text).data
        self.sandboxes = [each.name for each in scenario.sandboxes()]
        self.name = scenario.name
        self.steps = [_tolerant(each) for each in data["steps"] if "expect" not in each]
        self._rest = {key: value for key, value in data.items() if key not in {"steps", "expect", "swarm"}}
        self._rest["seed"] = seed
        if scenario.flag_file is not None:  # a case is a file elsewhere
            self._rest["flags"] = {**data["flags"], "file": str(scenario.flag_file.absolute())}

    def clean(self) -> str:
        """The scenario with no fault but its own, and the epilogue."""
        comment = f"{self.name} as its sweep runs it: with no fault but its own, and an epilogue that shows liveness."
        return self._text(f"{self.name}-clean", [*self.steps, *self._epilogue([])], comment)

    def case(self, case: Case) -> str:
        """The scenario with the fault of one case."""
        point = case.point
        armed, stuck = _armed(self.steps, point.step), []
        steps = list(self.steps)
        if case.kind == "kill-node":
            steps.insert(point.step + 1, {"restart": {}})
        if case.kind == "corrupt" and point.fault in _STAYS_CORRUPT:
            stuck = [point.sandbox]  # what was stored wrong is refused for ever: it stays paused
        steps.insert(armed, _fault(case))
        comment = f"{self.name}, with {case.kind} at {point.fault}, as its sweep runs it: {case.name}"
        return self._text(f"{self.name}-{case.name.replace('/', '-')}", [*steps, *self._epilogue(stuck)], comment)

    def _text(self, name: str, steps: Sequence[Data], comment: str) -> str:
        return scenario_text({**self._rest, "name": _short(name), "steps": list(steps)}, comment)

    def _epilogue(self, stuck: Sequence[str]) -> list[Data]:
        """Faults off: every sandbox works, is paused once more, and runs again or has come to its end."""
        resume = {"resume": {"allow_empty": True, "deadline": DEADLINE}}
        pause = {"pause": {"allow_empty": True, "deadline": DEADLINE}}
        restart: list[Data] = [{"restart": {}}] if _ends_down(self.steps) else []
        return [*restart, {"clear": {}}, resume, {"tick": 1}, pause, resume, *self._liveness(stuck)]

    def _liveness(self, stuck: Sequence[str]) -> list[Data]:
        if not stuck:
            return [{"expect": {"sandboxes": "*", "state": list(FINAL), "allow_empty": True}}]
        states = {name: [*FINAL, "paused"] if name in stuck else list(FINAL) for name in self.sandboxes}
        return [{"expect": {"sandboxes": name, "state": state}} for name, state in states.items()]


def _tolerant(step: Mapping[str, Any]) -> Data:
    """A selection that the fault left empty is no verdict of a case; what never ends is one before the time limit."""
    ((kind, body),) = step.items()
    if kind not in _SELECTING:
        return dict(step)
    return {kind: {**({"deadline": DEADLINE} if kind in _AWAITED else {}), **body, "allow_empty": True}}


def _armed(steps: Sequence[Data], reached: int) -> int:
    """Where the fault is armed: as early as nothing forgets it again before the step in which its point was passed."""
    return max((index + 1 for index, step in enumerate(steps[:reached]) if step.keys() & _FORGETTING), default=0)


def _ends_down(steps: Sequence[Data]) -> bool:
    last = [key for step in steps for key in step if key in {"crash", "restart"}]
    return last[-1:] == ["crash"]


def _fault(case: Case) -> Data:
    point, kind = case.point, case.kind
    if kind == "kill-node":
        at = {"fault": point.fault, **_chunk(point), "nth": point.nth}
        return {"crash": {"at": at, "sandboxes": point.sandbox}}
    how: Data = {"how": kind}
    if kind == "errno":
        how = {}
    elif kind in {"delay", "hang"}:
        how = {kind: HOLDUP}
    at = {} if point.chunk is None else {"at": _chunk(point)}
    return {"inject": {"fault": point.fault, **how, **at, "sandboxes": point.sandbox, "count": 1, "nth": point.nth}}


def _chunk(point: Point) -> Data:
    return {} if point.chunk is None else {"chunk": point.chunk}


def _short(name: str) -> str:
    """A name that a scenario may have: at most 60 characters, still one of a kind."""
    if len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(mark) - 1].rstrip('-.')}-{mark}"
