"""The judgements and the kill switch, in the words of every report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sim.record.events import Judged
from sim.record.verdict import INVARIANT, Verdict
from sim.record.view import View
from sim.report import words

NOT_EXERCISED = "not exercised"
CUT_OFF = "the record was cut off: there is no verdict"
UNJUDGED = "the run ended without judging everything"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One invariant or expectation; `verdict` is a Verdict's value or NOT_EXERCISED."""

    name: str
    verdict: str
    checked: int
    violations: tuple[dict[str, Any], ...]
    expected: bool = False  # violated, or without evidence, in a run that held: a canary that was caught
    place: dict[str, Any] | None = None  # line, column and file of an expectation, where they are known


def invariants(view: View) -> list[Judgement]:
    """The invariants, by their bare names."""
    return [_judgement(view, each) for each in view.judged if each.subject.startswith(INVARIANT)]


def expectations(view: View) -> list[Judgement]:
    """Every other judgement: `metric:...`, `state:...`, `verdict:...`."""
    return [_judgement(view, each) for each in view.judged if not each.subject.startswith(INVARIANT)]


def failed(view: View) -> list[Judgement]:
    """The judgements that are violated (except a caught canary) or inconclusive."""
    bad = (Verdict.VIOLATED, Verdict.INCONCLUSIVE)
    return [each for each in [*invariants(view), *expectations(view)] if each.verdict in bad and not each.expected]


def message(judgement: Judgement) -> str:
    """The reason in one sentence: that of its first violation."""
    reasons = [str(each["reason"]) for each in judgement.violations if each.get("reason")]
    return reasons[0] if reasons else f"{judgement.name} is {judgement.verdict}"


def why(view: View) -> str:
    """The reason of the run's verdict, in one sentence."""
    bad = failed(view)
    if bad:
        more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f"{bad[0].name}: {message(bad[0])}{more}"
    if view.ended is None:
        return CUT_OFF
    if view.ended.verdict != Verdict.HELD:
        return UNJUDGED
    held = [each for each in invariants(view) if each.verdict == Verdict.HELD]
    met, unexercised = len(expectations(view)), len(invariants(view)) - len(held)
    parts = [
        f"{words.plural(len(held), 'invariant')} held" if held else "",
        f"{words.plural(met, 'expectation')} met" if met else "",
        f"{unexercised} not exercised" if unexercised else "",
    ]
    return ", ".join(filter(None, parts)) or "nothing was judged"


def verdict_of(view: View) -> str:
    """The run's verdict; a run that was cut off concluded nothing."""
    return view.ended.verdict if view.ended else Verdict.INCONCLUSIVE.value


def _judgement(view: View, judged: Judged) -> Judgement:
    name = judged.subject.removeprefix(INVARIANT)
    vacuous = judged.verdict == Verdict.HELD and judged.checked == 0 and name != judged.subject
    verdict = NOT_EXERCISED if vacuous else judged.verdict.replace("_", " ")
    caught = verdict in {Verdict.VIOLATED, Verdict.INCONCLUSIVE} and verdict_of(view) == Verdict.HELD
    return Judgement(name, verdict, judged.checked, tuple(judged.violations), caught, judged.place)


SOURCES = {"inline": "request", "file": "file", "relay": "stream", "launchdarkly": "LaunchDarkly"}
"""Ways to the node: sent by the runner, read from a file, or streamed to the SDK (relay: over loopback)."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of times of one unit; p95 by nearest rank."""

    n: int
    min: float
    median: float
    p95: float
    max: float


@dataclass(frozen=True, slots=True)
class KillSwitchTimes:
    """Kill switches of one run: `took_ms` of those that were waited for, and how many were not.

    `unawaited` were thrown in an outage, which kept them from the node. `latest_punch_ms` is the longest time after a
    kill switch at which a pause was still decided to punch; None if there was none.
    """

    source: str
    took_ms: Distribution | None
    unawaited: int
    latest_punch_ms: float | None


def distribution(times: Sequence[float]) -> Distribution | None:
    """In the unit of `times`; None of none."""
    known = sorted(times)
    if not known:
        return None
    rank = -(-95 * len(known) // 100)
    return Distribution(len(known), known[0], median(known), known[rank - 1], known[-1])


def propagation(view: View) -> KillSwitchTimes | None:
    """None if no kill switch was thrown: the punch flag turned off for every sandbox."""
    thrown = [each for each in view.switches if not each.on]
    if not thrown:
        return None
    late = [age for each in view.pauses if each.punch and (age := view.after_kill(each)) is not None]
    return KillSwitchTimes(
        source=view.run.flag_source if view.run else "inline",
        took_ms=distribution([each.took_ms for each in thrown if each.took_ms is not None]),
        unawaited=sum(each.took_ms is None for each in thrown),
        latest_punch_ms=round(max(late) * 1e3, 3) if late else None,
    )


def sentence(found: KillSwitchTimes) -> str:
    """On one line: `at the node after 1.1 ms by stream (median of 20, from 0.8 to 2.0, p95 1.9; measured)`."""
    parts = []
    if found.took_ms is not None:
        parts.append(f"at the node after {_figures(found.took_ms, SOURCES.get(found.source, found.source))}")
    if found.unawaited:
        parts.append(f"{words.times(found.unawaited)} not awaited in the outage")
    if found.latest_punch_ms is not None:
        parts.append(f"a pause decided {found.latest_punch_ms:.1f} ms after it still punched")
    return "; ".join(parts)


def _figures(took: Distribution, way: str) -> str:
    if took.n == 1:
        return f"{took.median:.1f} ms by {way} (measured)"
    spread = f"median of {took.n}, from {took.min:.1f} to {took.max:.1f}, p95 {took.p95:.1f}"
    return f"{took.median:.1f} ms by {way} ({spread}; measured)"
