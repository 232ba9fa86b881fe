"""A worker of the local pool whose pool is gone ends in silence."""

from __future__ import annotations

from multiprocessing import Pipe
from unittest.mock import Mock

import pytest

from sim.run import cases
from sim.run import cases as served_units
from sim.run.node_server import NodeServer


def test_a_worker_whose_pool_closed_before_it_could_begin_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_units, "gc", Mock())  # the tests' own objects stay collectable
    here, there = Pipe()
    there.close()
    with here:
        assert cases.serve(here, Mock(NodeServer)) == 0
