"""A run's first line, and the input of its node: the sandboxes, and after a crash what the ledger knows of each."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from flags.context import OF_A_GROUP
from sim.files.fleet import GuestKind
from sim.files.lifecycle import State
from sim.files.scenario import Scenario
from sim.node.config import Ended, Known, OpenPause, SandboxConfig
from sim.record import events
from sim.record.ledger import Entry
from sim.record.names import number_of
from sim.record.scenario_copy import chosen
from sim.record.view import PauseView, SandboxView
from sim.run.host import host, snapdrill_version


def run_started(
    scenario: Scenario, run: str, seed: int, only: Sequence[str], facts: Mapping[str, bool]
) -> events.RunStarted:
    """What a run is: version, seed, the configuration as drawn, the host, and what more it gave this run."""
    fleet = [each.model_dump(mode="json") for each in scenario.fleet]
    return events.RunStarted(
        version=1,
        snapdrill=snapdrill_version(),
        run=run,
        name=scenario.title,
        seed=seed,
        only=list(only),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        **scenario.engine.choice(),
        drawn={"fleet": fleet} | chosen(scenario),
        host={**host(), "python": platform.python_version(), **facts},
        **scenario.facts(),
        asks_keeper=True,
    )


def known(sandbox: SandboxView, entries: Sequence[Entry]) -> Known:
    """Its state and newest build, the last numbers of its guests and pauses, and the pause that was cut off."""
    mine = [each for each in entries if each.sandbox == sandbox.name]
    guests = [each.event.incarnation for each in mine if isinstance(each.event, events.GuestSpawned)]
    empty = [each.event.incarnation for each in mine if isinstance(each.event, events.SuccessorSpawned)]
    numbers = [number_of(name) for name in (*guests, *empty)]
    pauses = [number_of(each.pause) for each in mine if each.pause is not None]
    sent = max((at for at, each in enumerate(mine) if _is_sent_into_a_pause(each)), default=0)
    older = {each.pause for each in mine[:sent]}  # they say nothing of the pause that it was last sent into
    return Known(
        state=sandbox.state,
        reason=sandbox.reason,
        build=sandbox.build,
        incarnations=max(numbers, default=0),  # not their count: a resume may have failed, a pause left no line
        pauses=max(pauses, default=0),
        open_pause=_open(sandbox.pause, older),
        guest=guests[-1] if guests else "",
        ended=_ended(mine[sent:], older),
    )


def _is_sent_into_a_pause(entry: Entry) -> bool:
    return isinstance(entry.event, events.StateChanged) and entry.event.new in {State.PAUSING, State.CHECKPOINTING}


def _ended(entries: Sequence[Entry], older: Collection[str | None]) -> Ended | None:
    for each in entries:
        match each.event:
            case events.PauseSettled(outcome=outcome, checkpoint=checkpoint, consumed=consumed) as settled:
                if settled.build not in older:
                    return Ended(settled.build, outcome, not checkpoint if consumed is None else consumed)
            case _:
                pass
    return None


def _open(pause: PauseView | None, older: Collection[str | None]) -> OpenPause | None:
    if pause is None or pause.settled_at is not None or pause.id in older:
        return None
    return OpenPause(
        pause.id,
        pause.path,
        pause.punch,
        pause.punch_reason,
        pause.punch_code,
        pause.dirty_bytes,
        pause.blocked_ms,
        pause.successor,
    )


def guest_kind(asked: GuestKind) -> str:
    """`process` or `vm`: what `auto` is on this host."""
    return asked if asked != "auto" else "vm" if host()["kvm"] else "process"


def sandbox_configs(scenario: Scenario, only: Collection[str], heartbeat: float) -> list[SandboxConfig]:
    """Every sandbox, or those in `only`; `heartbeat` (seconds, 0: none) where the scenario asks for none."""
    return [
        SandboxConfig(
            name=each.name,
            memory=each.memory,
            page_size=each.page_size,
            block_size=each.block_size,
            template=each.template,
            team=each.team,
            cluster=each.cluster,
            dirty=each.workload.dirty / 100,
            pattern=each.workload.pattern,
            heartbeat=each.workload.heartbeat or heartbeat,
            threads=each.workload.threads,
            guest=guest_kind(each.guest),
            program=each.workload.program,
            absent=each.absent,
            others=dict(each.others),
            node=each.node,
            key=each.key,
            **{name: getattr(each, name) for name in OF_A_GROUP},
        )
        for each in scenario.sandboxes()
        if not only or each.name in only
    ]
