"""The whole drill against a model: random programs end in the states that a few rules predict, and no invariant breaks.

The rules write a scenario, with what the model expects after each act; the real drill runs it when a program is over.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from sim.files.scenario import load_text
from sim.files.yaml import scenario_text
from sim.run.cases import Unit, UnitResult
from sim.run.pool import LocalPool

PUNCH, BACKGROUND, IN_PLACE = "memfd-punch-on-snapshot", "memfd-background-copy", "in-place-checkpoint"
NAMES = ("web-0", "web-1")
SOME = st.sampled_from([NAMES, NAMES[:1], NAMES[1:]])
FLAGS = st.tuples(st.booleans(), st.booleans(), st.booleans())
PLACES = st.sampled_from([None, "last", "first"])
SCENARIO = {
    "name": "model",
    "node": {"memory": "64MiB", "cache": "tmpfs"},
    "fleet": [{"name": "web", "count": 2, "memory": "4MiB", "workload": {"dirty": "100%", "pattern": "full"}}],
}
Run = Callable[[str], UnitResult]


@dataclass
class Sandbox:
    """What the model knows of one: the states that it can be in, and whether a tick was not stored yet.

    Its memory is two chunks, and each tick rewrites both. `dirty` is None where that cannot be known: a node that was
    killed may take every page for dirty.
    """

    states: set[str] = field(default_factory=lambda: {"running"})
    dirty: bool | None = False

    def act(self, old: str, ends: Iterable[str]) -> None:
        """What it was in `old` is in one of `ends` now."""
        if old in self.states:
            self.states = (self.states - {old}) | set(ends)


class DrillModel(RuleBasedStateMachine):
    """Two sandboxes of 4 MiB; a fault fails the copy of the first chunk or of the last."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.sandboxes = {name: Sandbox() for name in NAMES}
        self.flags: dict[str, bool] = {}
        self.first_flags: dict[str, bool] = {}
        self.steps: list[dict[str, Any]] = []

    @initialize(flags=FLAGS)
    def create(self, flags: tuple[bool, bool, bool]) -> None:
        """A fleet that has worked."""
        self.flags = dict(zip((PUNCH, BACKGROUND, IN_PLACE), flags, strict=True))
        self.first_flags = dict(self.flags)
        self.tick()

    def some(self, what: Callable[[Sandbox], bool]) -> bool:
        return any(what(each) for each in self.sandboxes.values())

    @precondition(lambda self: self.some(lambda each: "running" in each.states and not each.dirty))
    @rule()
    def tick(self) -> None:
        self.steps.append({"tick": 1})
        for each in self.sandboxes.values():
            if "running" in each.states:
                each.dirty = True if each.states == {"running"} or each.dirty else None

    @rule(key=st.sampled_from([PUNCH, BACKGROUND, IN_PLACE]))
    def flip(self, key: str) -> None:
        self.flags[key] = not self.flags[key]
        self.steps.append({"flag": {key: self.flags[key]}})

    @precondition(lambda self: self.some(lambda each: "running" in each.states))
    @rule(names=SOME, at=PLACES)
    def pause(self, names: tuple[str, ...], at: str | None) -> None:
        self._take("pause", names, at)
        for name in names:
            each = self.sandboxes[name]
            each.act("running", self._ends(each, at, {"discarded"}))
            if "paused" in each.states:
                each.dirty = False if each.states == {"paused"} else None
        self._expect()

    @precondition(lambda self: self.some(lambda each: "running" in each.states))
    @rule(names=SOME, at=PLACES)
    def checkpoint(self, names: tuple[str, ...], at: str | None) -> None:
        self._take("checkpoint", names, at)
        for name in names:
            each = self.sandboxes[name]
            ends = {"running"} if self.flags[IN_PLACE] else self._ends(each, at, {"discarded"})
            if "running" in each.states and not (at and each.dirty):
                each.dirty = None if at or each.states != {"running"} else False
            each.act("running", {"running" if end == "paused" else end for end in ends})
        self._expect()

    @precondition(lambda self: self.some(lambda each: "paused" in each.states))
    @rule(names=SOME)
    def resume(self, names: tuple[str, ...]) -> None:
        self._take("resume", names)
        for name in names:
            self.sandboxes[name].act("paused", {"running"})
        self._expect()

    @precondition(lambda self: not self.some(lambda each: not each.states & {"running", "paused"}))
    @rule(name=st.sampled_from(NAMES))
    def kill(self, name: str) -> None:
        self._take("kill", (name,))
        for state in ("running", "paused"):
            self.sandboxes[name].act(state, {"killed"})
        self._expect()

    @precondition(lambda self: not any("crash" in each for each in self.steps))
    @rule(name=st.sampled_from(NAMES), chunk=st.sampled_from([None, 0, 1]))
    def crash(self, name: str, chunk: int | None) -> None:
        """In a pause, or while nothing is under way: then all that lives lives on. Once a program: it takes time."""
        if chunk is None:
            return self._restarted([{"crash": {}}, {"restart": {}}])
        each = self.sandboxes[name]
        each.act("running", self._ends(each, ("first", "last")[chunk], {"discarded", "killed"}))
        at = {"fault": "copy.write", "chunk": chunk}
        pause = {"sandboxes": name, "allow_empty": True}
        return self._restarted([{"crash": {"at": at, "sandboxes": name}}, {"pause": pause}, {"restart": {}}])

    def _restarted(self, steps: list[dict[str, Any]]) -> None:
        self.steps += steps
        for each in self.sandboxes.values():
            each.dirty = each.dirty or None
        self._expect()

    def _ends(self, sandbox: Sandbox, at: str | None, condemned: set[str]) -> set[str]:
        """Rule 2 and 5 of the engine: what fails at chunk 0 rolls back, what fails condemned never runs again."""
        condemns = self.flags[PUNCH] or self.flags[BACKGROUND]
        fails = condemned if at == "last" and condemns else {"running"}
        if at is None or sandbox.dirty is False:
            return {"paused"}
        return fails if sandbox.dirty else {"paused", *fails}

    def _take(self, kind: str, names: tuple[str, ...], at: str | None = None) -> None:
        """One act, where `at` is given with a fault of its own."""
        fault = {"fault": "copy.write", "at": at, "sandboxes": _glob(names)}
        act = {kind: {"sandboxes": _glob(names), "allow_empty": True}}
        self.steps += [{"inject": fault}, act, {"clear": {}}] if at else [act]

    def _expect(self) -> None:
        for name, each in self.sandboxes.items():
            self.steps.append({"expect": {"sandboxes": name, "state": sorted(each.states)}})

    def teardown(self) -> None:
        """Run the program that the rules wrote."""
        if not self.steps:
            return
        text = scenario_text({**SCENARIO, "flags": {**self.first_flags, "use-sync-wp": True}, "steps": self.steps})
        note(text)
        result = self._run(text)
        broken = [(each.subject, each.violations) for each in result.violated]
        assert (result.error, broken) == (None, [])


def _glob(names: tuple[str, ...]) -> str:
    return "*" if len(names) > 1 else names[0]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_random_programs_end_as_the_model_says_and_break_no_invariant(tmp_path: pathlib.Path) -> None:
    with LocalPool(1, 1 << 30) as pool:

        def run(text: str) -> UnitResult:
            (result,) = pool.run([Unit.of("model", load_text(text, tmp_path / "model.yaml"), tmp_path)])
            return result

        class Bound(DrillModel):
            def __init__(self) -> None:
                super().__init__(run)

        run_state_machine_as_test(
            Bound,
            settings=settings(
                max_examples=30,
                stateful_step_count=12,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate],  # `snapdrill shrink` shrinks what is printed, and faster
                print_blob=True,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
