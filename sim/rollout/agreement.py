"""Real sandboxes and their forecast beside each other: the same pauses, the same cohort, the same failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from flags.catalog import PUNCH
from sim.files.figures import in_gib
from sim.files.fleet_file import Fleet, FleetGroup, FleetNode
from sim.files.fleet_scale import CHUNK
from sim.files.scenario import Scenario, load_text
from sim.files.units import format_size
from sim.files.yaml import scenario_text
from sim.record.folder import StoredRun
from sim.report.table import Section, Table
from sim.rollout.costs import Costs
from sim.rollout.node_events import NodeEvents, PauseLoad, Requests
from sim.rollout.simulation import demand
from sim.rollout.virtual_fleet import VirtualFleet, stream, virtual_fleet
from sim.run.forked_nodes import nodes_for
from sim.run.host import host
from sim.run.runner import RunOptions, run_scenario

WEIGHTS = (0.0, 50.0, 100.0)
CONCURRENCY = 4
MEMORY = 8 << 20
_FAILING = 0.1
_SAMPLING = 1 << 20  # peaks are reported in steps of 1 MiB
_GROUP = "web"
_SHARE = 3  # of the memory that can be had, one part in so many


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one weight (percent): forecast and real; the forecast may be `short` or `over` by so much."""

    weight: float
    name: str
    unit: str
    forecast: float
    real: float
    short: float = 0.0
    over: float = 0.0

    @property
    def error(self) -> float:
        """(forecast - real) / real; a forecast of anything where there is nothing is off by all of it."""
        if self.real == 0:
            return 0.0 if self.forecast == 0 else 1.0
        return (self.forecast - self.real) / self.real

    @property
    def holds(self) -> bool:
        """Within what is stated."""
        return self.real - self.short <= self.forecast <= self.real + self.over


@dataclass(frozen=True, slots=True)
class Agreement:
    """All rows, and the verdict of each real run by its weight."""

    sandboxes: int
    failing: int
    rows: Sequence[Row]
    verdicts: Sequence[str]

    @property
    def holds(self) -> bool:
        """Every row within what is stated, every run held."""
        return all(row.holds for row in self.rows) and set(self.verdicts) == {"held"}

    def document(self) -> dict[str, Any]:
        """JSON-ready; bytes, and errors as shares."""
        rows = [{**asdict(row), "error": round(row.error, 5), "holds": row.holds} for row in self.rows]
        known = {"forecast": "derived", "real": "measured"}
        return {**asdict(self), "rows": rows, "holds": self.holds, "known": known}

    def section(self) -> Section:
        """A table, forecast beside real."""
        head = ("weight", "figure", "forecast (derived)", "real (measured)", "error", "stated", "")
        rows = [
            (
                f"{row.weight:g} %",
                row.name,
                _shown(row, row.forecast),
                _shown(row, row.real),
                f"{row.error:+.2%}",
                f"-{_shown(row, row.short)} .. +{_shown(row, row.over)}" if row.over else "the same",
                "agrees" if row.holds else "DIFFERS",
            )
            for row in self.rows
        ]
        said = f"{self.sandboxes} real sandboxes of {format_size(MEMORY)}, {self.failing} copies made to fail"
        return Section(f"Agreement: {said}; runs {', '.join(self.verdicts)}", (Table(head, rows, "><>>>><"),))


def _shown(row: Row, value: float) -> str:
    return in_gib(value) if row.unit == "bytes" else f"{value:g}"


async def compare_with_real(
    count: int, costs: Costs, seed: int, runs_dir: Path, weights: Sequence[float] = WEIGHTS
) -> Agreement:
    """Pause `count` real sandboxes at each weight; UserError where this host has no room for them."""
    _require_memory(count)
    fleet, file = _virtual(count, seed)
    asks = demand(fleet, costs, "disk")
    failing = failures(count, seed)
    rows: list[Row] = []
    verdicts = []
    with nodes_for(len(weights)) as start_node:
        options = RunOptions(runs_dir=runs_dir, start_node=start_node)
        for weight in weights:
            run = await run_scenario(_scenario(count, weight, failing, seed), options)
            verdicts.append(run.view.ended.verdict if run.view.ended else "none")
            rows += _rows(weight, fleet, asks, failing, file, run)
    return Agreement(count, len(failing), rows, verdicts)


