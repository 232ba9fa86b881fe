"""`peak_bounded`: 8 MiB with punching, the dirty bytes and 8 MiB without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sim.rules.peak_bounded import PeakBounded

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Scene

MIB = 1 << 20


def judged(scene: Scene, **settled: Any) -> PeakBounded:
    scene.freeze()
    scene.settle(dirty_bytes=20 * MIB, **settled)
    checker = PeakBounded()
    for _ in range(2):
        checker.observe(scene.evidence())
    checker.conclude(scene.evidence())
    return checker


PUNCHED = {"punch": True}
KEPT = {"punch": False}
CANNOT_PUNCH = {"punch": True, "punch_error": "Operation not permitted"}
NOT_CONDEMNED = {"punch": True, "condemn_error": "No space left"}


@pytest.mark.parametrize(
    ("how", "bound"),
    [(PUNCHED, 8 * MIB), (KEPT, 28 * MIB), (CANNOT_PUNCH, 28 * MIB), (NOT_CONDEMNED, 28 * MIB)],
    ids=["punched", "kept", "cannot punch", "not condemned"],
)
def test_the_bound_holds_to_the_byte(scene: Scene, how: dict[str, Any], bound: int) -> None:
    checker = judged(scene, peak_over=bound, **how)
    assert (checker.checked, checker.violations) == (1, [])


@pytest.mark.parametrize(
    ("how", "bound"),
    [(PUNCHED, 8 * MIB), (KEPT, 28 * MIB), (CANNOT_PUNCH, 28 * MIB), (NOT_CONDEMNED, 28 * MIB)],
    ids=["punched", "kept", "cannot punch", "not condemned"],
)
def test_one_byte_more_is_caught_with_both_figures(scene: Scene, how: dict[str, Any], bound: int) -> None:
    (violation,) = judged(scene, peak_over=bound + 1, **how).violations
    assert violation == {
        "sandbox": "web-0",
        "reason": f"the pause took {bound + 1} bytes beyond its guest, more than {bound}",
        "incarnation": "web-0.1",
        "pause": "web-0.p1",
    }


def test_a_pause_that_was_not_measured_or_has_not_settled_is_not_judged(scene: Scene) -> None:
    scene.freeze("web-0.p2")
    checker = judged(scene, peak_over=None)
    assert (checker.checked, checker.violations) == (0, [])
