"""What to do next: work, pause, flip, work, pause, break one, try to resume it, leave. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from flags.catalog import PUNCH, is_on
from sim.record.view import SandboxView, View
from sim.tui import charts, requests
from sim.tui.requests import Request
from sim.tui.spans import Span, Spans, wrap

Place = Literal["fleet", "memory"]
KEYS = ("e", "f", "p", "r", "P", "V")
"""Those of the fleet that the story names."""


@dataclass(frozen=True, slots=True)
class Next:
    """`key` does it on the fleet screen; `request` is what that asks, `show` the screen that it shows instead.

    Without a key it goes on by itself, or there is nothing to do but to read.
    """

    key: str
    says: str
    request: Request | None = None
    show: Place | None = None
    name: str | None = None


def line(step: Next | None, cells: int, *, playing: bool = False) -> list[Spans]:
    """`next: P pauses them all ...`, on as many lines as it needs."""
    if step is None:
        return []
    hint = "   (it plays; space stops it)" if playing else ""
    key = (Span(f"{step.key} ", "title", "app.do_next"),) if step.key else ()
    said = (Span(" next: ", "good"), *key, Span(step.says, "plain", "app.do_next" if step.key else ""))
    return wrap((*said, Span(hint, "muted")), cells - 1, indent="       ")


def next_step(
    view: View, idle: AbstractSet[str] = frozenset(), under_cursor: str | None = None, *, compared: bool = False
) -> Next | None:
    """What the story goes on with in the state that the run is in; None where there is no fleet.

    `idle` have nothing to copy; `compared` where the two pauses were seen beside each other.
    """
    if not view.sandboxes or view.ended is not None:
        return None
    if view.node == "crashed":
        return Next("", "the node crashed: on the faults screen (3) N starts it again")
    stopped = next((each.name for each in view.sandboxes.values() if each.pace.held and _copies(each)), None)
    if stopped is not None:
        return Next("", f"the copy of {stopped} is stopped: on its screen (enter) n lets a chunk pass, h lets it go on")
    if any(_copies(each) or each.state in {"checkpointing", "resuming"} for each in view.sandboxes.values()):
        return Next("", "wait until the copies have ended")
    off, on = charts.alike(charts.of_kind(view, punch=False), charts.of_kind(view, punch=True))
    if not (off and on):
        return _pause_both(view, idle, bool(off), bool(on))
    if not compared:
        return Next(
            "4", f"shows both beside each other: {_peaks(off[-1].peak_ratio, on[-1].peak_ratio)}", show="memory"
        )
    return _break_one(view, idle, under_cursor)


def _copies(sandbox: SandboxView) -> bool:
    pause = sandbox.pause
    return sandbox.state == "pausing" or (sandbox.state == "paused" and pause is not None and pause.settled_at is None)


def _peaks(off: float | None, on: float | None) -> str:
    return f"{off or 0:.2f}x without punching, {on or 0:.2f}x with it"


def _pause_both(view: View, idle: AbstractSet[str], off: bool, on: bool) -> Next:
    """A pause of each kind, with the flag as it is first."""
    punches = is_on(view.flags.get(PUNCH, False))
    if punches is (on and not off) and (off or on):
        return Next("f", f"flips the flag: copied memory is {_freed(not punches)}", requests.toggle_punch(view))
    running = requests.in_state(view, "running")
    if not running:
        return _resume(view)
    if set(running) <= idle:
        return Next("t", "lets the guests work: what they write is what a pause has to copy", requests.tick())
    return Next("P", f"pauses them all: copied memory is {_freed(punches)}", requests.pause(view, running))


def _freed(punches: object) -> str:
    return "freed at once, chunk by chunk" if punches else "kept until the copy ends, so all is there twice"


def _resume(view: View) -> Next:
    paused = requests.in_state(view, "paused")
    if not paused:
        return Next("R", "begins again: no sandbox is left that could be paused")
    return Next("V", "resumes them all from their snapshots, and they work again", requests.resume(paused))


def _break_one(view: View, idle: AbstractSet[str], under_cursor: str | None) -> Next:
    """A copy that fails past the point of no return, and a resume that is refused."""
    discarded = [each for each in view.sandboxes.values() if each.state == "discarded"]
    refused = next((each for each in discarded if each.refused is not None), None)
    if refused is not None:
        return Next("q", "judges the run and leaves, and says how to see it again")
    if discarded:
        lost = _chosen([each.name for each in discarded], under_cursor)
        says = f"asks {lost} to run again: it is past the point of no return, so it must be refused"
        return _at(lost, under_cursor, Next("r", says, requests.resume([lost])))
    running = requests.in_state(view, "running")
    if not running:
        return _resume(view)
    armed = [name for fault in view.faults if not fault.fired for name in running if fault.sandboxes in {name, "*"}]
    if not armed:
        name = _chosen(running, under_cursor)
        step = Next("e", f"breaks the next copy of {name}: its disk will be full", requests.arm([view.sandboxes[name]]))
        return _at(name, under_cursor, step)
    if set(running) <= idle:
        return Next("t", "lets the guests work: what they write is what a pause has to copy", requests.tick())
    name = _chosen(armed, under_cursor)
    step = Next("p", f"pauses {name}: its copy fails past the point of no return", requests.pause(view, [name]))
    return _at(name, under_cursor, step)


def _chosen(names: Sequence[str], under_cursor: str | None) -> str:
    return under_cursor if under_cursor in names and under_cursor is not None else names[0]


def _at(name: str, under_cursor: str | None, step: Next) -> Next:
    """Its key acts on what is under the cursor."""
    says = step.says if name == under_cursor else f"on {name} {step.says}"
    return Next(step.key, says, step.request, step.show, name)
