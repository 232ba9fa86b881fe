"""The calibration file: what a pause costs on one machine, by its pages, its cache and punching; written by a bench."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from engine.errors import UserError
from sim.bench import layouts
from sim.bench.report import Report
from sim.strict import Strict, dotted

SMALL = 4 << 20
"""Guest memory, bytes, of the second measurement, which tells the fixed part of a pause."""

Milliseconds = Annotated[float, Field(ge=0)]


class Cost(Strict):
    """Of one pause: a fixed part, then so much a dirty GiB; `peak_over` in bytes, the most that was seen.

    `disturbed`: in every round others took CPU, so that it is too slow rather than too fast.
    """

    page_size: int
    cache: Literal["disk", "tmpfs"]
    punch: bool
    fixed_ms: Milliseconds
    ms_per_gib: Annotated[float, Field(gt=0)]
    peak_over: Annotated[int, Field(ge=0)]
    disturbed: bool = False


class Calibration(Strict):
    """All costs of one machine. `made_at` is UTC in ISO 8601; `host` is what a ledger keeps of it; `size` in bytes."""

    kind: Literal["calibration"]
    version: Literal[1] = 1
    made_at: str
    host: Mapping[str, Any]
    size: int
    rounds: int
    costs: Annotated[tuple[Cost, ...], Field(strict=False, min_length=1)]

    def age(self, now: datetime) -> float:
        """Seconds since it was made."""
        return (now - datetime.fromisoformat(self.made_at)).total_seconds()

    def cost(self, page_size: int, cache: str, *, punch: bool) -> Cost | None:
        """That of such a pause; None where the machine could not measure it."""
        found = (each for each in self.costs if (each.page_size, each.cache, each.punch) == (page_size, cache, punch))
        return next(found, None)


def calibration(large: Report, small: Report, now: datetime) -> Calibration:
    """Of two benches with the same rows; UserError where neither has a copy. The copies of full guests count."""
    fast = {_key(entry): entry for entry in _copies(small)}
    costs = [_cost(entry, fast.get(_key(entry)), large.size, small.size) for entry in _copies(large)]
    if not costs:
        raise UserError("no copy was measured: leave --only out, or give it `copy`")
    return Calibration(
        kind="calibration",
        made_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        host=large.machine,
        size=large.size,
        rounds=large.rounds,
        costs=tuple(costs),
    )


def _copies(report: Report) -> Iterable[dict[str, Any]]:
    entries = report.document()["results"]
    return [each for each in entries if each["name"] == "copy" and each["layout"] == layouts.FULL]


def _key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry["page_size"], entry["dest"], entry["punch"]


def _cost(large: Mapping[str, Any], small: Mapping[str, Any] | None, size: int, small_size: int) -> Cost:
    """A straight line through both; without the small one everything grows with the size."""
    whole = size / 2**30 / large["gib_per_s"] * 1e3
    fixed = 0.0
    if small is not None and small_size < size:
        little = small_size / 2**30 / small["gib_per_s"] * 1e3
        fixed = min(little, max(0.0, little - (whole - little) * small_size / (size - small_size)))
    return Cost(
        page_size=large["page_size"],
        cache=large["dest"],
        punch=large["punch"],
        fixed_ms=round(fixed, 3),
        ms_per_gib=round((whole - fixed) * 2**30 / size, 3),
        peak_over=int(large["peak_over"]),
        disturbed=bool(large["disturbed"] or (small is not None and small["disturbed"])),
    )


def write(path: pathlib.Path, made: Calibration) -> None:
    """UserError where it cannot be written."""
    try:
        path.write_text(json.dumps(made.model_dump(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read(path: pathlib.Path) -> Calibration:
    """UserError, one line a mistake, for a file that is none."""
    try:
        made = Calibration.model_validate(json.loads(path.read_text(encoding="utf-8")))
        datetime.fromisoformat(made.made_at)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        lines = [f"{path}: {dotted(each['loc'])}: {each['msg']}" for each in error.errors(include_url=False)]
        raise UserError("\n".join([*lines, "write it anew: snapdrill bench --calibrate FILE"])) from error
    except ValueError as error:
        raise UserError(
            f"{path}: no calibration file ({error}): snapdrill bench --calibrate FILE writes one"
        ) from error
    return made
