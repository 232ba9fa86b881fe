from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import flags.launchdarkly
from flags.catalog import CATALOG, flag
from flags.client import FlagClient
from flags.context import ALL, SandboxAttributes
from flags.decision import Evaluation
from flags.inline import Rollout, flag_from
from flags.launchdarkly import Evaluator, InProcessSource, make_context
from flags.memory import MemoryFlags
from flags.sdk_logs import route_sdk_logs

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")


def evaluation(source: MemoryFlags, key: str = PUNCH) -> Evaluation:
    return next(each for each in source.decide(WEB).evaluations if each.flag == key)


def serving(variations: list[Any], **changes: Any) -> dict[str, Any]:
    return {**flag_from(PUNCH, True), "variations": variations, **changes}


def test_memory_flags_are_a_flag_client() -> None:
    source: FlagClient = MemoryFlags({})
    assert source.status().state == "VALID"


@pytest.mark.parametrize("each", CATALOG)
def test_a_missing_flag_serves_its_safe_value(each: Any) -> None:
    found = evaluation(MemoryFlags({}), each.key)
    assert (found.value, found.reason, found.version) == (each.safe, "ERROR:FLAG_NOT_FOUND", None)


@pytest.mark.parametrize("wrong", ["yes", "false", 1, 0, None, {"on": True}])
def test_a_value_of_the_wrong_type_becomes_the_safe_one(wrong: object) -> None:
    source = MemoryFlags({PUNCH: serving([False, wrong])})
    found = evaluation(source)
    assert (found.value, found.reason) == (False, "WRONG_TYPE")


def test_a_variation_out_of_range_serves_the_safe_value() -> None:
    found = evaluation(MemoryFlags({PUNCH: serving([False, True], fallthrough={"variation": 7})}))
    assert (found.value, found.reason) == (False, "ERROR:MALFORMED_FLAG")


def test_off_without_an_off_variation_serves_the_safe_value() -> None:
    bare = serving([False, True], on=False)
    del bare["offVariation"]
    found = evaluation(MemoryFlags({PUNCH: bare}))
    assert (found.value, found.reason, found.variation) == (False, "OFF", None)


def test_a_matching_rule_is_named() -> None:
    clause = {"contextKind": "team", "attribute": "key", "op": "in", "values": ["acme"]}
    rule = {"id": "not-acme", "variation": 0, "clauses": [clause]}
    found = evaluation(MemoryFlags({PUNCH: serving([False, True], rules=[rule])}, ALL))
    assert (found.value, found.reason, found.rule) == (False, "RULE_MATCH", "not-acme")


def test_a_rule_on_the_firecracker_version_matches() -> None:
    clause = {
        "contextKind": "sandbox",
        "attribute": "firecracker-version",
        "op": "semVerLessThan",
        "values": ["1.99.0"],
    }
    rules = [{"variation": 0, "clauses": [clause]}]
    found = evaluation(MemoryFlags({PUNCH: serving([False, True], rules=rules)}))
    assert (found.value, found.rule) == (False, "0")


def test_a_change_is_effective_when_set_returns_and_told_to_subscribers() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, False)})
    told: list[tuple[str, bool]] = []
    source.subscribe(lambda key: told.append((key, source.decide(WEB).is_on(PUNCH))))
    source.set(flag_from(PUNCH, True))
    assert told == [(PUNCH, True)]


def test_the_same_content_again_is_no_change() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    told: list[str] = []
    source.subscribe(told.append)
    source.set(flag_from(PUNCH, True))
    assert told == []
    assert evaluation(source).version == 1


def test_a_lower_version_with_other_content_is_a_change() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True) | {"version": 40}})
    told: list[str] = []
    source.subscribe(told.append)
    source.set(flag_from(PUNCH, False) | {"version": 39})
    assert told == [PUNCH]
    assert evaluation(source).version == 41


def test_a_content_that_python_calls_equal_is_a_change() -> None:
    source = MemoryFlags({PUNCH: serving([False, True])})
    told: list[str] = []
    source.subscribe(told.append)
    source.set(serving([0, 1]))
    assert told == [PUNCH]


def test_a_deleted_flag_is_told_and_serves_its_safe_value() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    told: list[str] = []
    source.subscribe(told.append)
    source.delete(PUNCH)
    assert told == [PUNCH]
    assert evaluation(source).value is False


