"""The faults screen in lines: the catalogue, what would be armed, where, on which sandboxes, and what is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sim.files.faults import (
    CATALOGUE,
    KINDS,
    AtChunk,
    FaultPoint,
    Harm,
    Kind,
    Place,
    PointSpec,
    failing,
    in_words,
)
from sim.record.view import FaultView, View
from sim.report import words
from sim.tui.flag_lines import around
from sim.tui.spans import Span, Spans, fit, wrap

POINTS: tuple[FaultPoint, ...] = tuple(CATALOGUE)
ERRNOS = ("ENOSPC", "EIO", "ENOMEM")
PLACES: tuple[Place, ...] = ("first", "after_condemn", AtChunk(3), 50.0, "last")
POINT_CELLS = max(map(len, POINTS)) + 1


@dataclass(frozen=True, slots=True)
class Aim:
    """What `enter` arms: indices into the points, and into the errors of that point and its places."""

    point: int = POINTS.index("copy.write")
    harm: int = 0
    place: int = 1
    by_kernel: bool = False
    everybody: bool = False

    @property
    def spec(self) -> PointSpec:
        """The point."""
        return CATALOGUE[POINTS[self.point]]

    @property
    def harms(self) -> tuple[Harm, ...]:
        """What may go wrong at the point."""
        return harms_of(self.spec)

    @property
    def given(self) -> Harm:
        """What will go wrong there."""
        return self.harms[self.harm]

    @property
    def at(self) -> Place:
        """In which chunk; a point without chunks has but one place."""
        return PLACES[self.place] if self.spec.chunked else "first"

    @property
    def can_be_kernel(self) -> bool:
        """True where the kernel itself can give the error."""
        return self.spec.by_kernel and self.given.kind == "errno"

    @property
    def from_kernel(self) -> bool:
        """True where it will."""
        return self.by_kernel and self.can_be_kernel

    def move(self, steps: int) -> Aim:
        """Another point, the nearest there is."""
        return replace(self, point=max(0, min(len(POINTS) - 1, self.point + steps)), harm=0)

    def turn(self, steps: int) -> Aim:
        """Another error of the point."""
        return replace(self, harm=(self.harm + steps) % len(self.harms))

    def move_place(self, steps: int) -> Aim:
        """Another chunk."""
        return replace(self, place=(self.place + steps) % len(PLACES))


def harms_of(spec: PointSpec) -> tuple[Harm, ...]:
    """Each kind of the point; an errno in a few."""
    several: dict[Kind, tuple[Harm, ...]] = {
        "errno": tuple(failing(name) for name in ERRNOS),
        "delay": (Harm("delay", seconds=0.3),),
        "hang": (Harm("hang", seconds=2.0),),
    }
    return tuple(harm for kind in spec.kinds for harm in several.get(kind, (Harm(kind),)))


def summary(view: View, cells: int) -> Spans:
    """How much is armed, and how often it fired."""
    if not view.faults:
        return (Span(" nothing is armed", "muted"),)
    fired = sum(each.fired for each in view.faults)
    return fit(
        (Span(f" {len(view.faults)} armed", "warn"), Span(f", fired {words.times(fired)}" if fired else "")), cells
    )


def catalogue(aim: Aim, cells: int, height: int) -> list[Spans]:
    """The points in the order of a pause, and of a resume; as many as there is room for, around the cursor."""
    shown = around(aim.point, len(POINTS), height)
    return [fit(_point(index, cursor=index == aim.point), cells) for index in shown]


def point_at(aim: Aim, line: int, height: int) -> int:
    """Which point that line of the catalogue shows; the last where the line is below them all."""
    shown = around(aim.point, len(POINTS), height)
    return shown[min(line, len(shown) - 1)]


def _point(index: int, *, cursor: bool) -> Spans:
    spec = CATALOGUE[POINTS[index]]
    often = "chunks" if spec.chunked else "resume" if spec.of_resume else "once"
    return (
        Span("▶ " if cursor else "  ", "title"),
        Span(f"{spec.point:<{POINT_CELLS}}", "title" if cursor else "plain"),
        Span(f"{often:<8}", "muted"),
        Span(spec.sentence.rstrip("."), "plain" if cursor else "muted"),
    )


def aim_lines(aim: Aim, chosen: Sequence[str], cells: int) -> list[Spans]:
    """What `enter` would arm: four lines."""
    kernel = " by the kernel itself" if aim.from_kernel else ""
    what = f"{aim.given.error}{kernel}: {KINDS[aim.given.kind]}"
    places = [in_words(place).replace("_", " ") for place in PLACES]
    where = _of_these(places, aim.place) if aim.spec.chunked else (Span("it is passed once"),)
    return [
        fit(
            (Span(" kind  ", "muted"), *_as_many_as_fit([_short(harm) for harm in aim.harms], aim.harm, cells - 8)),
            cells,
        ),
        wrap((Span("       "), Span(what)), cells - 1)[0],
        fit((Span(" place ", "muted"), *where), cells),
        fit((Span(" on    ", "muted"), Span(aimed_at(aim, chosen), "warn"), _how_to_choose(aim, chosen)), cells),
    ]


def _short(harm: Harm) -> str:
    return harm.error if harm.kind == "errno" else harm.kind


def _as_many_as_fit(choices: Sequence[str], here: int, cells: int) -> Spans:
    """Those around the chosen one, and how many more there are."""
    first, last = 0, len(choices)
    while len(" ".join(choices[first:last])) + len("◂▸ +9 ") > cells and last - first > 1:
        first, last = (first + 1, last) if here - first > last - 1 - here else (first, last - 1)
    more = len(choices) - (last - first)
    left = (Span(f"+{more}", "muted"),) if more else ()
    return (*_of_these(choices[first:last], here - first), *left)


def _of_these(choices: Sequence[str], here: int) -> Spans:
    said = [Span(f"◂{word}▸", "warn") if index == here else Span(word, "muted") for index, word in enumerate(choices)]
    return tuple(span for each in said for span in (each, Span(" ")))


def aimed_at(aim: Aim, chosen: Sequence[str]) -> str:
    """In words; without a selection it is every sandbox."""
    if aim.everybody or not chosen:
        return "every sandbox"
    return _some(chosen)


def targets(aim: Aim, chosen: Sequence[str]) -> list[str]:
    """Names, or the glob of all."""
    return ["*"] if aim.everybody or not chosen else list(chosen)


def _how_to_choose(aim: Aim, chosen: Sequence[str]) -> Span:
    if not chosen:
        return Span("  (x on the fleet screen selects)", "muted")
    return Span("  w: only the selected" if aim.everybody else "  w: every sandbox", "muted")


def armed_lines(view: View, cells: int, height: int) -> list[Spans]:
    """Each armed fault and the sandboxes it fired on, the latest first; equal faults on several share a line."""
    lines = [fit(_armed(each), cells) for each in _grouped(view.faults)]
    if len(lines) <= height:
        return lines
    return [*lines[: height - 1], (Span(f" … and {len(lines) - height + 1} more", "muted"),)]


def _grouped(faults: Iterable[FaultView]) -> list[list[FaultView]]:
    groups: dict[tuple[object, ...], list[FaultView]] = {}
    for fault in faults:
        groups.setdefault((fault.fault, fault.error, fault.at, fault.by_kernel), []).append(fault)
    return list(reversed(groups.values()))


def _armed(alike: list[FaultView]) -> Spans:
    first, names = alike[0], [each.sandboxes for each in alike]
    who = names[0] if len(names) == 1 else _some(names)
    what = words.fault_words(first.fault, first.error, first.at, who)
    kernel = ", by the kernel" if first.by_kernel else ""
    fired = sum(each.fired for each in alike)
    if not fired:
        return (Span(" ○ ", "muted"), Span(what + kernel), Span("  has not fired", "muted"))
    on = [name if count == 1 else f"{name} {count}x" for each in alike for name, count in each.fired_on.items()]
    return (Span(" ● ", "warn"), Span(what + kernel), Span(f"  fired {words.times(fired)}: {_some(on)}", "warn"))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} … {names[-1]} ({len(names)})"
