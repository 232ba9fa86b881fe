"""A rehearsal's stages, what cannot be undone in them, and its steps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from sim.files.figures import percent
from sim.files.units import format_duration
from sim.record.rollout_events import PlanStepEnded, StageMeasured
from sim.record.rollout_view import RolloutDecision, RolloutView
from sim.report.words import plural
from sim.tui.spans import HARD, Span, Spans, Tone, fit, opposite, width, wrap

NONE = "This run is no rehearsal: it has no stages. A rehearsal's are in its run with the flag on."
DECISIONS: dict[str, Tone] = {"go": "good", "no-go": "bad"}
OUTCOMES: dict[str, Tone] = {"successful": "good", "inconclusive": "warn"}
STOPPED = {"abort": "aborted: rolled back", "wait": "waits for a person", "approve": "waits for approval"}
INDENT = "   "


class StageColumn(NamedTuple):
    """The highest rank is left out first where room is short."""

    title: str
    cells: int
    rank: int


COLUMNS = (
    StageColumn("weight", 7, 0),
    StageColumn("stage", 8, 0),
    StageColumn("exposed", 9, 1),
    StageColumn("pauses", 6, 6),
    StageColumn("punched", 7, 3),
    StageColumn("lost", 4, 5),
    StageColumn("by flag", 7, 2),
    StageColumn("loss below", 10, 2),
    StageColumn("punched before OFF", 18, 4),
)


def lines(rollout: RolloutView | None, decided: RolloutDecision | None, cells: int, height: int) -> list[Spans]:
    """The stages, the incident clock of the latest, the decision, and as many of the newest steps as there is room."""
    if rollout is None:
        return wrap((Span(f" {NONE}", "muted"),), cells - 1)
    said = [_head(rollout, decided, cells), *_stages(rollout, cells), *_latest(rollout, cells)]
    said += _decision(decided, cells)
    steps = [wrap(_step(each), cells - 1, INDENT) for each in rollout.steps]
    room, shown = height - len(said) - 1, 0
    while shown < len(steps) and sum(map(len, steps[-shown - 1 :])) <= room:
        shown += 1
    title = " steps" if shown == len(steps) else f" steps, the last {shown} of {len(steps)}"
    said += [(Span(title, "muted"),), *(line for step in steps[len(steps) - shown :] for line in step)] if shown else []
    return said[:height]


def _head(rollout: RolloutView, decided: RolloutDecision | None, cells: int) -> Spans:
    plan, current = rollout.plan, rollout.current
    left = (Span(f" plan {plan.plan}", "title"), Span(f"  {plan.flag} by {plan.by}", "plain"))
    if decided is not None:
        right = Span(f"{decided.decision.upper()} ", DECISIONS.get(decided.decision, "warn"))
    elif current is None:
        right = Span("its decision is being made ", "busy")
    else:
        right = Span(f"step {current + 1} of {len(plan.steps)}: {plan.steps[current]} ", "busy")
    if width(left) + right.width < cells:
        return opposite(left, (right,), cells)
    return opposite(left[:1], (right,), cells)


def _stages(rollout: RolloutView, cells: int) -> list[Spans]:
    columns = list(COLUMNS)
    while sum(each.cells + 2 for each in columns) > cells and any(each.rank for each in columns):
        columns.remove(max(columns, key=lambda each: each.rank))
    head = tuple(Span(f"  {each.title:>{each.cells}}", "muted") for each in columns)
    rows = [_row(rollout, number, columns) for number in range(1, len(rollout.plan.stages) + 1)]
    return [fit(row, cells) if width(row) > cells else row for row in [head, *rows]]


def _row(rollout: RolloutView, number: int, columns: Sequence[StageColumn]) -> Spans:
    planned = rollout.plan.stages[number - 1]
    found = next((each for each in rollout.stages if each.stage == number), None)
    state, tone = _state(rollout, number)
    texts = {
        "weight": f"{planned['weight']:g} %",
        "stage": state,
        "exposed": f"{planned['exposed']} of {planned['of']}",
    }
    if found is not None:
        texts |= {"pauses": str(found.pauses), "punched": str(found.punched), "lost": str(found.lost)}
        texts |= {
            "by flag": str(found.lost_by_flag),
            "loss below": _bound(found),
            "punched before OFF": _reached(found),
        }
    tones: dict[str, Tone] = {"stage": tone}
    if found is not None and found.lost_by_flag:
        tones |= {"by flag": "bad"}
    rest: Tone = "muted" if state == "to come" else "plain"
    return tuple(Span(f"  {texts.get(e.title, '-'):>{e.cells}}", tones.get(e.title, rest)) for e in columns)


def _state(rollout: RolloutView, number: int) -> tuple[str, Tone]:
    """Stages begin at their setWeight, and end where the next begins."""
    firsts = [each["first"] for each in rollout.plan.stages]
    ends = [end for _, end in pairwise([*firsts, len(rollout.plan.steps)])]
    done = len(rollout.steps)
    if done >= ends[number - 1]:
        return "done", "good"
    if rollout.stopped and done > firsts[number - 1]:
        return "stopped", "warn"
    return ("now", "busy") if done >= firsts[number - 1] and not rollout.stopped else ("to come", "muted")


def _bound(found: StageMeasured) -> str:
    """`18.1 %`; nothing is ruled out where none was tried."""
    return percent(found.rate) if found.tried else "-"


def _reached(found: StageMeasured) -> str:
    if found.reached is None:
        return "-"
    return ", ".join("unknown" if each is None else f"{each:,}" for each in found.reached)


def _latest(rollout: RolloutView, cells: int) -> list[Spans]:
    """The incident clock of the stage that was measured last, and what all stages so far rule out."""
    if not rollout.stages:
        return []
    found = rollout.stages[-1]
    said: list[Spans] = []
    if found.parts is not None and found.obeyed is not None:
        head = Span(f" incident clock at {found.weight:g} %, from its first pause (p50, p99): ", "title")
        parts = "; ".join(_part(each).replace(" ", HARD) for each in found.parts)
        said += wrap((head, Span(parts, "plain")), cells - 1, INDENT)
        chance = "an unknown chance" if found.any is None else f"a chance of {found.any * 100:.3g} %"
        of = "" if found.at_stake is None else f"of {found.at_stake:,} exposed "
        ends = f"OFF is obeyed everywhere after {_both(found.obeyed)}; until then {_reached(found)} {of}sandboxes are"
        said += wrap((Span(f"{INDENT}{ends} punched, with {chance} of any at all", "plain"),), cells - 1, INDENT)
    if found.tried:
        loss = f" lost because of the flag: below {percent(found.rate)} at {found.confidence * 100:g} %, shown by "
        loss += f"{plural(found.tried, 'sandbox', 'sandboxes')} that {'was' if found.tried == 1 else 'were'} punched"
        asked = f"; demanded {found.demanded}: {'shown' if found.met else 'not shown yet'}" if found.demanded else ""
        said += wrap((Span(loss + asked, "plain" if found.met else "warn"),), cells - 1, INDENT)
    return said


def _part(part: dict[str, Any]) -> str:
    """`detection 5m, 15m assumed`."""
    spans = [part["p50"]] if part["p50"] == part["p99"] else [part["p50"], part["p99"]]
    return f"{part['name']} {_both(spans)} {part['known']}"


def _both(seconds: Sequence[float | None]) -> str:
    return ", ".join("unknown" if each is None else _span(each) for each in seconds)


def _span(seconds: float) -> str:
    """`1h14m`, `5m`, `200ms`."""
    if seconds < 60:
        return format_duration(float(f"{seconds:.3g}")) if seconds else "0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return "".join([f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest else ""])


def _decision(decided: RolloutDecision | None, cells: int) -> list[Spans]:
    if decided is None:
        return []
    tone = DECISIONS.get(decided.decision, "warn")
    words = [" because ", *[" and "] * len(decided.reasons)]
    said = [
        wrap((Span(word, tone), Span(each, "plain")), cells - 1, INDENT)
        for word, each in zip(words, decided.reasons, strict=False)
    ]
    return [line for each in said for line in each]


def _step(step: PlanStepEnded) -> Spans:
    """`12  wait 1h at 50 %: successful; 30 pauses in the stage`."""
    stopped = f"; {STOPPED[step.stopped]}" if step.stopped in STOPPED else ""
    detail = f"; {step.detail}" if step.detail else ""
    of = "" if step.label.startswith("setWeight") else f" at {step.weight:g} %"
    return (
        Span(f" {step.step + 1:>2} {step.label}{of}: ", "plain"),
        Span(step.outcome, OUTCOMES.get(step.outcome, "bad")),
        Span(f"{detail}{stopped}", "plain"),
    )
