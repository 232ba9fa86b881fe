"""A Prometheus text file of finished runs, for node_exporter's textfile collector.

Names that begin with orchestrator_ are those of the original's telemetry as its exporter writes them (dots become
underscores, the unit is appended), so that its operators recognise them; metrics that it lacks begin with snapdrill_.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import PauseView, View
from sim.report import judgements
from sim.report.words import scrub

_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4)
_SECONDS = tuple(each / 1e3 for each in _MS)
_BYTES = tuple(float(1 << shift) for shift in range(16, 36, 2))


@dataclass(frozen=True, slots=True)
class _Kind:
    """A metric without its samples; `buckets` are a histogram's upper bounds."""

    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


_ORIGINAL = "orchestrator_sandbox_"
_HISTOGRAMS = {
    f"{_ORIGINAL}pause_duration_milliseconds": _Kind(
        "From a pause's request to its answer (measured).", ("fs_only", "success"), _MS
    ),
    f"{_ORIGINAL}snapshot_process_memory_duration_milliseconds": _Kind(
        "Memory export until the answer: the pause without its freeze (derived).",
        ("in_place", "deferred", "success"),
        _MS,
    ),
    f"{_ORIGINAL}snapshot_diff_bytes": _Kind("Dirty bytes of a pause (measured).", ("file_type", "kind"), _BYTES),
    f"{_ORIGINAL}create_duration_milliseconds": _Kind(
        "From a guest's start to its tracked memory (measured).", ("sandbox_resume", "success"), _MS
    ),
    "snapdrill_pause_peak_over_bytes": _Kind(
        "Memory beyond the guest's own during a pause, at its peak (measured).", ("punch",), _BYTES
    ),
    "snapdrill_copy_after_answer_seconds": _Kind(
        "From a pause's answer to the end of its copy in the background (measured).", ("outcome",), _SECONDS
    ),
    "snapdrill_kill_switch_propagation_seconds": _Kind(
        "From the kill switch at its source until the node had it (measured).", ("source",), _SECONDS
    ),
}
_COUNTERS = {
    f"{_ORIGINAL}killed": _Kind("Sandboxes that ended without a snapshot, by reason.", ("kill_reason",)),
    f"{_ORIGINAL}checkpoint": _Kind("Checkpoints.", ("in_place", "success")),
    "snapdrill_punched_bytes": _Kind("Guest memory freed by punching (measured).", ()),
    "snapdrill_punch_failures": _Kind("Pauses in which a punch failed; the copy went on.", ("error",)),
    "snapdrill_copies_failed_after_success": _Kind("Copies that failed after their pause had answered success.", ()),
}
_GAUGES = {
    "orchestrator_env_sandbox_running": _Kind("Sandboxes that run at the end.", ()),
    "snapdrill_node_memory_peak_bytes": _Kind("Guests and caches at their peak (measured).", ()),
    "snapdrill_node_memory_budget_bytes": _Kind("The node's budget (given).", ()),
    "snapdrill_run_exit_code": _Kind("0 held, 1 violated, 3 inconclusive.", ("verdict",)),
    "snapdrill_run_started_timestamp_seconds": _Kind("When the run began.", ()),
    "snapdrill_run_duration_seconds": _Kind("How long it took.", ()),
    "snapdrill_judgement_violations": _Kind("Violations of what was judged.", ("judgement", "verdict")),
}
_REASONS = {"killed": "request"}  # the original's word; the other stop reasons are ours
_Key = tuple[str, ...]


