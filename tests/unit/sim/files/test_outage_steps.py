"""What a scenario may say of a flag service and its outages, and each mistake at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UserError
from flags.document import DocumentError
from flags.inline import Rollout
from sim.files.expectations import MetricExpectation
from sim.files.flag_values import ServedFlags
from sim.files.scenario import Scenario, load_text
from sim.files.schemas import json_schema
from sim.files.steps import Outage
from sim.run.flag_source import check_source

PUNCH = "memfd-punch-on-snapshot"
FLEET = "name: s\nfleet:\n  - {name: web, memory: 4MiB}\n"
TICK = "steps:\n  - tick: 1\n"
RELAY = "flags: {source: relay}\n"


def scenario(text: str) -> Scenario:
    return load_text(FLEET + text, Path("s.yaml"))


def mistakes(text: str) -> list[str]:
    with pytest.raises(DocumentError) as refused:
        scenario(text)
    return [line.removeprefix("s.yaml:").replace("error: ", "") for line in str(refused.value).splitlines()]


def outage(text: str, flags: str = RELAY) -> Outage:
    step = scenario(f"{flags}steps:\n  - outage: {text}\n").steps[0]
    assert isinstance(step, Outage)
    return step


def test_a_source_and_its_lease_stand_beside_the_values() -> None:
    loaded = scenario(f"flags: {{source: relay, lease: 500ms, start: down, {PUNCH}: {{rollout: 10%}}}}\n" + TICK)
    assert isinstance(loaded.flags, ServedFlags)
    assert (loaded.flags.lease, loaded.flags.start) == (0.5, "down")
    assert (loaded.flag_source, dict(loaded.flag_values)) == ("relay", {PUNCH: Rollout(10.0, "sandbox")})


def test_flags_are_inline_unless_a_source_is_named() -> None:
    for flags in (f"flags: {{{PUNCH}: true}}\n", f"flags: {{source: inline, {PUNCH}: true}}\n"):
        loaded = scenario(flags + TICK)
        assert (loaded.flag_source, dict(loaded.flag_values)) == ("inline", {PUNCH: True})


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("{source: relya}", '4:17: flags.source: unknown value "relya"; did you mean "relay"?'),
        ("{source: [relay]}", '4:17: flags.source: unknown value a list; did you mean "relay"?'),
        ("{lease: 1s}",
         "4:16: flags.lease: a lease needs a flag service whose heartbeat it watches; add source: relay"),
        ("{source: launchdarkly, start: down}",
         "4:38: flags.start: only a relay can be down at the start; use source: relay"),
        ("{source: relay, memfd-punch-on-snapshop: true}",
         f'4:24: flags.memfd-punch-on-snapshop: unknown flag; did you mean "{PUNCH}"?'),
        (f"{{source: relay, {PUNCH}: 7}}",
         f"4:49: flags.{PUNCH}: expected true, false or {{rollout: 50%, by: sandbox}}, got 7"),
        (f"{{source: launchdarkly, {PUNCH}: true}}",
         f"4:8: flags: LaunchDarkly serves its own flags; remove {PUNCH}, or use source: relay"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_source_is_found_at_its_place(flags: str, found: str) -> None:
    assert mistakes(f"flags: {flags}\n" + TICK) == [found]


def test_an_outage_says_its_fault_and_its_setting() -> None:
    assert outage("{fault: freeze}").detail == ""
    assert outage("{fault: refuse}").detail == "HTTP 503"
    assert outage("{fault: refuse, status: 401}").detail == "HTTP 401"
    assert outage("{fault: slow, delay: 1s}").detail == "delay 1000 ms"
    assert outage(f"{{fault: delete, flag: {PUNCH}}}").detail == PUNCH
    assert outage("{fault: flap, every: 250ms}").detail == "every 0.25 s"


@pytest.mark.parametrize(
    ("step", "found"),
    [
        ("{fault: frieze}", '6:21: steps[0].outage.fault: unknown value "frieze"; did you mean "freeze"?'),
        ("{fault: down, status: 503}", "6:35: steps[0].outage.status: status goes with fault: refuse; remove it"),
        ("{fault: refuse, status: 200}", "6:37: steps[0].outage.status: expected at least 400, got 200"),
        ("{fault: drop, every: 1s}", "6:34: steps[0].outage.every: every goes with fault: flap; remove it"),
        ("{fault: delete}",
         f"6:13: steps[0].outage: delete needs the key of a flag; add flag: {PUNCH}"),
        ("{fault: tear}", "6:21: steps[0].outage.fault: only a flag file can be torn; use flags: {file: NAME}"),
        ("{}", "6:13: steps[0].outage.fault: missing; it is required"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_outage_is_found_at_its_place(step: str, found: str) -> None:
    assert mistakes(f"{RELAY}steps:\n  - outage: {step}\n") == [found]


@pytest.mark.parametrize("flags", ["", f"flags: {{{PUNCH}: true}}\n", "flags: {source: launchdarkly}\n"])
def test_an_outage_needs_a_relay(flags: str) -> None:
    (found,) = mistakes(f"{flags}steps:\n  - outage: {{fault: freeze}}\n")
    line = 5 + bool(flags)
    expected = "only a relay can have such an outage; use flags: {source: relay}"
    assert found == f"{line}:21: steps[0].outage.fault: {expected}"


def test_a_recovery_needs_something_to_recover() -> None:
    (found,) = mistakes("steps:\n  - outage: {fault: recover}\n")
    assert found == "5:21: steps[0].outage.fault: there is no outage to recover from; add flags: {source: relay}"


def test_a_flag_of_launchdarkly_s_own_cannot_be_set() -> None:
    (found,) = mistakes(f"flags: {{source: launchdarkly}}\nsteps:\n  - flag: {{{PUNCH}: true}}\n")
    assert found == "6:5: steps[0].flag: LaunchDarkly's own flags are not changed from here; use source: relay"


def test_outages_are_checked_although_the_fleet_is_mistaken() -> None:
    with pytest.raises(DocumentError) as refused:
        load_text("name: s\nfleet: []\nsteps:\n  - outage: {fault: freeze}\n", Path("s.yaml"))
    assert "s.yaml:4:21: error: steps[0].outage.fault: only a relay" in str(refused.value)


def test_what_the_kill_switch_may_take_goes_with_its_metric_alone() -> None:
    text = RELAY + TICK + "expect:\n  - {metric: punched_after_kill, max: 0, within: 250ms}\n"
    (expected,) = scenario(text).expect
    assert isinstance(expected, MetricExpectation)
    assert expected.within == 0.25
    (found,) = mistakes(TICK + "expect:\n  - {metric: pauses, max: 0, within: 250ms}\n")
    assert found == "7:38: expect[0].within: within goes with metric: punched_after_kill; remove it"


def test_launchdarkly_without_a_key_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = scenario("flags: {source: launchdarkly}\n" + TICK)
    monkeypatch.delenv("LAUNCHDARKLY_SDK_KEY", raising=False)
    with pytest.raises(UserError, match="set LAUNCHDARKLY_SDK_KEY"):
        check_source(loaded)
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-some")
    check_source(loaded)


def test_the_json_schema_has_the_settings_beside_the_flags() -> None:
    form = json_schema()["$defs"]["ServedFlags"]
    assert form["properties"].keys() == {"source", "lease", "obey_unsafe", "start"}
    assert "rollout" in str(form["additionalProperties"]) or "$ref" in str(form["additionalProperties"])
