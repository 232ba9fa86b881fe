"""Fifty real sandboxes and their forecast: the same pauses, the same cohort, the same failures."""

from __future__ import annotations

import pathlib

import pytest

from sim.report.table import text
from sim.rollout.agreement import compare_with_real
from sim.rollout.costs import Costs


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_fifty_real_sandboxes_do_as_their_forecast_says(tmp_path: pathlib.Path) -> None:
    agreed = await compare_with_real(50, Costs(), 3, tmp_path, weights=(0.0, 50.0))
    assert agreed.holds, text(agreed.section())
    figures = {(row.weight, row.name): row.real for row in agreed.rows}
    assert figures[50.0, "discarded"] > 0 == figures[0.0, "discarded"]
    assert figures[50.0, "punched by pauses that finished"] > 0
