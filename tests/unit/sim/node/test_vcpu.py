"""The processor state that a build keeps: whose it is, and whether it is whole."""

from __future__ import annotations

import json

import pytest

from engine.errors import CorruptBuildError
from sim.node.vcpu import digest_of, opened, sealed

STATE = bytes(range(256))
SEALED = sealed("web-0", "web-0.p1", STATE)


def test_a_state_comes_back_as_it_was_kept() -> None:
    assert opened(SEALED, "web-0", "web-0.p1") == STATE


@pytest.mark.parametrize(("sandbox", "build"), [("web-1", "web-0.p1"), ("web-0", "web-0.p2")])
def test_the_state_of_another_sandbox_or_build_is_refused_by_its_name(sandbox: str, build: str) -> None:
    with pytest.raises(CorruptBuildError, match=r"its processor state is that of build web-0\.p1 of web-0") as raised:
        opened(SEALED, sandbox, build)
    assert raised.value.build == build


def test_a_flipped_bit_of_the_state_is_noticed() -> None:
    content = json.loads(SEALED)
    content["state"] = "01" + content["state"][2:]
    with pytest.raises(CorruptBuildError, match="does not match its digest"):
        opened(json.dumps(content).encode(), "web-0", "web-0.p1")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", SEALED[:-2], SEALED.replace(b'"state": "', b'"state": "x')])
def test_what_is_no_processor_state_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptBuildError, match="its processor state cannot be read"):
        opened(data, "web-0", "web-0.p1")


def test_two_states_have_two_digests() -> None:
    assert digest_of(STATE) != digest_of(STATE[1:])
