"""A rehearsal as a JUnit suite: one case a step of the plan, and one for the decision."""

from __future__ import annotations

from junitparser import Error, Failure, Skipped, TestCase, TestSuite

from sim.rehearsal.analysis import Outcome
from sim.rehearsal.gates import label
from sim.rehearsal.rehearse import where
from sim.rehearsal.results import Rehearsal, StepResult
from sim.report.printable import scrub


def rehearsal_suite(found: Rehearsal) -> TestSuite:
    """Failed steps are failures, errors and what is inconclusive errors; steps not taken are skipped."""
    suite = TestSuite(f"rehearse {found.plan.name}")
    run = found.on.view.run
    suite.add_property("seed", str(run.seed if run else found.plan.seed))
    suite.add_property("decision", found.decision)
    cases = [_case(found, each) for each in found.steps]
    for index in range(len(found.steps), len(found.plan.steps)):
        case = TestCase(f"step {index + 1} {label(found.plan.steps[index])}", found.plan.name, 0.0)
        case.result = [Skipped("not taken: the rollout had stopped")]
        cases.append(case)
    decision = TestCase("decision", found.plan.name, found.seconds)
    said = scrub("; ".join(found.reasons))
    if found.decision != "go":
        decision.result = [Failure(said, "NoGo") if found.decision == "no-go" else Error(said, "Inconclusive")]
    suite.add_testcases([*cases, decision])
    suite.time = found.seconds
    return suite


def _case(found: Rehearsal, step: StepResult) -> TestCase:
    case = TestCase(scrub(where(step)), found.plan.name, 0.0)
    place = found.plan.place(("steps", step.index))
    if step.outcome is Outcome.FAILED:
        case.result = [Failure(scrub(f"{place}: {step.detail}"), "Failed")]
    elif step.outcome is not Outcome.SUCCESSFUL:
        case.result = [Error(scrub(f"{place}: {step.detail}"), step.outcome.value.capitalize())]
    else:
        case.system_out = scrub(step.detail)
    return case
