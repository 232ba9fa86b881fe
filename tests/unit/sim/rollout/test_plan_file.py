from __future__ import annotations

import pathlib

import pytest

from engine.errors import UserError
from flags.document import DocumentError
from sim.files.plan import changed, load_plan, load_plan_text

ROLLOUTS = pathlib.Path(__file__).parents[4] / "scenarios" / "rollouts"

SMALL = """\
kind: plan
name: small
fleet:
  - {name: web, count: 4, memory: 1MiB}
metrics:
  - {name: discards, failureCondition: result > 0}
steps:
  - setWeight: 0
  - wait: {for: 10m}
  - setWeight: 50%
  - analysis: {metrics: [discards]}
"""

EVERY_MISTAKE = """\
kind: plan
name: Bad
flagg: x
time: virtuel
lease: 1s
propagation: {p50: 2s, p99: 1s}
fleet:
  - {name: web, count: 4, memory: 3}
flags: {memfd-punch-on-snapshot: true}
metrics:
  - {name: discard, successCondition: result == zero}
  - {name: discards}
  - {name: lost, failureCondition: result > 0, onFailure: stop}
steps:
  - wait: {for: 3}
  - setWeight: 101
  - analysis: {metrics: [foo]}
  - drill: {killSwitch: {maxProp: 1s}}
  - pause: {}
  - inject: {fault: copy.writ, sandboxes: "x-*"}
  - outage: {fault: freeze}
  - assert: {invariant: no_leek}
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load_plan_text(text, pathlib.Path("plan.yaml"))
    return str(caught.value).splitlines()


def test_a_small_plan_is_read_with_its_defaults() -> None:
    plan = load_plan_text(SMALL, pathlib.Path("plan.yaml"))
    assert (plan.flag, plan.by, plan.time, plan.lease) == ("memfd-punch-on-snapshot", "sandbox", "virtual", None)
    assert plan.place(("steps", 2)) == "plan.yaml:10:5"


def test_a_plan_with_every_mistake_lists_them_all_with_line_and_column() -> None:
    found = mistakes(EVERY_MISTAKE)
    wanted = [
        "plan.yaml:2:7: error: name:",
        'plan.yaml:3:1: error: flagg: unknown key; did you mean "flag"?',
        'plan.yaml:4:7: error: time: unknown value "virtuel"',
        "plan.yaml:5:8: error: lease: a lease needs a flag service",
        "plan.yaml:6:14: error: propagation: a higher percentile is less",
        "plan.yaml:8:35: error: fleet[0].memory: expected a size",
        "plan.yaml:9:9: error: flags.memfd-punch-on-snapshot: the plan's steps set this flag's weight",
        'plan.yaml:11:12: error: metrics[0].name: unknown metric "discard"; did you mean "discards"?',
        "plan.yaml:11:39: error: metrics[0].successCondition: expected a comparison",
        "plan.yaml:12:5: error: metrics[1]: the metric has no condition",
        'plan.yaml:13:59: error: metrics[2].onFailure: unknown value "stop"',
        "plan.yaml:15:5: error: steps[0]: a plan begins with setWeight",
        "plan.yaml:15:17: error: steps[0].wait.for: expected a duration",
        "plan.yaml:16:16: error: steps[1].setWeight: expected a weight in percent",
        'plan.yaml:17:26: error: steps[2].analysis.metrics[0]: the plan has no metric "foo"',
        'plan.yaml:18:26: error: steps[3].drill.killSwitch.maxProp: unknown key; did you mean "maxPropagation"?',
        'plan.yaml:19:5: error: steps[4]: unknown step "pause"',
        'plan.yaml:20:21: error: steps[5].inject.fault: unknown value "copy.writ"; did you mean "copy.write"?',
        "plan.yaml:21:21: error: steps[6].outage.fault: only a relay can have such an outage",
        'plan.yaml:22:25: error: steps[7].assert.invariant: unknown value "no_leek"; did you mean "no_leaks"?',
    ]
    assert [each for each in wanted if not any(line.startswith(each) for line in found)] == []
    assert len(found) == len(wanted)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flag: memfile-diff-dedup", "is not a boolean flag"),
        ("safe: true", "rolling memfd-punch-on-snapshot back to the other value destroys memory; write safe: false"),
        ("time: real", "inline flags have no sockets"),
        ("flags: {source: relay}", "do not follow virtual time"),
        ("node: {memory: 2MiB}", "the fleet needs 4MiB, the node has 2MiB"),
    ],
)
def test_what_does_not_go_together_is_told(line: str, said: str) -> None:
    assert any(said in each for each in mistakes(f"{line}\n{SMALL}"))


def test_a_drill_at_weight_0_shows_nothing_and_is_refused() -> None:
    text = SMALL.replace("  - wait: {for: 10m}", "  - drill: {killSwitch: {}}")
    assert any("at weight 0 a drill shows nothing" in each for each in mistakes(text))


def test_a_ratio_of_times_counts_in_virtual_time_alone() -> None:
    text = SMALL.replace("discards, failureCondition: result > 0", "copy_p50_ratio, successCondition: result <= 2")
    text = text.replace("[discards]", "[copy_p50_ratio]")
    assert load_plan_text(text, pathlib.Path("plan.yaml")).metrics[0].name == "copy_p50_ratio"
    real = f"time: real\nflags: {{source: relay}}\n{text}"
    assert any("the arms do not alternate" in each for each in mistakes(real))
    assert load_plan_text(real.replace("<= 2}", "<= 2, dryRun: true}"), pathlib.Path("plan.yaml")).time == "real"


def test_a_weight_finer_than_launchdarkly_has_is_refused() -> None:
    assert any("thousandths" in each for each in mistakes(SMALL.replace("50%", "0.0005")))


def test_every_shipped_plan_is_sound() -> None:
    assert [load_plan(path).kind for path in sorted(ROLLOUTS.glob("*.yaml"))] == ["plan"] * 7


def test_a_lease_for_inline_flags_is_refused_on_the_command_line() -> None:
    plan = load_plan_text(SMALL, pathlib.Path("plan.yaml"))
    with pytest.raises(UserError, match="no flag service"):
        changed(plan, lease="1s")
    with pytest.raises(UserError, match="or none"):
        changed(plan, lease="soon")


def test_a_weakness_is_mended_by_its_name_alone() -> None:
    plan = load_plan(ROLLOUTS / "pr-2902-as-written.yaml")
    assert changed(plan, mend=["not-gated"]).engine.mended == ("not-gated",)
    with pytest.raises(UserError, match="unknown weakness"):
        changed(plan, mend=["not-gate"])
