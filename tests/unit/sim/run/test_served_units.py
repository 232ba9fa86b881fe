"""A worker of the local pool whose pool is gone ends in silence."""

from __future__ import annotations

from multiprocessing import Pipe
from unittest.mock import Mock

import pytest

from sim.run import cases
from sim.run.cases import UnitResult
from sim.run.node_server import NodeServer


def test_a_worker_whose_pool_closed_before_it_could_begin_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "gc", Mock())  # the tests' own objects stay collectable
    here, there = Pipe()
    there.close()
    with here:
        assert cases.serve(here, Mock(NodeServer)) == 0


def test_a_worker_whose_pool_closes_as_its_unit_ends_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Pipe()

    async def end_as_the_pool_closes(*_: object) -> UnitResult:
        there.close()
        return UnitResult("u", "held")

    monkeypatch.setattr(cases, "gc", Mock())
    monkeypatch.setattr(cases, "run_unit", end_as_the_pool_closes)
    there.send("a unit")
    with here:
        assert cases.serve(here, Mock(NodeServer)) == 0