def _require_memory(count: int) -> None:
    available: int = host()["memory_available"]
    if count * MEMORY * _SHARE > available:
        most = available // (MEMORY * _SHARE)
        raise UserError(f"--against-real {count} needs too much of this host's memory; at most {most} now")


def _virtual(count: int, seed: int) -> tuple[VirtualFleet, Fleet]:
    node = FleetNode(memory=3 * count * MEMORY, sandboxes=count, concurrency=CONCURRENCY)
    group = FleetGroup(name=_GROUP, count=count, memory=MEMORY, dirty=100.0)
    file = Fleet(kind="fleet", name="agreement", node=node, groups=(group,))
    return virtual_fleet(file, count, seed), file


def failures(count: int, seed: int) -> dict[int, int]:
    """Whose copy fails, and at which chunk: one of ten, at any chunk."""
    draw = stream(seed, "real failures")
    chosen = draw.permutation(count)[: max(1, round(count * _FAILING))]
    chunks = draw.integers(0, MEMORY // CHUNK, len(chosen))
    return dict(sorted(zip(chosen.tolist(), chunks.tolist(), strict=True)))


def _scenario(count: int, weight: float, failing: dict[int, int], seed: int) -> Scenario:
    """Every sandbox is full, ticks once, and is asked to pause at the same time."""
    size = format_size(MEMORY)
    inject = [
        {"inject": {"fault": "copy.write", "errno": "EIO", "at": {"chunk": chunk}, "sandboxes": f"{_GROUP}-{who}"}}
        for who, chunk in failing.items()
    ]
    document = {
        "version": 1,
        "name": f"agreement-{weight:g}",
        "seed": seed,
        "node": {"memory": format_size(3 * count * MEMORY), "cache": "disk"},
        "fleet": [
            {"name": _GROUP, "count": count, "memory": size, "workload": {"dirty": "100%", "pattern": "full"}},
        ],
        "flags": {PUNCH: {"rollout": f"{weight:g}%", "by": "sandbox"}, "memfd-background-copy": False},
        "steps": [{"tick": 1}, *inject, {"pause": {"concurrency": CONCURRENCY}}],
    }
    return load_text(scenario_text(document), Path("agreement.yaml"))


def _rows(
    weight: float, fleet: VirtualFleet, asks: PauseLoad, failing: dict[int, int], file: Fleet, run: StoredRun
) -> list[Row]:
    """The peak is an upper bound, by as much as pauses may fail to overlap; everything else must be the same."""
    on = fleet.is_on((weight,), np.arange(fleet.count))[0]
    lost = [who for who, chunk in failing.items() if on[who] and chunk > 0]
    finished = np.ones(fleet.count, np.bool_)
    finished[list(failing)] = False
    rolled_back = np.zeros(fleet.count, np.bool_)
    rolled_back[[who for who in failing if who not in lost]] = True
    slots = file.node.concurrency
    peak = _peak(fleet, asks, on, rolled_back, slots)
    alone = float(asks.guest.sum()) + CHUNK  # pauses that never overlap: all guests, and one chunk more
    pauses = [each for each in run.view.pauses if each.outcome is not None]
    freed = sum(each.punched_bytes for each in pauses if each.outcome == "finished")
    states = [each.state for each in run.view.sandboxes.values()]
    return [
        Row(weight, "peak of the node", "bytes", peak, run.view.memory.peak, _SAMPLING, peak - alone + _SAMPLING),
        Row(weight, "punched by pauses that finished", "bytes", float(fleet.resident[on & finished].sum()), freed),
        Row(weight, "discarded", "sandboxes", len(lost), states.count("discarded")),
        Row(weight, "rolled back", "sandboxes", len(failing) - len(lost), states.count("running")),
    ]


def _peak(fleet: VirtualFleet, asks: PauseLoad, on: Any, rolled_back: Any, slots: int) -> float:
    """Every sandbox is asked at the same time; one that rolls back frees nothing."""
    load = replace(asks, freed=np.where(rolled_back, 0.0, asks.freed))
    one_node, everyone = np.zeros(fleet.count, np.int64), np.arange(fleet.count)
    node = NodeEvents(one_node, load, on[None], slots=slots, paused_for=np.inf)
    node.advance(Requests(everyone, np.zeros(fleet.count), np.ones(fleet.count, np.bool_)), np.inf)
    return float(node.peak.max())