def test_a_flag_that_comes_back_has_a_version_of_its_own() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    source.delete(PUNCH)
    source.set(flag_from(PUNCH, False))
    assert evaluation(source).version == 2


def test_a_subscriber_that_left_is_told_nothing() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    told: list[str] = []
    unsubscribe = source.subscribe(told.append)
    unsubscribe()
    source.set(flag_from(PUNCH, False))
    assert told == []


def test_a_document_altered_in_place_has_no_effect_until_it_is_set() -> None:
    document = flag_from(PUNCH, False)
    source = MemoryFlags({PUNCH: document})
    told: list[str] = []
    source.subscribe(told.append)
    document["fallthrough"]["variation"] = 1
    assert source.decide(WEB).value(PUNCH) is False
    source.set(document)
    assert source.decide(WEB).value(PUNCH) is True
    assert told == [PUNCH]


def test_value_and_version_agree_though_the_flag_flips_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, False)})
    evaluate = source._client.variation_detail

    def flip_after_evaluating(*arguments: Any) -> Any:
        detail = evaluate(*arguments)
        source.set(flag_from(PUNCH, True))
        return detail

    monkeypatch.setattr(source._client, "variation_detail", flip_after_evaluating)
    found = evaluation(source)
    assert (found.value, found.version) == (True, 2)


def test_flags_that_are_evaluated_in_one_call_decide_as_each_by_itself() -> None:
    catalogue = [each.key for each in CATALOG]
    clause = {"contextKind": "team", "attribute": "key", "op": "in", "values": ["acme"]}
    prerequisite = [{"key": catalogue[0], "variation": 1}]
    changes: list[dict[str, Any]] = [
        flag_from(PUNCH, Rollout(50, "sandbox")),
        {"rules": [{"id": "acme", "variation": 0, "clauses": [clause]}]},
        {"contextTargets": [{"contextKind": "sandbox", "variation": 0, "values": ["web-1", "web-2"]}]},
        {"variations": [False, "yes"]},
        {"on": False},
        {"on": False, "offVariation": None},
        {"prerequisites": prerequisite},
        {"fallthrough": {"variation": 7}},
        {"prerequisites": [{"key": catalogue[8], "variation": 0}]},
        {"variations": [None, None]},
    ]
    found = {key: {**serving([False, True]), **each, "key": key} for key, each in zip(catalogue, changes, strict=False)}
    others = {f"other-{n}": {**found[PUNCH], "key": f"other-{n}"} for n in range(len(CATALOG))}
    few, many = MemoryFlags(found, ALL), MemoryFlags({**found, **others}, ALL)
    webs = [SandboxAttributes(f"web-{n}", template="python", team=team) for n in range(8) for team in ("acme", "umbra")]
    at_once, one_by_one = ([source.decide(web) for web in webs] for source in (few, many))
    assert at_once == one_by_one
    for web, decision in zip(webs, at_once, strict=True):
        context = make_context(ALL.context(web, "pause"))
        assert [few.evaluate(each, context) for each in CATALOG] == list(decision.evaluations), "each asked for alone"
    reasons = {each.reason for decision in at_once for each in decision.evaluations}
    assert reasons >= {"OFF", "FALLTHROUGH", "TARGET_MATCH", "RULE_MATCH", "PREREQUISITE_FAILED", "WRONG_TYPE"}
    assert reasons >= {"ERROR:MALFORMED_FLAG", "ERROR:FLAG_NOT_FOUND"}


@pytest.mark.parametrize("served", [{}, {PUNCH: flag_from(PUNCH, True)}])
def test_flags_that_there_are_not_have_each_its_own_safe_value(served: dict[str, Any]) -> None:
    found = MemoryFlags(served).decide(WEB)
    missing = [each for each in found.evaluations if each.flag not in served]
    assert [each.value for each in missing] == [flag(each.flag).safe for each in missing]
    assert {(each.reason, each.variation, each.version) for each in missing} == {("ERROR:FLAG_NOT_FOUND", None, None)}


def test_some_flags_alone_are_decided_as_among_all() -> None:
    source = MemoryFlags({PUNCH: flag_from(PUNCH, Rollout(50, "sandbox"))})
    for web in (SandboxAttributes(f"web-{n}", template="python", team="acme") for n in range(16)):
        asked = (flag(BACKGROUND), flag(PUNCH))
        whole = source.decide(web)
        assert source.decide(web, "pause", asked).evaluations == tuple(whole.evaluation(each.key) for each in asked)


