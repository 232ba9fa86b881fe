"""What a virtual pause costs: this machine's figures from a calibration file, or assumed ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from sim.files.figures import Figure, Known
from sim.files.fleet_file import Floats
from sim.files.units import HUGE_PAGE, format_size
from sim.rollout.bench_report import Calibration, Cost
from sim.rollout.virtual_fleet import VirtualFleet

SMALL_PAGE = 4 << 10
_PEAK_OVER = 4 << 20  # two chunks in flight
_FIXED_MS = 10.0
_ASSUMED_GIB_PER_S = {
    (SMALL_PAGE, "disk", False): 3.4,
    (SMALL_PAGE, "disk", True): 2.9,
    (SMALL_PAGE, "tmpfs", False): 2.4,
    (SMALL_PAGE, "tmpfs", True): 2.6,
    (HUGE_PAGE, "disk", False): 2.8,
    (HUGE_PAGE, "disk", True): 2.8,
    (HUGE_PAGE, "tmpfs", False): 2.3,
    (HUGE_PAGE, "tmpfs", True): 2.3,
}
"""Of a machine with two cores; seconds of a pause matter only where pauses queue."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of each kind of pause, and how it is known."""

    calibration: Calibration | None = None

    def cost(self, page_size: int, cache: str, *, punch: bool) -> tuple[Cost, Known]:
        """The measured one, else an assumed one."""
        found = self.calibration.cost(page_size, cache, punch=punch) if self.calibration else None
        if found is not None:
            return found, "measured"
        rate = _ASSUMED_GIB_PER_S[page_size, cache, punch]
        made = Cost.model_validate(
            {
                "page_size": page_size,
                "cache": cache,
                "punch": punch,
                "fixed_ms": _FIXED_MS,
                "ms_per_gib": 1e3 / rate,
                "peak_over": _PEAK_OVER if punch else 0,
            }
        )
        return made, "assumed"

    def seconds(self, fleet: VirtualFleet, cache: str, *, punch: bool) -> Floats:
        """From each sandbox's freeze to its finished build."""
        fixed, per_byte = self._by_page(fleet, cache, punch)
        seconds: Floats = fixed + fleet.dirty * per_byte
        return seconds

    def _by_page(self, fleet: VirtualFleet, cache: str, punch: bool) -> tuple[Floats, Floats]:
        small, huge = (self.cost(size, cache, punch=punch)[0] for size in (SMALL_PAGE, HUGE_PAGE))
        fixed = np.where(fleet.huge, huge.fixed_ms, small.fixed_ms) / 1e3
        return fixed, np.where(fleet.huge, huge.ms_per_gib, small.ms_per_gib) / 1e3 / 2**30

    def over(self, fleet: VirtualFleet, cache: str) -> Floats:
        """Bytes beyond its own memory that each sandbox's pause needs at most while it punches."""
        small, huge = (self.cost(size, cache, punch=True)[0].peak_over for size in (SMALL_PAGE, HUGE_PAGE))
        most: Floats = np.minimum(np.where(fleet.huge, huge, small), fleet.dirty)
        return most

    def figures(self, fleet: VirtualFleet, cache: str, now: datetime) -> list[Figure]:
        """Where they are from, with age and host, and each cost that this fleet uses."""
        said = [Figure("costs", _origin(self.calibration, now), "", "measured" if self.calibration else "assumed")]
        for page, there in ((SMALL_PAGE, not fleet.huge.all()), (HUGE_PAGE, bool(fleet.huge.any()))):
            for punch in (False, True) if there else ():
                cost, known = self.cost(page, cache, punch=punch)
                label = f"pause, {format_size(page)} pages, {cache}, {'punching' if punch else 'not punching'}"
                value = f"{cost.fixed_ms:.1f} ms and {cost.ms_per_gib:.0f} ms a dirty GiB"
                over = f", {cost.peak_over / 2**20:.1f} MiB over" if punch else ""
                disturbed = "; disturbed by other work" if cost.disturbed else ""
                said.append(Figure(label, value + over, "", known, disturbed.lstrip("; ")))
        return said


def _origin(calibration: Calibration | None, now: datetime) -> str:
    if calibration is None:
        return "no calibration file (snapdrill bench --calibrate FILE writes one)"
    host = calibration.host
    name = f"{host.get('machine')}, {host.get('cpus')} CPUs, Linux {host.get('kernel')}"
    return f"{name}; {_age(calibration.age(now))} old ({calibration.made_at})"


def _age(seconds: float) -> str:
    days, rest = divmod(int(timedelta(seconds=max(0.0, seconds)).total_seconds()), 86_400)
    return f"{days} days" if days > 1 else f"{(days * 86_400 + rest) / 3600:.1f} hours"
