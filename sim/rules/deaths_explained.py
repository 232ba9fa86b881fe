"""No guest, zygote or node dies without a fault, a step or an act of the engine that says so.

A death that nothing explains took evidence along, and may come from outside: it makes a run inconclusive, never
violated. It is named: which process, when, in which state of its sandbox.
"""

from __future__ import annotations

from typing import NamedTuple

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.codes import fault_kind
from sim.record.ledger import Entry
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding

NAME = "deaths_explained"
_FOUND_DEAD = "dead"  # code of a look at a guest (engine.errors.GuestRanError)
_ENDS_THE_NODE = frozenset({"crash", "restart"})  # steps; before a node's death said whether it was asked for


class _Death(NamedTuple):
    """One death that nothing explains. `name` is that of a guest, else empty."""

    process: str
    name: str
    pid: int | None
    state: str | None
    entry: Entry
    how: str = "died"


def judge(evidence: Evidence) -> Finding:
    """Every process that the ledger knows; each unexplained death is evidence that is missing."""
    finding = Finding(len(evidence.born) + 2 * len(evidence.of_kind(events.NodeStarted)))  # with each node's zygote
    reported: set[str] = set()
    history = _History(evidence)
    for entry in evidence.entries:
        death = history.unexplained(entry)
        if death is None or death.name in reported:
            continue
        reported |= {death.name} - {""}
        pid = "" if death.pid is None else f" (pid {death.pid})"
        state = "" if death.state is None else f" while its sandbox was {death.state}"
        reason = f"the {f'{death.process} {death.name}'.strip()}{pid} {death.how} {entry.t:.3f} s into the run{state}"
        finding.lacks(
            entry.sandbox,
            f"{reason}: no fault, step or act of the engine explains it",
            incarnation=death.name or None,
            pid=death.pid,
            state=death.state,
            t=entry.t,
            pause=entry.pause,
        )
    return finding


class _History:
    """What the ledger said so far, entry by entry in its order."""

    def __init__(self, evidence: Evidence) -> None:
        self._born = evidence.born
        self._state: dict[str, str] = {}
        self._latest: dict[str, str] = {}
        self._killed: set[str] = set()  # sandboxes whose latest guest a fault killed
        self._step = ""
        self._node_killed = False

    def unexplained(self, entry: Entry) -> _Death | None:
        """The death that this entry is of, where nothing before it explains it. What a node saw comes first."""
        name = entry.sandbox or ""
        match entry.event:
            case events.ProcessDied(process, pid, incarnation, state, code):
                how = "did not answer and was killed" if code == "silent" else "died"
                return _Death(process, incarnation or "", pid, state, entry, how)
            case events.NodeCrashed(pid, asked):
                asked = self._step in _ENDS_THE_NODE if asked is None else asked
                return None if asked or self._node_killed else _Death("node", "", pid, None, entry)
            case engine_events.GuestLooked(code=code) | events.GuestThawed(code=code) if code == _FOUND_DEAD:
                return self._of_guest(name, entry)
            case events.StateChanged(new=new, stop_reason=reason):
                death = self._of_guest(name, entry) if reason == "crashed" else None
                self._state[name] = new
                return death
            case _:
                self._go_on(name, entry.event)
        return None

    def _go_on(self, name: str, event: Event) -> None:
        match event:
            case events.StepStarted(step=step):
                self._step = step
            case events.NodeStarted():
                self._node_killed = False
            case events.GuestSpawned(incarnation):
                self._latest[name] = incarnation
                self._killed.discard(name)
            case events.FaultFired(kind=kind, error=error):
                known = fault_kind(kind, error)
                self._node_killed |= known == "kill-node"
                self._killed |= {name} if known == "kill-guest" else set()
            case _:
                pass

    def _of_guest(self, sandbox: str, entry: Entry) -> _Death | None:
        if sandbox in self._killed:
            return None
        incarnation = self._latest.get(sandbox, "")
        born = self._born[incarnation].entry.event if incarnation in self._born else None
        pid = born.pid if isinstance(born, events.GuestSpawned) else None
        return _Death("guest", incarnation, pid, self._state.get(sandbox), entry, "was found dead")