def test_flags_that_no_pause_reads_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryFlags({f"other-{n}": {**flag_from(PUNCH, True), "key": f"other-{n}"} for n in range(300)})
    monkeypatch.setattr(source._client, "all_flags_state", lambda *_, **__: pytest.fail("all of them are evaluated"))
    source.decide(WEB)


def test_a_closed_source_says_off_and_closing_twice_is_harmless() -> None:
    source = MemoryFlags({})
    source.close()
    source.close()
    assert source.status().state == "OFF"


def test_closing_does_not_hang_with_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags.launchdarkly, "CLOSE_SECONDS", 0.05)
    stuck = threading.Event()
    monkeypatch.setattr(InProcessSource, "stop", lambda _: stuck.wait())
    MemoryFlags({}).close()
    stuck.set()


def test_sdk_logs_go_to_the_file_and_not_to_the_screen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, restored_sdk_logger: None
) -> None:
    route_sdk_logs(tmp_path / "first.log")
    route_sdk_logs(tmp_path / "sdk.log")
    logging.getLogger("ldclient.util").warning("evaluated too early")
    assert "evaluated too early" in (tmp_path / "sdk.log").read_text()
    assert not (tmp_path / "first.log").exists()
    assert caplog.records == []  # nothing went up to the root, which writes to stderr


@pytest.fixture
def restored_sdk_logger() -> Iterator[None]:
    logger = logging.getLogger("ldclient")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.propagate = handlers, propagate


def test_no_thread_is_started_for_flags_in_memory() -> None:
    before = threading.active_count()
    MemoryFlags({PUNCH: flag_from(PUNCH, True)})
    assert threading.active_count() == before


def test_each_step_of_a_rollout_keeps_everyone_it_had() -> None:
    source = InProcessSource({}, {})
    evaluator = Evaluator(source)
    contexts = [make_context({"kind": "sandbox", "key": f"web-{number}"}) for number in range(10_000)]
    cohorts = []
    for percent in (0, 1, 10, 50, 100):
        source.put({PUNCH: flag_from(PUNCH, Rollout(percent, "sandbox"))}, {})
        cohorts.append({i for i, c in enumerate(contexts) if evaluator.evaluate(flag(PUNCH), c).value})
    assert all(smaller < larger for smaller, larger in pairwise(cohorts))
    sizes = [len(cohort) for cohort in cohorts]
    assert sizes == pytest.approx([0, 100, 1000, 5000, 10_000], abs=150)
    assert (sizes[0], sizes[-1]) == (0, 10_000)


@pytest.mark.parametrize(("percent", "value"), [(0, False), (50, False), (99.999, False), (100, True)])
def test_a_context_without_the_rollouts_kind_is_served_the_first_entry_of_any_weight(
    percent: float, value: bool
) -> None:
    source = Evaluator(InProcessSource({PUNCH: flag_from(PUNCH, Rollout(percent, "sandbox"))}, {}))
    data = ALL.context(WEB, "pause")
    del data["sandbox"]
    assert source.evaluate(flag(PUNCH), make_context(data)).value is value
    assert source.evaluate(flag(PUNCH), make_context(data), as_go=False).value is False, "Python's SDK: the first"


def test_an_unsafe_variation_listed_first_would_hit_a_context_without_the_kind() -> None:
    """Why the order matters: at 1 % production serves entry 0 to whoever lacks the kind."""
    entries = [{"variation": 1, "weight": 1_000}, {"variation": 0, "weight": 99_000}]
    rollout = {"rollout": {"contextKind": "sandbox", "variations": entries}}
    source = Evaluator(InProcessSource({PUNCH: serving([False, True], fallthrough=rollout)}, {}))
    data = ALL.context(WEB, "pause")
    del data["sandbox"]
    assert source.evaluate(flag(PUNCH), make_context(data)).value is True


def test_a_segment_reaches_the_evaluator() -> None:
    clause = {"attribute": "", "op": "segmentMatch", "values": ["kept"]}
    rules = [{"variation": 0, "clauses": [clause]}]
    segment = {
        "key": "kept",
        "includedContexts": [{"contextKind": "team", "values": ["acme"]}],
    }
    source = Evaluator(InProcessSource({PUNCH: serving([False, True], rules=rules)}, {"kept": segment}), contexts=ALL)
    assert source.decide(WEB).value(PUNCH) is False
