from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError

import pytest

from engine.plan import DedupOptions, PauseOptions
from flags.catalog import CATALOG, Value
from flags.context import SandboxAttributes
from flags.decision import Decision, Evaluation, options, otel_fields
from flags.inline import flag_from
from flags.memory import MemoryFlags

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def decision(punch: bool = False, background: bool = True, others: Mapping[str, Value] | None = None) -> Decision:
    values = {each.key: each.safe for each in CATALOG} | {PUNCH: punch, BACKGROUND: background} | dict(others or {})
    return Decision(tuple(Evaluation(key, value, "FALLTHROUGH", 0, 3, None, "VALID") for key, value in values.items()))


@pytest.mark.parametrize("punch", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_the_options_are_what_was_decided(punch: bool, background: bool) -> None:
    expected = PauseOptions(use_memfd=True, background_copy=background, punch=punch)
    assert options(decision(punch, background)) == expected


def test_a_decision_is_pinned_whatever_flips_afterwards() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    pinned = source.decide(WEB)
    before = pinned.as_fields()
    source.set(flag_from(PUNCH, False))
    assert source.decide(WEB).value(PUNCH) is False
    assert pinned.value(PUNCH) is True
    assert pinned.as_fields() == before


def test_an_evaluation_cannot_be_altered() -> None:
    evaluation = decision(punch=True, background=True).evaluations[0]
    with pytest.raises(FrozenInstanceError):
        evaluation.value = False  # type: ignore[misc]


def test_a_decision_covers_the_whole_catalogue() -> None:
    evaluated = [each.flag for each in MemoryFlags({}).decide(WEB).evaluations]
    assert evaluated == [each.key for each in CATALOG]


def test_a_flag_that_was_not_evaluated_has_no_value() -> None:
    with pytest.raises(KeyError):
        decision(punch=True, background=True).value("use-memory")


def test_the_fields_survive_json() -> None:
    fields = decision(punch=True, background=False).as_fields()
    assert json.loads(json.dumps(fields)) == fields
    assert fields[PUNCH] == {
        "value": True,
        "reason": "FALLTHROUGH",
        "variation": 0,
        "version": 3,
        "rule": None,
        "source_state": "VALID",
    }


@pytest.mark.parametrize("latched", [True, False])
def test_use_memfd_is_the_value_that_was_latched_at_resume(latched: bool) -> None:
    decided = decision(others={"use-memfd": not latched})
    assert options(decided, latched).use_memfd is latched


def test_dedup_names_the_settings_that_have_no_effect() -> None:
    value = {"enabled": True, "bestEffort": True, "directIO": False, "maxFetchWindowsPerBlock": 2, "newer": 1}
    dedup = options(decision(others={"memfile-diff-dedup": value})).dedup
    assert dedup == DedupOptions(enabled=True, ignored=("bestEffort", "maxFetchWindowsPerBlock", "newer"))


def test_inflight_serving_is_asked_for_by_its_own_flag() -> None:
    assert options(decision(others={"memfd-dedup-inflight-serve": True})).inflight_serve


def test_what_was_decided_and_counts_for_nothing_is_said() -> None:
    decided = decision(others={"memfile-diff-dedup": {"enabled": True, "directIO": True}, "defer-rootfs-export": True})
    assert decided.notes == (
        "memfile-diff-dedup: directIO is accepted and has no effect",
        "memfd-background-copy has no effect: memfile-diff-dedup is on",
        "defer-rootfs-export is accepted and has no effect",
    )


def test_safe_values_need_no_note() -> None:
    assert decision().notes == ()


def test_a_json_flag_of_the_wrong_shape_is_the_safe_object_and_says_so() -> None:
    dedup = flag_from("memfile-diff-dedup", {"enabled": True})
    source = MemoryFlags({dedup["key"]: {**dedup, "variations": [{"enabled": False}, {"enabled": "yes"}]}})
    found = source.decide(WEB).evaluation("memfile-diff-dedup")
    assert (found.value, found.reason, found.variation) == ({"enabled": False}, "WRONG_TYPE", 1)


def test_the_telemetry_has_opentelemetrys_names() -> None:
    source = MemoryFlags(
        {PUNCH: flag_from(PUNCH, True), BACKGROUND: {**flag_from(BACKGROUND, True), "variations": [1]}}
    )
    fields = {each["feature_flag.key"]: each for each in otel_fields(source.decide(WEB), "web-0")}
    assert fields[PUNCH] == {
        "feature_flag.key": PUNCH,
        "feature_flag.provider.name": "LaunchDarkly",
        "feature_flag.result.value": True,
        "feature_flag.result.variant": "1",
        "feature_flag.result.reason": "default",
        "feature_flag.version": "1",
        "feature_flag.context.id": "web-0",
    }
    assert fields[BACKGROUND]["feature_flag.result.reason"] == "error"
    assert fields[BACKGROUND]["error.type"] == "type_mismatch"
    assert fields["use-memfd"]["error.type"] == "flag_not_found"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("OFF", "disabled"),
        ("RULE_MATCH", "targeting_match"),
        ("TARGET_MATCH", "targeting_match"),
        ("PREREQUISITE_FAILED", "prerequisite_failed"),
        ("ERROR:EXCEPTION", "error"),
    ],
)
def test_every_reason_has_a_word_in_the_telemetry(reason: str, said: str) -> None:
    evaluation = Evaluation(PUNCH, False, reason, None, None, None, "VALID")
    assert otel_fields(Decision((evaluation,)))[0]["feature_flag.result.reason"] == said
