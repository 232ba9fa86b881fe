"""Steps of a valid scenario whose outcome depends on how fast its copies are."""

from __future__ import annotations

from collections.abc import Iterator

from flags.document import Mistake, Position
from sim.files.scenario import Scenario
from sim.files.steps import Clear, Inject, PauseStep, Restart


def races(scenario: Scenario) -> Iterator[Mistake]:
    """A warning for each step that may disarm a fault before the copies of an earlier pause have met it."""
    armed: int | None = None
    loose: int | None = None
    for index, step in enumerate(scenario.steps):
        if isinstance(step, Inject):
            armed = index
        elif isinstance(step, PauseStep) and step.until == "returned":
            loose = index
        elif isinstance(step, Clear | Restart):
            if armed is not None and loose is not None:
                yield _race(scenario, index, armed, loose)
            armed = None


def _race(scenario: Scenario, index: int, armed: int, loose: int) -> Mistake:
    at = scenario.origin(("steps", index))
    lines = [scenario.origin(("steps", each)).line for each in (armed, loose)]
    what = (
        f"{scenario.steps[index].kind} may come before the fault of line {lines[0]} has fired: "
        f"the pause of line {lines[1]} does not wait for its copies"
    )
    file = at.file or str(scenario.path)
    return Mistake(Position(at.line, at.column), "", what, "leave `until: returned` out there", file, "warning")
