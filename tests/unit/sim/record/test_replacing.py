from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sim.record.replacing import replace
from sim.record.view import MemoryView, PauseView, SandboxView, View

KINDS: list[Any] = [
    View(),
    MemoryView(),
    PauseView("web-0.p1", "web-0", 1.5),
    SandboxView("web-0", 1, 1, 1, "t", "m", "c"),
]


@pytest.mark.parametrize("known", KINDS, ids=lambda each: type(each).__name__)
def test_each_field_is_replaced_as_dataclasses_does_it(known: Any) -> None:
    before = dataclasses.replace(known)
    assert replace(known) == known
    for each in dataclasses.fields(known):
        made = replace(known, **{each.name: object()})
        assert dataclasses.replace(made, **{each.name: getattr(known, each.name)}) == known == before
        assert getattr(made, each.name) != getattr(known, each.name)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, each.name, None)


def test_a_field_that_there_is_not_is_an_error() -> None:
    with pytest.raises(TypeError, match="View has no field 'ticks'"):
        replace(View(), ticks=1)  # type: ignore[call-arg]
