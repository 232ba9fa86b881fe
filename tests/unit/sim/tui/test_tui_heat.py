"""A large fleet as a map."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.record.view import SandboxView, View
from sim.tui import heat
from sim.tui.spans import text, width

MIB = 1 << 20


def fleet(*groups: tuple[str, int], state: str = "running") -> View:
    sandboxes = {
        f"{name}-{number}": SandboxView(
            f"{name}-{number}", 8 * MIB, 4096, 4096, "t", "a", "c", state=state, resident=8 * MIB
        )
        for name, count in groups
        for number in range(count)
    }
    return View(sandboxes=sandboxes)


@pytest.mark.parametrize("by", heat.BYS)
@pytest.mark.parametrize(("cells", "height"), [(80, 14), (140, 35), (60, 12)])
def test_a_map_fits_and_leaves_nobody_out(by: heat.By, cells: int, height: int) -> None:
    view = fleet(("web", 1000), ("batch", 37))
    drawn = heat.lines(view, by, cells, height)
    assert len(drawn) <= height
    assert all(width(line) <= cells for line in drawn)
    said = " ".join(" ".join(map(text, drawn)).split())
    assert "web 1000: 1000 running; 8000 MiB in guests, 0 MiB in snapshots, 0 MiB freed" in said
    assert "batch 37: 37 running" in said


def test_where_there_is_room_each_sandbox_has_its_own_cell() -> None:
    drawn = "".join(map(text, heat.lines(fleet(("web", 200)), "state", 80, 20)[2:-2]))
    assert drawn.count("●") >= 200
    assert "one cell a sandbox" in text(heat.lines(fleet(("web", 200)), "state", 80, 20)[0])


def test_what_needs_a_look_is_drawn_where_several_share_a_cell() -> None:
    view = fleet(("web", 1000))
    view.sandboxes["web-500"] = replace(view.sandboxes["web-500"], state="discarded")
    drawn = "\n".join(text(line) for line in heat.lines(view, "state", 80, 8)[:-2])
    assert drawn.count("✗") == 1
    assert "999 running, 1 discarded" in drawn


def test_memory_is_drawn_by_its_height_from_nothing_to_2x() -> None:
    sandbox = next(iter(fleet(("web", 1)).sandboxes.values()))
    assert heat.cell(replace(sandbox, resident=0), "memory") == ("·", "muted")
    assert heat.cell(sandbox, "memory") == ("▄", "good")
    assert heat.cell(replace(sandbox, cached=8 * MIB), "memory") == ("█", "warn")
