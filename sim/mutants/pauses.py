"""Wrong engines whose fault lies in what the node makes of a pause; the choice of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.pause import PauseResult
from flags.catalog import PUNCH
from sim import events
from sim.faults import FaultyEffects
from sim.mutants import acts
from sim.mutants.catalogue import SWITCHES
from sim.mutants.pull_request import PullRequestPausing
from sim.pausing import Admitted, Pausing
from sim.sandbox import State

if TYPE_CHECKING:
    from sim.node import Node, Sandbox


class BackgroundFailureSwallowed(Pausing):
    """The guest is dead and its cache deleted; the sandbox is left as it was told to be: paused."""

    async def _discarded(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        sandbox.pause = None
        self._end_guest(sandbox, admitted, "paused")


class BackgroundRolledBack(Pausing):
    """The old guest is woken and its sandbox told to be running, by an edge that the lifecycle does not have."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, acts.ResumeAfterPunch)

    async def _discarded(self, sandbox: Sandbox, admitted: Admitted, result: PauseResult) -> None:
        name, old = sandbox.config.name, sandbox.state.value
        sandbox.pause, sandbox.guest, sandbox.state = None, admitted.guest, State.RUNNING
        self._node.ledger.append(events.GuestThawed(admitted.guest.name), sandbox=name)
        changed = events.StateChanged(old, State.RUNNING.value, f"it was rolled back: {result.error}")
        self._node.ledger.append(changed, sandbox=name)


class _ReadsAgain(acts.PunchesBehind):
    """Punches where the flag is on by now, though the pause was decided without."""

    def __init__(self, is_on_now: Callable[[], bool], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may_punch = is_on_now  # type: ignore[method-assign]


class FlagReadTwice(Pausing):
    """The copy is given the flag to read, not only what was decided."""

    def _effects(self, sandbox: Sandbox, admitted: Admitted) -> FaultyEffects:
        def is_on_now() -> bool:
            return self._node.flags.decide(sandbox.config.attributes()).is_on(PUNCH)

        self._make_effects = lambda *arguments: _ReadsAgain(is_on_now, *arguments)
        return super()._effects(sandbox, admitted)


ACTS: dict[str, type[FaultyEffects]] = {
    "resume-after-punch": acts.ResumeAfterPunch,
    "discard-skipped": acts.DiscardSkipped,
    "record-after-punch": acts.RecordAfterPunch,
    "record-retired-early": acts.RecordRetiredEarly,
    "punch-before-publish": acts.PunchBeforePublish,
    "unfinished-visible": acts.UnfinishedVisible,
    "clean-before-first-chunk": acts.CleanBeforeFirstChunk,
    "scan-rearms": acts.ScanRearms,
    "sub-page-punch": acts.SubPagePunch,
    "punch-borrowed": acts.PunchBorrowed,
    "clean-page-lost": acts.CleanPageLost,
}
PAUSES: dict[str, type[Pausing]] = {
    "background-failure-swallowed": BackgroundFailureSwallowed,
    "background-rolled-back": BackgroundRolledBack,
    "flag-read-twice": FlagReadTwice,
}


def wrong_pausing(node: Node) -> Pausing:
    """The pauses of a node whose scenario asks for a wrong engine: a mutant, or else a profile."""
    config = node.config
    if config.mutant is None:
        return PullRequestPausing(node, frozenset(SWITCHES) - set(config.mended))
    return PAUSES[config.mutant](node) if config.mutant in PAUSES else Pausing(node, ACTS[config.mutant])
