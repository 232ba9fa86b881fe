"""Interleaved rounds: in each, every measurement once, in an order drawn anew; and what the rounds say of a row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from engine.errors import EngineError
from sim.bench.candidates import Bench, Taken
from sim.bench.rows import Measurement, Row
from sim.guest_handle import GuestError

Step = Callable[[str], None]


@dataclass
class Rounds:
    """What was taken, round by round; `failed` says why a measurement was given up."""

    taken: list[dict[Measurement, Taken]] = field(default_factory=list)
    failed: dict[Measurement, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """A row's medians over its undisturbed rounds; over all, and `disturbed`, where there was none."""

    row: Row
    figures: dict[str, float]
    spread: tuple[float, float]
    dropped_rounds: int
    disturbed: bool


def in_order(measurements: Iterable[Measurement], draw: random.Random) -> list[Measurement]:
    """Shuffled, but what is measured of one case stays together: the machine drifts."""
    cases: dict[object, list[Measurement]] = {}
    for each in measurements:
        cases.setdefault(each.case, []).append(each)
    groups = list(cases.values())
    draw.shuffle(groups)
    for group in groups:
        draw.shuffle(group)
    return [each for group in groups for each in group]


def run(rows: Sequence[Row], bench: Bench, count: int, seed: int, step: Step) -> Rounds:
    """Measure; `step` is told before each measurement and may raise to end it all between two of them."""
    draw, rounds = random.Random(seed), Rounds()
    wanted = list(dict.fromkeys(need for row in rows for need in row.needs))
    for number in range(1, count + 1):
        taken: dict[Measurement, Taken] = {}
        rounds.taken.append(taken)
        order = in_order(wanted, draw)
        for at, each in enumerate(order, 1):
            step(f"round {number} of {count}, {at} of {len(order)}")
            if each not in rounds.failed:
                _take(each, bench, taken, rounds.failed)
    return rounds


def _take(each: Measurement, bench: Bench, taken: dict[Measurement, Taken], failed: dict[Measurement, str]) -> None:
    try:
        taken[each] = each.take(bench, each.case)
    except (OSError, EngineError, GuestError) as error:
        failed[each] = str(error)


def result(row: Row, rounds: Rounds) -> Result | str:
    """A row's result, or why there is none."""
    for need in row.needs:
        if need in rounds.failed:
            return rounds.failed[need]
    complete = [[taken[need] for need in row.needs] for taken in rounds.taken]
    quiet = [each for each in complete if not (row.timed and any(part.noisy for part in each))]
    made = [row.figures(*(part.figures for part in each)) for each in quiet or complete]
    judged = [each[row.judged] for each in made]
    figures = {name: row.summary([each[name] for each in made]) for name in made[0]}
    dropped = len(complete) - len(quiet)
    return Result(row, figures, (min(judged), max(judged)), dropped, disturbed=not quiet)
