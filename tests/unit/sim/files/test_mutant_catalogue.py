"""The catalogue of wrong engines and what exists agree: invariants, scenarios, and the classes that are run."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from sim.files.expectations import Invariant, InvariantExpectation, Metric, ViolationExpectation
from sim.files.scenario import Scenario, load, load_text
from sim.files.shipped import scenario_folder
from sim.files.wrong_engines import MUTANTS, SWITCHES, WHOLE, Wrong, wrong_engine
from sim.node.wrong_nodes import NODES
from sim.node.wrong_pauses import ACTS, PAUSES
from sim.run import self_test

FOLDER = scenario_folder(self_test.FOLDER)
WRONGS = self_test.names()


def scenarios_of(wrong: Wrong) -> list[Scenario]:
    return [load(FOLDER / name) for name in wrong.scenarios]


def canaries(scenario: Scenario) -> set[str]:
    found = [each for each in scenario.expect if isinstance(each, ViolationExpectation)]
    return {f"invariant:{each.invariant}" if each.invariant else f"metric:{each.metric}" for each in found}


def test_every_mutant_is_named_after_itself_and_can_be_run() -> None:
    assert [each.name for each in MUTANTS.values()] == list(MUTANTS)
    assert set(MUTANTS) == ACTS.keys() | PAUSES.keys() | NODES.keys()
    assert ACTS.keys() & PAUSES.keys() == PAUSES.keys() & NODES.keys() == set()


@pytest.mark.parametrize("name", WRONGS)
def test_a_wrong_engine_names_a_subject_that_is_judged(name: str) -> None:
    subjects = {f"invariant:{each}" for each in get_args(Invariant)} | {f"metric:{each}" for each in get_args(Metric)}
    assert WRONGS[name].caught_by in subjects
    assert WRONGS[name].sentence.endswith(tuple("abcdefghijklmnopqrstuvwxyzB0123456789"))


@pytest.mark.parametrize("name", WRONGS)
def test_a_wrong_engine_has_scenarios_that_run_it_alone_and_expect_it_to_be_caught(name: str) -> None:
    wrong = WRONGS[name]
    for scenario in scenarios_of(wrong):
        choice = scenario.engine.choice()
        if wrong is WHOLE:
            assert choice == {
                "mutant": None,
                "profile": wrong.name,
                "mended": [],
                "verify": "off",
                "on_copy_failure": "discard",
            }
        elif name in MUTANTS:
            assert choice == {
                "mutant": name,
                "profile": None,
                "mended": [],
                "verify": "off",
                "on_copy_failure": "discard",
            }
        else:
            assert set(SWITCHES) - set(choice["mended"]) == {wrong.name}
        assert wrong.caught_by in canaries(scenario)


def test_every_scenario_of_the_self_test_belongs_to_a_wrong_engine() -> None:
    named = set(itertools.chain.from_iterable(each.scenarios for each in WRONGS.values()))
    assert {path.name for path in FOLDER.iterdir()} == named


def test_the_sound_twin_of_a_scenario_expects_its_checker_to_have_had_work() -> None:
    for trial in self_test.trials():
        twin = load_text(self_test.sound(trial), trial.scenario.path)
        assert twin.engine.choice() == {
            "mutant": None,
            "profile": None,
            "mended": [],
            "verify": "off",
            "on_copy_failure": "discard",
        }
        assert canaries(twin) == set()
        kind, _, subject = trial.wrong.caught_by.partition(":")
        listed = [each.invariant for each in twin.expect if isinstance(each, InvariantExpectation)]
        assert listed == ([subject] if kind == "invariant" else [])
        assert (twin.steps, twin.fleet, twin.seed) == (trial.scenario.steps, trial.scenario.fleet, trial.scenario.seed)


@pytest.mark.parametrize(
    ("mutant", "profile", "mended", "said"),
    [
        (None, None, [], None),
        ("scan-rearms", None, [], "scan-rearms (wrong on purpose)"),
        (None, "pr-2902", [], "pr-2902 (wrong on purpose)"),
        (None, "pr-2902", ["not-gated"], "pr-2902 (wrong on purpose), mended: not-gated"),
    ],
)
def test_the_banner_names_the_wrong_engine(
    mutant: str | None, profile: str | None, mended: list[str], said: str | None
) -> None:
    assert wrong_engine(mutant, profile, mended) == said
