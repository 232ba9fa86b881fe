"""`--guest`: every sandbox of a scenario or plan with guests of one kind."""

from __future__ import annotations

import pathlib

from sim.files.guests import plan_with_guests, with_guests
from sim.files.plan import load_plan_text
from sim.files.scenario import load_text
from sim.rollout.compiled import compiled
from sim.rollout.matrix import sample
from sim.run.cases import host_needs
from sim.run.draw import as_run
from sim.run.seeds import Seeds, document, summary

SCENARIO = "name: x\nfleet: [{name: web, count: 2, memory: 4MiB, guest: process}]\nsteps: [{tick: 1}]\n"
PLAN = """\
kind: plan
name: staged
fleet: [{name: web, count: 4, memory: 1MiB}, {name: db, memory: 2MiB, guest: vm}]
steps: [{setWeight: 50}, {wait: {for: 1m}}]
"""


def test_one_kind_of_guest_for_all_keeps_places_and_is_in_the_text_that_is_stored() -> None:
    asked = load_text(SCENARIO, pathlib.Path("x.yaml"))
    made = with_guests(asked, "vm")
    assert [each.guest for each in made.sandboxes()] == ["vm", "vm"]
    assert [each.guest for each in load_text(made.source_text, made.path).sandboxes()] == ["vm", "vm"]
    assert made.where(("steps", 0)) == asked.where(("steps", 0))
    assert [each.guest for each in asked.sandboxes()] == ["process", "process"]
    assert (made.facts()["guest"], asked.facts()["guest"], with_guests(asked, None)) == ("vm", None, asked)


def test_a_seed_draws_guests_of_the_asked_kind_and_knows_that_they_were_asked_for() -> None:
    swarm = load_text(SCENARIO + "swarm: {}\n", pathlib.Path("x.yaml"))
    drawn = as_run(with_guests(swarm, "vm"), 5)
    assert {each.guest for each in drawn.sandboxes()} == {"vm"}
    assert {each.guest for each in load_text(drawn.source_text, drawn.path).sandboxes()} == {"vm"}
    assert (drawn.asked_guest, as_run(swarm, 5).asked_guest) == ("vm", None)


def test_a_plan_takes_guests_of_one_kind_into_both_arms_and_every_cell_of_its_matrix() -> None:
    plan = load_plan_text(PLAN, pathlib.Path("plan.yaml"))
    made = plan_with_guests(plan, "vm")
    assert {each.guest for each in made.fleet} == {"vm"}
    for arms in (compiled(made, "on"), compiled(made, "off")):
        assert {each.guest for each in arms.scenario.sandboxes()} == {"vm"}
    assert [each["guest"] for each in sample(made, 0)] == ["vm", "vm"]
    assert (made.source_text, made.asked_guest) == (plan.source_text, "vm")
    assert [each.guest for each in plan_with_guests(plan, None).fleet] == ["process", "vm"]


def test_the_summary_and_the_document_of_seeds_say_which_guests_were_asked_for() -> None:
    plain = load_text(SCENARIO, pathlib.Path("x.yaml"))
    asked = Seeds(with_guests(plain, "vm"), 2)
    assert summary(asked).startswith("x   0 seeds   --guest vm   ")
    assert (document(asked)["guest"], document(Seeds(plain, 2))["guest"]) == ("vm", None)
    assert "--guest" not in summary(Seeds(plain, 2))


def test_a_worker_of_a_cluster_must_be_able_to_run_machines() -> None:
    scenario = load_text(SCENARIO, pathlib.Path("x.yaml"))
    assert ("kvm", 1) in host_needs(with_guests(scenario, "vm"))
    assert ("kvm", 1) not in host_needs(with_guests(scenario, "auto"))
