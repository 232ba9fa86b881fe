"""A rehearsal's result as OpenMetrics text, for a dashboard beside the production metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from sim.report.words import scrub
from sim.rollout.decision_page import stage_bound
from sim.rollout.results import Rehearsal, StageResult

_DECISION = "snapdrill_rehearsal_decision"
_BOUND = "snapdrill_rehearsal_loss_bound_ratio"


class _Gauges(Collector):
    """Everything as gauges with the labels plan, flag and, of a stage, its weight in percent."""

    def __init__(self, found: Rehearsal) -> None:
        self._found = found

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is unknown has no sample."""
        found = self._found
        of = (scrub(found.plan.name), found.plan.flag)
        yield _gauge(_DECISION, "1 for the decision.", ("decision",), [((*of, found.decision), 1.0)])
        code = [(of, float(found.verdict.exit_code))]
        yield _gauge("snapdrill_rehearsal_exit_code", "0 go, 1 no-go, 3 inconclusive or waits.", (), code)
        if found.bound is not None:
            said = "Loss rate of exposed sandboxes that is ruled out (derived)."
            yield _gauge(_BOUND, said, ("confidence",), [((*of, f"{found.bound.confidence:g}"), found.bound.rate)])
        values = [(each, dict(_of_stage(found, each))) for each in found.stages]
        for name, said in _STAGE.items():
            samples = [((*of, f"{each.stage.weight:g}"), known[name]) for each, known in values if name in known]
            if samples:
                yield _gauge(f"snapdrill_rehearsal_{name}", said, ("weight",), samples)


_STAGE = {
    "exposed_sandboxes": "Sandboxes of the rehearsed fleet with the flag on (derived).",
    "fleet_exposed_sandboxes": "Sandboxes of your whole fleet with the flag on (measured).",
    "punched_sandboxes": "Distinct sandboxes that were punched (measured).",
    "lost_because_of_the_flag": "Sandboxes lost here and not with the flag off (derived).",
    "stage_loss_bound_ratio": "Loss rate that the stage rules out at 95 % (derived).",
    "punched_before_off_p50": "Sandboxes punched until OFF is obeyed, in the middle of incidents (derived).",
    "punched_before_off_p99": "The same, at most in 99 of 100 incidents (derived).",
    "peak_off_bytes": "Peak of the node with the flag off (measured).",
    "peak_on_bytes": "Peak of the node with the flag on (measured).",
    "saved_at_peak_bytes": "What the largest pauses at once need less (derived).",
}


def _of_stage(found: Rehearsal, each: StageResult) -> Iterator[tuple[str, float]]:
    yield "exposed_sandboxes", float(len(each.exposure.sandboxes))
    if found.fleet is not None:
        yield "fleet_exposed_sandboxes", float(found.fleet.exposures[each.stage.number - 1].count)
    yield "punched_sandboxes", float(len(each.on.punched))
    yield "lost_because_of_the_flag", float(len(each.lost_by_flag))
    punched = None if each.incident is None else each.incident.punched
    known = {
        "stage_loss_bound_ratio": stage_bound(each),
        "punched_before_off_p50": None if punched is None else punched.p50,
        "punched_before_off_p99": None if punched is None else punched.p99,
        "peak_off_bytes": each.off.pools.both if each.off.pools.samples else None,
        "peak_on_bytes": each.on.pools.both if each.on.pools.samples else None,
        "saved_at_peak_bytes": each.saved,
    }
    yield from ((name, float(value)) for name, value in known.items() if value is not None)


def _gauge(
    name: str, said: str, labels: tuple[str, ...], samples: Sequence[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, said, labels=("plan", "flag", *labels))
    for values, value in samples:
        made.add_metric(values, value)
    return made


def openmetrics(found: Rehearsal) -> str:
    """The whole text, with its end mark."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Gauges(found))
    made: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return made.decode()