@dataclass(eq=False)
class Metrics(Collector):
    """Takes finished runs; every sample carries the scenario's name as a label."""

    _observed: dict[str, dict[_Key, list[float]]] = field(default_factory=lambda: defaultdict(dict))
    _counted: dict[str, dict[_Key, float]] = field(default_factory=lambda: defaultdict(dict))
    _set: dict[str, dict[_Key, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, entries: Iterable[Entry], view: View) -> None:
        """One run, from its ledger and the view folded from it."""
        scenario = view.run.name if view.run else "unknown"
        frozen, answered = _of_entries(entries := list(entries))
        for each in view.measured:
            if each.settled_at is not None:
                self._pause(scenario, each, frozen.get(each.id, 0.0), answered=each.id in answered)
        for entry in entries:
            self._entry(scenario, entry)
        self._run(scenario, view)

    def write(self, path: Path) -> None:
        """Write the text file atomically; a collector may read it at any time."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        write_to_textfile(str(path), registry)

    def collect(self) -> Iterator[Metric]:
        """Every family that has a sample, in the tables' order."""
        for name, kind in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, kind.help, labels=("scenario", *kind.labels))
            for key, seen in self._observed[name].items():
                histogram.add_metric(_quoted(key), _buckets(seen, kind.buckets), sum(seen))
            if histogram.samples:
                yield histogram
        for name, kind in _COUNTERS.items():
            counter = CounterMetricFamily(name, kind.help, labels=("scenario", *kind.labels))
            for key, count in self._counted[name].items():
                counter.add_metric(_quoted(key), count)
            if counter.samples:
                yield counter
        for name, kind in _GAUGES.items():
            gauge = GaugeMetricFamily(name, kind.help, labels=("scenario", *kind.labels))
            for key, value in self._set[name].items():
                gauge.add_metric(_quoted(key), value)
            if gauge.samples:
                yield gauge

    def _observe(self, name: str, key: _Key, value: float | None) -> None:
        if value is not None:
            self._observed[name].setdefault(key, []).append(value)

    def _count(self, name: str, key: _Key, by: float = 1.0) -> None:
        self._counted[name][key] = self._counted[name].get(key, 0.0) + by

    def _pause(self, scenario: str, pause: PauseView, freeze_ms: float, *, answered: bool) -> None:
        success = _word(answered or pause.outcome == "finished")
        if pause.checkpoint:
            self._count(f"{_ORIGINAL}checkpoint", (scenario, _word(not pause.consumed), success))
        else:
            self._observe(f"{_ORIGINAL}pause_duration_milliseconds", (scenario, "false", success), pause.blocked_ms)
        export = None if pause.blocked_ms is None else max(0.0, pause.blocked_ms - freeze_ms)
        key = (scenario, _word(not pause.consumed), "false", success)
        self._observe(f"{_ORIGINAL}snapshot_process_memory_duration_milliseconds", key, export)
        self._observe(f"{_ORIGINAL}snapshot_diff_bytes", (scenario, "memfile", "dirty"), pause.dirty_bytes)
        self._observe("snapdrill_pause_peak_over_bytes", (scenario, _word(pause.punch)), pause.peak_over)
        self._count("snapdrill_punched_bytes", (scenario,), pause.punched_bytes)
        if pause.punch_error:
            self._count("snapdrill_punch_failures", (scenario, pause.punch_error))
        if answered and pause.returned_at is not None and pause.settled_at is not None:
            took = pause.settled_at - pause.returned_at
            self._observe("snapdrill_copy_after_answer_seconds", (scenario, pause.outcome or ""), took)
        failed_late = answered and pause.outcome != "finished"
        self._count("snapdrill_copies_failed_after_success", (scenario,), float(failed_late))

    def _entry(self, scenario: str, entry: Entry) -> None:
        match entry.event:
            case events.StateChanged(new=new, stop_reason=why) if new in {"killed", "discarded"}:
                reason = _REASONS.get(why or "", why or "unknown")
                self._count(f"{_ORIGINAL}killed", (scenario, reason))
            case events.GuestSpawned(spawn_ms=took, build=build):
                name, key = f"{_ORIGINAL}create_duration_milliseconds", (scenario, _word(build is not None), "true")
                self._observe(name, key, took)
            case _:
                pass

    def _run(self, scenario: str, view: View) -> None:
        verdict, one = judgements.verdict_of(view), (scenario,)
        self._set["orchestrator_env_sandbox_running"][one] = view.counts.get("running", 0)
        peak = view.ended.peak_memory if view.ended else view.memory.peak
        self._set["snapdrill_node_memory_peak_bytes"][one] = peak
        self._set["snapdrill_node_memory_budget_bytes"][one] = view.memory.budget
        self._set["snapdrill_run_exit_code"][scenario, verdict] = view.ended.exit_code if view.ended else 3
        self._set["snapdrill_run_duration_seconds"][one] = view.t
        if view.run:
            began = datetime.fromisoformat(view.run.started).timestamp()
            self._set["snapdrill_run_started_timestamp_seconds"][one] = began
        for each in [*judgements.invariants(view), *judgements.expectations(view)]:
            key = (scenario, each.name, each.verdict)
            known = self._set["snapdrill_judgement_violations"].get(key, 0)
            self._set["snapdrill_judgement_violations"][key] = known + len(each.violations)
        source = view.run.flag_source if view.run else "unknown"
        for switch in view.switches:
            if not switch.on and switch.took_ms is not None:
                name = "snapdrill_kill_switch_propagation_seconds"
                self._observe(name, (scenario, source), switch.took_ms / 1e3)


def _quoted(labels: _Key) -> _Key:
    return tuple(map(scrub, labels))


def _of_entries(entries: Sequence[Entry]) -> tuple[dict[str, float], set[str]]:
    """By pause: how long its freeze took, and which were answered while the copy went on."""
    frozen, answered = {}, set()
    for each in entries:
        match each.event:
            case events.GuestFrozen(freeze_ms=took) if each.pause:
                frozen[each.pause] = took
            case events.PauseReturned(condemned=True) if each.pause:
                answered.add(each.pause)
    return frozen, answered


def _buckets(seen: Sequence[float], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative, as the text format wants them."""
    edges = [*bounds, math.inf]
    labels = [*(f"{each:g}" if each < 1e6 else f"{each:.0f}" for each in bounds), "+Inf"]
    return [(label, sum(each <= edge for each in seen)) for label, edge in zip(labels, edges, strict=True)]


def _word(value: bool) -> str:
    return "true" if value else "false"
