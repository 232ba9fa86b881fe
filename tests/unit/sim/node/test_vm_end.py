"""What a guest says of its virtual machine's end is taken as data, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from sim.node.guest_link import _parsed_vm_end

END = {"exit": "SHUTDOWN", "rip": 5, "past_memory": False, "began": 3, "had": "e9 66", "found": "00 00"}


@pytest.mark.parametrize(
    "said",
    [None, "gone", [], {}, {**END, "rip": "x"}, {**END, "rip": None}, {**END, "had": "no hex"}, {**END, "found": 7}],
)
def test_nonsense_is_no_end(said: Any) -> None:
    assert _parsed_vm_end(said) is None


def test_an_end_is_cut_to_what_is_shown() -> None:
    assert dict(_parsed_vm_end(END) or {}) == END
    long = _parsed_vm_end({**END, "exit": "X" * 99, "rip": 1 << 70 | 9, "had": "ab" * 99})
    assert long is not None
    assert (len(long["exit"]), long["rip"], long["had"]) == (40, 9, " ".join(["ab"] * 16))
