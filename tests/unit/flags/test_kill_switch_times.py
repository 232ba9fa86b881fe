"""At which moments the drill of the kill switch throws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flags import propagation
from flags.catalog import PUNCH
from flags.inline import flag_from
from flags.memory import MemoryFlags


def test_the_kill_switch_is_thrown_at_every_moment_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    client, slept = MemoryFlags({}), list[float]()

    @contextmanager
    def drilled(*_: object) -> Iterator[object]:
        on, off = (lambda value=value: client.set(flag_from(PUNCH, value)) for value in (True, False))
        yield propagation._Drill(client, on, off, period=4.0)

    monkeypatch.setattr(propagation, "_drill", drilled)
    monkeypatch.setattr("flags.propagation.time.sleep", slept.append)
    times = propagation.kill_switch_times("file", 20, give_up=5.0)
    assert all(each is not None for each in times)
    quarters = Counter(int(each) for each in slept)
    assert set(quarters) == {0, 1, 2, 3}
    assert min(quarters.values()) >= 4
