"""A real lease on a relay that falls silent: what the ledger tells of it, and who set the flag."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sim.files.scenario import load_text
from sim.files.steps import Outage
from sim.record import source_events
from sim.run.drill import Drill
from tests.forked import forked_node

PUNCH = "memfd-punch-on-snapshot"
SCENARIO = f"""\
name: leased
fleet:
  - {{name: web, count: 1, memory: 4MiB}}
flags: {{source: relay, lease: 400ms, {PUNCH}: true}}
steps:
  - tick: 1
"""


async def lease(drill: Drill, *, is_open: bool) -> source_events.LeaseMeasured:
    """The lease once it is told to be so."""
    async with asyncio.timeout(20):
        while (found := drill.view().source.lease) is None or found.open != is_open:  # noqa: ASYNC110 - it looks in a file
            await asyncio.sleep(0.02)
    return found


async def test_a_lease_that_nobody_renews_is_told_to_age_and_to_expire_and_opens_again(tmp_path: Path) -> None:
    scenario = load_text(SCENARIO, tmp_path / "leased.yaml")
    async with Drill(scenario, runs_dir=tmp_path / "runs", start_node=forked_node) as drill:
        await lease(drill, is_open=True)
        assert drill.view().source.state == "VALID"
        await drill.outage(Outage(fault="freeze"))
        expired = await lease(drill, is_open=False)
        assert expired.duration == 0.4
        assert expired.age is not None
        assert expired.age >= 0.4
        await drill.set_flag(PUNCH, value=False, by="screen")
        change = drill.view().flag_changes[PUNCH]
        assert (change.by, change.effective) == ("screen", False)
        assert drill.view().source.outage == "freeze"
        await drill.outage(Outage(fault="recover"))
        await lease(drill, is_open=True)
        assert drill.view().source.outage is None
        assert drill.view().flag_changes[PUNCH].effective
