"""The Prometheus text file: what a parser of the format makes of it, and names that operators know."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from engine.events import Event
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.report.prometheus import Metrics

MIB = 1 << 20


def settled(**changes: Any) -> events.PauseSettled:
    fields: dict[str, Any] = {
        "outcome": "finished",
        "path": "memfd-background",
        "punch": True,
        "punch_reason": "legal",
        "dirty_bytes": 32 * MIB,
        "punched_bytes": 32 * MIB,
        "peak_over": MIB,
        "peak_ratio": 1.03,
        "copy_ms": 12.5,
        "blocked_ms": 3.0,
        "condemned": True,
        "build": "b1",
        "content_hash": "c1",
    }
    return events.PauseSettled(**fields | changes)


def pause(sandbox: str, *facts: Event) -> list[Entry]:
    return [Entry(1.0 + index / 4, each, sandbox, f"{sandbox}.p1") for index, each in enumerate(facts)]


def run(name: str = 'de"mo\\\n') -> list[Entry]:
    """A pause that finished, one that failed after its answer, one that was rolled back, a checkpoint, a kill."""
    started = events.RunStarted(1, "0", "r", name, 1, [], "2026-01-02T03:04:05+00:00", 1 << 30, "disk", None)
    made = events.SandboxCreated(32 * MIB, 4096, 4096, "python", "acme", "local")
    spawned = events.GuestSpawned("web-0.1", 1, 1, 1, 1, 1, "t", 2.0, None)
    lost = settled(outcome="discarded", error="EIO", punch_error="EPERM")
    rolled = settled(outcome="rolled-back", punch=False, punched_bytes=0, condemned=False)
    names = ("web-0", "web-1", "web-2", "web-3")
    return [
        Entry(0.0, started, None, None),
        *(Entry(0.1, made, each, None) for each in names),
        Entry(0.2, spawned, "web-0", None),
        *pause("web-0", events.GuestFrozen("web-0.1", 1.0), events.PauseReturned(3.0, True), settled()),
        *pause("web-1", events.PauseReturned(3.0, True), lost),
        *pause("web-2", events.PauseReturned(3.0, False), rolled),
        *pause("web-3", settled(checkpoint=True, punch=False, punched_bytes=0)),
        Entry(2.0, events.StateChanged("paused", "discarded", "EIO", "discarded"), "web-1", None),
        Entry(2.1, events.StateChanged("running", "killed", "asked", "killed"), "web-2", None),
        Entry(2.2, events.FlagSet("memfd-punch-on-snapshot", True, True, 1.0), None, None),
        Entry(2.3, events.FlagSet("memfd-punch-on-snapshot", False, True, 4.0), None, None),
        Entry(2.4, events.Judged("invariant:bytes_exact", "violated", 1, [{"reason": "x"}]), None, None),
        Entry(2.5, events.RunEnded("violated", 1, {}, None, 48 * MIB), None, None),
    ]


@pytest.fixture
def text(tmp_path: pathlib.Path) -> str:
    metrics, fold, entries = Metrics(), Fold(), run()
    fold.apply(entries)
    metrics.add(entries, fold.view())
    metrics.write(tmp_path / "metrics.prom")
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.prom"]
    return (tmp_path / "metrics.prom").read_text()


@pytest.fixture
def families(text: str) -> dict[str, Metric]:
    return {each.name: each for each in text_string_to_metric_families(text)}


def samples(family: Metric, suffix: str = "") -> dict[tuple[str, ...], float]:
    """By the labels' values but for the scenario's."""
    return {
        tuple(value for key, value in sorted(each.labels.items()) if key != "scenario"): each.value
        for each in family.samples
        if each.name == family.name + suffix
    }


def test_the_names_are_those_of_the_originals_telemetry_or_begin_with_ours(families: dict[str, Metric]) -> None:
    assert [name for name in families if not name.startswith("snapdrill_")] == [
        "orchestrator_sandbox_pause_duration_milliseconds",
        "orchestrator_sandbox_snapshot_process_memory_duration_milliseconds",
        "orchestrator_sandbox_snapshot_diff_bytes",
        "orchestrator_sandbox_create_duration_milliseconds",
        "orchestrator_sandbox_killed",
        "orchestrator_sandbox_checkpoint",
        "orchestrator_env_sandbox_running",
    ]
    assert all(each.documentation and re.fullmatch(r"[a-z_]+", each.name) for each in families.values())


def test_every_scenario_name_survives_the_format(families: dict[str, Metric]) -> None:
    assert {each.labels["scenario"] for family in families.values() for each in family.samples} == {'de"mo\\\n'}


def test_a_histogram_counts_up_to_its_count(families: dict[str, Metric]) -> None:
    histograms = [each for each in families.values() if each.type == "histogram"]
    assert len(histograms) == 7
    for family in histograms:
        by_labels: dict[tuple[tuple[str, str], ...], list[float]] = {}
        for each in family.samples:
            if each.name.endswith("_bucket"):
                key = tuple(sorted(item for item in each.labels.items() if item[0] != "le"))
                by_labels.setdefault(key, []).append(each.value)
        counts = [each.value for each in family.samples if each.name.endswith("_count")]
        assert by_labels
        assert all(values == sorted(values) for values in by_labels.values())
        assert [values[-1] for values in by_labels.values()] == counts


def test_a_pause_succeeds_by_its_answer_and_a_checkpoint_is_none(families: dict[str, Metric]) -> None:
    pauses = families["orchestrator_sandbox_pause_duration_milliseconds"]
    assert samples(pauses, "_count") == {("false", "true"): 2, ("false", "false"): 1}
    assert samples(pauses, "_sum") == {("false", "true"): 6.0, ("false", "false"): 3.0}
    assert samples(families["orchestrator_sandbox_checkpoint"], "_total") == {("true", "true"): 1}


def test_the_export_is_the_pause_without_its_freeze(families: dict[str, Metric]) -> None:
    export = families["orchestrator_sandbox_snapshot_process_memory_duration_milliseconds"]
    assert samples(export, "_sum")["false", "false", "true"] == 2.0 + 3.0


def test_a_copy_that_failed_after_success_is_counted_with_what_it_punched(families: dict[str, Metric]) -> None:
    assert samples(families["snapdrill_copies_failed_after_success"], "_total") == {(): 1}
    assert samples(families["snapdrill_punched_bytes"], "_total") == {(): 64 * MIB}
    assert samples(families["snapdrill_punch_failures"], "_total") == {("EPERM",): 1}
    assert samples(families["snapdrill_copy_after_answer_seconds"], "_count") == {("finished",): 1, ("discarded",): 1}


def test_who_ended_without_a_snapshot_is_counted_by_reason(families: dict[str, Metric]) -> None:
    assert samples(families["orchestrator_sandbox_killed"], "_total") == {("discarded",): 1, ("request",): 1}


def test_the_run_itself_is_there(families: dict[str, Metric]) -> None:
    assert samples(families["snapdrill_node_memory_peak_bytes"]) == {(): 48 * MIB}
    assert samples(families["snapdrill_run_exit_code"]) == {("violated",): 1}
    assert samples(families["snapdrill_run_started_timestamp_seconds"]) == {(): 1767323045.0}
    assert samples(families["snapdrill_judgement_violations"]) == {("bytes_exact", "violated"): 1}
    assert samples(families["snapdrill_kill_switch_propagation_seconds"], "_sum") == {("inline",): 0.004}


def test_there_is_no_family_without_a_sample(tmp_path: pathlib.Path) -> None:
    metrics = Metrics()
    metrics.add([], Fold().view())
    metrics.write(tmp_path / "metrics.prom")
    found = list(text_string_to_metric_families((tmp_path / "metrics.prom").read_text()))
    assert all(each.samples for each in found)
    assert "snapdrill_run_exit_code" in {each.name for each in found}
