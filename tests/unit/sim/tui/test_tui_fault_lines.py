from __future__ import annotations

from dataclasses import replace

import pytest

from sim.files.faults import CATALOGUE, KILL_NODE, AtChunk
from sim.node.armed_faults import Fault
from sim.record.view import FaultView, View
from sim.tui import fault_lines
from sim.tui.fault_lines import ERRNOS, PLACES, POINTS, Aim
from sim.tui.spans import text, width


@pytest.mark.parametrize("point", POINTS)
def test_everything_that_can_be_aimed_at_a_point_can_be_armed_there(point: str) -> None:
    aim = replace(Aim(), point=POINTS.index(point), by_kernel=True)
    for index in range(len(aim.harms)):
        turned = aim.turn(index)
        for place in range(len(PLACES)):
            at = turned.move_place(place).at
            Fault(1, turned.spec.point, turned.given, at, "*", by_kernel=turned.from_kernel)


@pytest.mark.parametrize("point", POINTS)
def test_every_kind_of_the_point_is_offered(point: str) -> None:
    spec = CATALOGUE[POINTS[POINTS.index(point)]]
    assert {each.kind for each in fault_lines.harms_of(spec)} == set(spec.kinds)


def test_moving_to_another_point_begins_with_its_first_kind() -> None:
    aim = Aim().turn(4)
    assert aim.harm == 4
    assert aim.move(1).harm == 0
    assert aim.move(-99).spec.point == POINTS[0]
    assert aim.move(99).spec.point == POINTS[-1]
    assert Aim().turn(-1).given == KILL_NODE


def test_a_point_without_chunks_has_but_one_place() -> None:
    aim = replace(Aim(), point=POINTS.index("freeze"), place=4)
    assert aim.at == "first"
    assert replace(aim, point=POINTS.index("punch"), place=2).at == AtChunk(3)


def test_only_an_errno_can_come_from_the_kernel() -> None:
    aim = replace(Aim(), by_kernel=True)
    assert aim.from_kernel
    assert not aim.turn(len(ERRNOS)).from_kernel
    assert not aim.move(1).from_kernel


def test_what_would_be_armed_is_told_and_fits_at_80_cells() -> None:
    for point in range(len(POINTS)):
        for error in range(len(replace(Aim(), point=point).harms)):
            lines = fault_lines.aim_lines(Aim(point, error), ["web-0", "web-1"], 80)
            assert len(lines) == 4
            assert all(width(line) == 80 or not text(line).startswith(" kind") for line in lines)
            assert "…" not in "".join(map(text, lines))
    kind, what, place, who = map(text, fault_lines.aim_lines(Aim(), [], 80))
    assert kind.rstrip() == " kind  ◂ENOSPC▸ EIO ENOMEM short corrupt delay hang cancel wake-guest +2"
    assert what.strip() == "ENOSPC: The act fails with an errno, and is not done."
    assert place.startswith(" place first ◂after condemn▸ chunk 3 50% last")
    assert who.startswith(" on    every sandbox")


def test_the_chosen_kind_is_always_among_those_that_are_shown() -> None:
    for harm, name in enumerate(map(fault_lines._short, Aim().harms)):
        kind, *_ = map(text, fault_lines.aim_lines(replace(Aim(), harm=harm), [], 80))
        assert f"◂{name}▸" in kind


def test_no_sentence_of_the_catalogue_is_cut_at_80_cells() -> None:
    lines = fault_lines.catalogue(Aim(), 80, len(POINTS))
    assert len(lines) == len(POINTS)
    assert "…" not in "".join(map(text, lines))


def test_without_a_selection_it_is_everybody() -> None:
    assert fault_lines.targets(Aim(), []) == ["*"]
    assert fault_lines.targets(Aim(), ["web-1"]) == ["web-1"]
    assert fault_lines.targets(Aim(everybody=True), ["web-1"]) == ["*"]
    assert fault_lines.aimed_at(Aim(), [f"web-{number}" for number in range(9)]) == "web-0, web-1 … web-8 (9)"


def test_what_is_armed_alike_is_one_line_and_says_on_whom_it_fired() -> None:
    faults = (
        FaultView(1, "copy.write", "ENOSPC", "chunk 3", "web-0", 2, {"web-0": 2}),
        FaultView(2, "copy.write", "ENOSPC", "chunk 3", "web-1", 1, {"web-1": 1}),
        FaultView(3, "punch", "EIO", "last", "*", by_kernel=True),
    )
    lines = list(map(str.rstrip, map(text, fault_lines.armed_lines(View(faults=faults), 100, 5))))
    assert lines == [
        " ○ punch EIO at the last chunk on every sandbox, by the kernel  has not fired",
        " ● copy.write ENOSPC at chunk 3 on web-0, web-1  fired 3 times: web-0 2x, web-1",
    ]
    assert text(fault_lines.summary(View(faults=faults), 80)).rstrip() == " 3 armed, fired 3 times"
    assert text(fault_lines.summary(View(), 80)) == " nothing is armed"


def test_more_than_there_is_room_for_is_counted() -> None:
    faults = tuple(FaultView(number, point, "EIO", "first", "*") for number, point in enumerate(POINTS))
    lines = list(map(text, fault_lines.armed_lines(View(faults=faults), 100, 3)))
    assert len(lines) == 3
    assert lines[-1] == f" … and {len(POINTS) - 2} more"
