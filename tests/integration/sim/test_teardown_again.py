"""A teardown that failed: the condemned guest is ended by the node all the same."""

from __future__ import annotations

from typing import Any

import pytest

from sim.files.faults import AtChunk, failing
from sim.record import events


@pytest.mark.parametrize("discarded", [False, True], ids=["finished", "discarded"])
async def test_a_guest_whose_teardown_failed_is_ended_by_its_node(runs: Any, process: Any, discarded: bool) -> None:
    async with runs.drill(count=1, memory="4MiB") as drill:
        await drill.tick()
        guest = process.of(drill.view().sandboxes["web-0"].pid)
        await drill.inject("teardown", failing("EIO"), AtChunk(0), "web-0")
        if discarded:
            await drill.inject("copy.write", failing("EIO"), AtChunk(1), "web-0")
        await drill.pause(["web-0"])
        view = drill.view()
        assert all(each.fired for each in view.faults)
        assert view.sandboxes["web-0"].state == ("discarded" if discarded else "paused")
        assert guest.state() is None
        assert list((drill.run_dir / "condemned").glob("web-0.1-*")) == []
        assert [each.incarnation for each in runs.told(events.GuestEnded)] == ["web-0.1"]
        view = await drill.finish()
    assert [(each.subject, each.violations) for each in view.judged if each.verdict != "held"] == []
    runs.assert_nothing_is_left()
