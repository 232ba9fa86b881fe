from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import replace

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sim.files.plan import load_plan_text
from sim.rollout.openmetrics import openmetrics
from sim.rollout.results import Rehearsal
from sim.rollout.shown import LossBound
from sim.rollout.stretch import Figures, Pools

Made = Callable[..., Rehearsal]
TEXT = """\
kind: plan
name: small
fleet: [{name: web, count: 4, memory: 1MiB}]
steps:
  - setWeight: 0
  - setWeight: 100
"""


def test_a_result_is_openmetrics_and_what_is_unknown_has_no_sample(rehearsed: Made) -> None:
    on = Figures(punched=("web-0",), pools=Pools(both=4096, samples=1))
    made = rehearsed(load_plan_text(TEXT, pathlib.Path("plan.yaml")), on=on, off=Figures())
    text = openmetrics(replace(made, bound=LossBound(100, 4, 4, 0, 0.95, 0.53)))
    assert text.endswith("# EOF\n")
    samples = {
        (each.name.removeprefix("snapdrill_rehearsal_"), each.labels.get("weight")): each.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for each in family.samples
    }
    assert (samples["decision", None], samples["exit_code", None], samples["loss_bound_ratio", None]) == (1, 0, 0.53)
    assert (samples["exposed_sandboxes", "0"], samples["exposed_sandboxes", "100"]) == (0, 4)
    assert samples["peak_on_bytes", "100"] == 4096
    assert ("peak_off_bytes", "100") not in samples
    assert ("saved_at_peak_bytes", "100") not in samples
