"""Whatever somebody writes into a flag file that punches, off is obeyed, and no older value comes back."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flags.file
from flags.client import FlagClientMisusedError
from flags.context import SandboxAttributes
from flags.file import FileFlags
from flags.inline import flag_from
from flags.lease import LEASE_EXPIRED, Lease
from flags.unsafe import UNSAFE_FLAG

PUNCH = "memfd-punch-on-snapshot"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
NEVER = 3600.0
ON = flag_from(PUNCH, True)
OFF = {**ON, "on": False}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


def punching(flag: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"flags": {PUNCH: flag}, **more}


def shares(*weights: tuple[int, int], kind: str = "sandbox", **more: Any) -> dict[str, Any]:
    entries = [{"variation": variation, "weight": weight} for variation, weight in weights]
    return {**ON, "fallthrough": {"rollout": {"contextKind": kind, "variations": entries, **more}}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "flags.json"
    write(place, punching(ON))
    return place


@pytest.fixture
def source(path: Path) -> Iterator[FileFlags]:
    """It punches; it looks at the file only when told to."""
    with contextlib.closing(FileFlags(path, poll=NEVER)) as followed:
        assert followed.decide(WEB).is_on(PUNCH)
        yield followed


OFF_IN_ITS_WAY: dict[str, Any] = {
    "no flag": {"flags": {}},
    "no flags": {},
    "null for the flags": {"flags": None},
    "a list for the flags": {"flags": []},
    "a number": 3,
    "null": None,
    "a deleted flag": punching({"key": PUNCH, "version": 9, "deleted": True}),
    "a flag that is text": punching("on"),  # type: ignore[arg-type]
    "a flag without a key": punching({name: value for name, value in ON.items() if name != "key"}),
    "a prerequisite that asks for a list": punching({**ON, "prerequisites": [{"key": "use-memfd", "variation": [0]}]}),
    "a weight that is text": punching(shares((0, 0), (1, "all"))),  # type: ignore[arg-type]
    "the same flag in both forms": punching(ON, flagValues={PUNCH: True}),
    "a short form that is false": {"flagValues": {PUNCH: False}},
    "neither variation nor rollout": punching({**ON, "fallthrough": {}}),
    "rollout null": punching({**ON, "fallthrough": {"variation": 0, "rollout": None}}),
}


@pytest.mark.parametrize("name", OFF_IN_ITS_WAY)
def test_a_whole_file_that_says_off_in_any_way_is_obeyed(name: str, path: Path, source: FileFlags) -> None:
    write(path, OFF_IN_ITS_WAY[name])
    assert source.refresh().state == "VALID"
    assert source.decide(WEB).is_on(PUNCH) is False


def test_an_integer_of_any_length_is_read_as_go_reads_it(path: Path, source: FileFlags) -> None:
    path.write_text(json.dumps(punching(OFF))[:-1] + ', "n": ' + "1" * 5000 + "}")
    assert (source.refresh().state, source.decide(WEB).evaluation(PUNCH).reason) == ("VALID", "OFF")


def test_half_a_surrogate_pair_is_read_as_go_reads_it(path: Path) -> None:
    key = PUNCH[:-1] + "\ud800"
    write(path, {"flags": {key: {**OFF, "key": key}, PUNCH: OFF}})
    with contextlib.closing(FileFlags(path, poll=NEVER)) as followed:
        assert PUNCH[:-1] + "\ufffd" in followed.sections()[0]
        assert followed.decide(WEB).evaluation(PUNCH).reason == "OFF"


UNSAFE: dict[str, dict[str, Any]] = {
    "off serves true": punching({**OFF, "offVariation": 1}),
    "off serves true where a prerequisite fails": punching(
        {**ON, "offVariation": 1, "prerequisites": [{"key": "none", "variation": 0}]}
    ),
    "true first, by a kind that is not there": punching(shares((1, 0), (0, 100_000), kind="host")),
    "bucketBy of an attribute that is not there": punching(shares((1, 1), (0, 99_999), bucketBy="host")),
    "weights that leave most over": punching(shares((0, 1_000), (1, 1_000))),
    "weights that are all 0": punching(shares((0, 0), (1, 0))),
    "a prerequisite whose weights do not sum": {
        "flags": {
            PUNCH: {**ON, "prerequisites": [{"key": "gate", "variation": 1}]},
            "gate": {**shares((0, 1_000), (1, 1_000)), "key": "gate"},
        }
    },
    "a segment that is not there": punching(
        {**ON, "rules": [{"variation": 0, "clauses": [{"attribute": "", "op": "segmentMatch", "values": ["kept"]}]}]}
    ),
    "a regular expression that repeats a repeat": punching(
        {
            **ON,
            "rules": [
                {
                    "variation": 0,
                    "clauses": [
                        {"contextKind": "sandbox", "attribute": "key", "op": "matches", "values": ["(a+)+$"]},
                    ],
                }
            ],
        }
    ),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_a_following_node_does_not_obey_a_dangerous_mistake_unless_it_must(
    name: str, path: Path, source: FileFlags
) -> None:
    write(path, UNSAFE[name])
    assert source.refresh().state == "VALID"
    found = source.decide(WEB).evaluation(PUNCH)
    assert (found.value, found.reason, found.variation) == (False, UNSAFE_FLAG, None)
    with contextlib.closing(FileFlags(path, poll=NEVER, obey_unsafe=True)) as obeying:
        assert obeying.decide(WEB).evaluation(PUNCH).reason != UNSAFE_FLAG


@pytest.mark.parametrize(
    "document",
    [
        punching(shares((0, 99_000), (1, 1_000))),
        punching(shares((1, 1_000), (0, 99_000))),
        punching(shares((0, 50_000), (1, 50_000), kind="host")),
        punching({**ON, "offVariation": 1}),
        punching({**ON, "offVariation": None}),
    ],
)
def test_a_flag_without_such_a_mistake_is_obeyed(document: Any, path: Path, source: FileFlags) -> None:
    write(path, document)
    source.refresh()
    assert source.decide(WEB).evaluation(PUNCH).reason == "FALLTHROUGH"


@pytest.mark.parametrize("name", [*OFF_IN_ITS_WAY, *UNSAFE])
def test_the_kill_switch_is_obeyed_after_any_poisonous_edit(name: str, path: Path, source: FileFlags) -> None:
    write(path, (OFF_IN_ITS_WAY | UNSAFE)[name])
    source.refresh()
    write(path, punching(ON))
    source.refresh()
    assert source.decide(WEB).is_on(PUNCH) is True
    write(path, punching(OFF))
    source.refresh()
    assert source.decide(WEB).evaluation(PUNCH).reason == "OFF"


def breaks(error: Exception) -> Callable[..., Any]:
    def act(*_: Any) -> Any:
        raise error

    return act


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), RecursionError("deep"), ValueError()])
@pytest.mark.parametrize("name", ["look", "decode", "mistakes"])
def test_no_exception_ends_the_follower(
    name: str, error: Exception, path: Path, source: FileFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_too = punching({**OFF, "salt": 3})
    with monkeypatch.context() as broken:
        broken.setattr(flags.file, name, breaks(error))
        write(path, refused_too)
        status = source.refresh()
    assert status.state == "INTERRUPTED"
    assert status.error == (str(error) or type(error).__name__)
    assert source.refresh().state == "VALID"
    assert source.decide(WEB).is_on(PUNCH) is False


def test_a_file_that_may_not_be_read_interrupts_and_the_next_one_is_obeyed(path: Path) -> None:
    clock = Clock()
    with contextlib.closing(FileFlags(path, poll=NEVER, lease=Lease(5.0, clock))) as followed:
        path.unlink()
        path.mkdir()
        assert followed.refresh().state == "INTERRUPTED"
        assert followed.decide(WEB).is_on(PUNCH) is True
        clock.now += 5.0
        assert followed.decide(WEB).evaluation(PUNCH).reason == LEASE_EXPIRED
        path.rmdir()
        write(path, punching(OFF))
        assert followed.decide(WEB).evaluation(PUNCH).reason == "OFF"


def test_each_whole_read_renews_the_lease_though_nothing_changed(path: Path) -> None:
    clock = Clock()
    with contextlib.closing(FileFlags(path, poll=NEVER, lease=Lease(5.0, clock))) as followed:
        for _ in range(4):
            clock.now += 4.0
            followed.refresh()
            assert followed.decide(WEB).is_on(PUNCH) is True


def test_a_starved_poller_changes_no_decision(path: Path) -> None:
    clock = Clock()
    with contextlib.closing(FileFlags(path, poll=NEVER, lease=Lease(5.0, clock))) as followed:
        clock.now += 600.0
        assert followed.decide(WEB).is_on(PUNCH) is True
        write(path, punching(OFF))
        clock.now += 600.0
        assert followed.decide(WEB).evaluation(PUNCH).reason == "OFF"


def test_a_torn_file_is_obeyed_no_longer_than_its_lease(path: Path) -> None:
    clock = Clock()
    with contextlib.closing(FileFlags(path, poll=NEVER, lease=Lease(5.0, clock))) as followed:
        path.write_text(json.dumps(punching(OFF))[:-1])
        followed.refresh()
        clock.now += 4.9
        assert followed.decide(WEB).is_on(PUNCH) is True
        clock.now += 0.1
        found = followed.decide(WEB).evaluation(PUNCH)
        assert (found.value, found.reason, found.source_state) == (False, LEASE_EXPIRED, "INTERRUPTED")


def test_a_read_that_hangs_costs_punching_and_not_the_pause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, ends = threading.Event(), threading.Event()

    def hang(_: Path) -> str:
        hanging.set()
        ends.wait(60)
        return "gone"

    with contextlib.closing(FileFlags(path, poll=NEVER, lease=Lease(0.2))) as followed:
        monkeypatch.setattr(flags.file, "look", hang)
        reader = threading.Thread(target=followed.refresh)
        reader.start()
        assert hanging.wait(10)
        deadline = threading.Event()
        while followed.decide(WEB).evaluation(PUNCH).reason != LEASE_EXPIRED:
            deadline.wait(0.01)
        ends.set()
        reader.join()


def test_a_forked_copy_says_so_and_the_parent_goes_on(path: Path, source: FileFlags) -> None:
    child = os.fork()
    if child == 0:
        try:
            source.decide(WEB)
        except FlagClientMisusedError:
            os._exit(0 if source.status().state == "OFF" else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    write(path, punching(OFF))
    source.refresh()
    assert source.decide(WEB).is_on(PUNCH) is False
