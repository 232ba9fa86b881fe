"""Which colour a bar of the plot has: what became of its pause or checkpoint."""

from __future__ import annotations

import pytest

from sim.record.view import PauseView
from sim.report import plot
from tests.story import at_its_end


@pytest.mark.parametrize(
    ("checkpoint", "consumed", "punched", "kind"),
    [
        (False, True, 8, "punched"),
        (False, True, 0, "not punched"),
        (True, True, 8, "punched"),
        (True, True, 0, "not punched"),
        (True, False, 0, "checkpointed in place"),
        (True, None, 0, "checkpointed in place"),
    ],
)
def test_a_checkpoint_that_consumes_its_memory_is_drawn_as_a_pause(
    checkpoint: bool, consumed: bool | None, punched: int, kind: str
) -> None:
    pause = PauseView("web-0.p1", "web-0", 1.0, punched_bytes=punched)
    assert plot._kind(at_its_end(pause, checkpoint=checkpoint, consumed=consumed)) == kind
    assert kind in plot._KINDS
