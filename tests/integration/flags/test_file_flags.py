from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import flags.file
from flags.client import FlagClient
from flags.context import SandboxAttributes
from flags.file import FileFlags
from flags.inline import Rollout, flag_from
from flags.lint import check
from flags.memory import MemoryFlags

PUNCH = "memfd-punch-on-snapshot"
BACKGROUND = "memfd-background-copy"
WEB = SandboxAttributes(sandbox="web-0", template="python", team="acme")
NEVER = 3600.0  # a poll so slow that only refresh() looks
DEADLINE = 10.0

Following = tuple[FileFlags, SimpleQueue[str]]


def write(path: Path, *given: dict[str, Any]) -> None:
    path.write_text(json.dumps({"flags": {flag["key"]: flag for flag in given}}, indent=1))


def punches(source: FlagClient, sandbox: str = "web-0") -> bool:
    return source.decide(SandboxAttributes(sandbox=sandbox, template="python", team="acme")).is_on(PUNCH)


def refused(path: Path) -> str:
    """Why a file cannot be served from the start; every flag has its safe value then."""
    with contextlib.closing(FileFlags(path, poll=NEVER)) as source:
        status, decision = source.status(), source.decide(WEB)
    assert status.state == "INITIALIZING"
    assert {each.reason for each in decision.evaluations} == {"ERROR:CLIENT_NOT_READY"}
    assert decision.is_on(PUNCH) is False
    assert status.error is not None
    return status.error


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "flags.json"
    write(place, flag_from(PUNCH, False))
    return place


@pytest.fixture
def source(path: Path) -> Iterator[FileFlags]:
    """Looks at the file only when told to."""
    followed = FileFlags(path, poll=NEVER)
    yield followed
    followed.close()


@pytest.fixture
def following(path: Path) -> Iterator[Following]:
    """Looks at the file by itself; the queue receives the key of each changed flag."""
    followed = FileFlags(path, poll=0.005)
    told: SimpleQueue[str] = SimpleQueue()
    followed.subscribe(told.put)
    yield followed, told
    followed.close()


def test_file_flags_are_a_flag_client(source: FileFlags) -> None:
    client: FlagClient = source
    assert client.status().state == "VALID"


def test_inline_and_file_agree_on_every_sandbox(path: Path) -> None:
    flag = flag_from(PUNCH, Rollout(50, "sandbox"))
    write(path, flag)
    inline, file = MemoryFlags({PUNCH: flag}), FileFlags(path, poll=NEVER)
    names = [f"web-{number}" for number in range(500)]
    served = [punches(file, name) for name in names]
    assert served == [punches(inline, name) for name in names]
    assert set(served) == {True, False}
    file.close()


def test_closing_does_not_hang_with_a_subscriber(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags.file, "CLOSE_SECONDS", 0.05)
    source = FileFlags(path, poll=0.005)
    told, stuck = threading.Event(), threading.Event()

    def never_ends(_: str) -> None:
        told.set()
        stuck.wait(DEADLINE)

    source.subscribe(never_ends)
    write(path, flag_from(PUNCH, True))
    assert told.wait(DEADLINE)
    source.close()
    assert not stuck.is_set()
    assert source._poller.is_alive()
    stuck.set()


def test_a_rewrite_in_place_is_seen_and_told_without_a_version_in_the_file(path: Path, following: Following) -> None:
    source, told = following
    write(path, flag_from(PUNCH, True))
    assert told.get(timeout=DEADLINE) == PUNCH
    assert punches(source) is True


def test_an_atomic_replace_is_seen(path: Path, following: Following) -> None:
    source, told = following
    write(path.with_suffix(".new"), flag_from(PUNCH, True))
    path.with_suffix(".new").replace(path)
    assert told.get(timeout=DEADLINE) == PUNCH
    assert punches(source) is True


def test_a_config_map_swap_of_a_symlinked_folder_is_seen(tmp_path: Path) -> None:
    for folder, value in (("..1", False), ("..2", True)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "flags.json", flag_from(PUNCH, value))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "flags.json").symlink_to("..data/flags.json")
    source = FileFlags(tmp_path / "flags.json", poll=0.005)
    told: SimpleQueue[str] = SimpleQueue()
    source.subscribe(told.put)
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert told.get(timeout=DEADLINE) == PUNCH
    assert punches(source) is True
    source.close()


def test_a_rewrite_of_equal_size_and_times_is_seen(path: Path, source: FileFlags) -> None:
    write(path, flag_from(PUNCH, True))
    source.refresh()
    before = path.stat()
    changed = path.read_text().replace('"fallthrough": {\n    "variation": 1', '"fallthrough": {\n    "variation": 0')
    path.write_text(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    source.refresh()
    assert punches(source) is False


def test_refresh_makes_a_change_effective_before_it_returns(path: Path, source: FileFlags) -> None:
    write(path, flag_from(PUNCH, True))
    assert punches(source) is False
    assert source.refresh().state == "VALID"
    assert punches(source) is True


def test_a_subscriber_may_refresh_and_close(path: Path) -> None:
    source = FileFlags(path, poll=0.005)
    closed = threading.Event()

    def on_change(_: str) -> None:
        source.refresh()
        source.close()
        closed.set()

    source.subscribe(on_change)
    write(path, flag_from(PUNCH, True))
    assert closed.wait(DEADLINE)
    assert source.status().state == "OFF"


def test_a_deleted_file_leaves_the_last_good_flags_in_force_and_says_so(path: Path, source: FileFlags) -> None:
    write(path, flag_from(PUNCH, True))
    source.refresh()
    path.unlink()
    status = source.refresh()
    assert status.state == "INTERRUPTED"
    assert status.error == f"{path}:1:1: error: it cannot be read: No such file or directory; put a JSON file there"
    assert punches(source) is True
    assert source.decide(WEB).evaluations[0].source_state == "INTERRUPTED"


def test_the_same_file_back_ends_the_interruption(path: Path, source: FileFlags) -> None:
    content = path.read_bytes()
    path.unlink()
    source.refresh()
    path.write_bytes(content)
    status = source.refresh()
    assert (status.state, status.error) == ("VALID", None)


def test_no_torn_write_is_ever_served(path: Path, source: FileFlags) -> None:
    """Every prefix of a wider rollout: the last good flags stay in force until the last byte is there."""
    whole = json.dumps({"flags": {PUNCH: flag_from(PUNCH, True)}}).encode()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert source.refresh().state == "INTERRUPTED"
        assert punches(source) is False
    path.write_bytes(whole)
    assert source.refresh().state == "VALID"
    assert punches(source) is True


def test_a_flag_that_cannot_be_evaluated_is_served_as_launchdarkly_does(path: Path, source: FileFlags) -> None:
    write(path, flag_from(PUNCH, True))
    source.refresh()
    write(path, {**flag_from(PUNCH, True), "fallthrough": {"variation": 7}})
    assert (source.refresh().state, source.status().error) == ("VALID", None)
    assert source.decide(WEB).evaluations[0].reason == "ERROR:MALFORMED_FLAG"
    assert punches(source) is False


def test_every_mistake_of_a_file_is_listed_with_its_place(path: Path) -> None:
    path.write_text(
        """{
  "flagz": {},
  "flags": {
    "memfd-punch-on-snapshot": {
      "key": "memfd-punch-on-snapshot", "on": true, "on": true,
      "variations": [true, false],
      "fallthrough": {"rollout": {"contextKind": "host", "variations": [
        {"variation": 0, "weight": 10000},
        {"variation": 1, "weight": 50000}]}}
    },
    "memfd-background-copy": 1,
    "memfd-backgroundcopy": {"key": "memfd-backgroundcopy"}
  }
}
"""
    )
    assert [str(replace(each, file="flags.json")) for each in check(path.read_text())] == [
        'flags.json:2:3: error: unknown key "flagz"; did you mean "flags"?',
        'flags.json:4:5: warning: "memfd-punch-on-snapshot" has no "offVariation"; name the variation that off serves',
        'flags.json:5:53: error: duplicate key "on"; keep one of the two',
        (
            'flags.json:7:35: error: unknown contextKind "host"; '
            "use one of: cluster, deployment, orchestrator, sandbox, service, team, template"
        ),
        ("flags.json:7:58: error: the weights sum to 60000; make them sum to 100000"),
        (
            "flags.json:8:9: error: the unsafe variation is listed first; let a first rule serve false to contexts "
            'without the kind, by the clause {"attribute": "kind", "op": "in", "values": ["host"], "negate": true}'
        ),
        (
            'flags.json:11:5: error: "memfd-background-copy" is not an object; '
            "write it in full, as LaunchDarkly exports it"
        ),
        (
            'flags.json:12:5: warning: unknown flag "memfd-backgroundcopy" is ignored; '
            'did you mean "memfd-background-copy"?'
        ),
    ]


def test_a_flag_that_launchdarkly_refuses_is_off_and_named_with_its_place_and_the_others_are_served(
    path: Path, source: FileFlags
) -> None:
    write(path, flag_from(PUNCH, True), flag_from(BACKGROUND, True))
    source.refresh()
    write(path, {**flag_from(PUNCH, True), "salt": 3}, flag_from(BACKGROUND, False))
    status = source.refresh()
    assert status.state == "VALID"
    assert re.search(r'flags.json:3:3: error: LaunchDarkly refuses .*"salt"', status.error or "")
    assert source.decide(WEB).evaluation(PUNCH).reason == "ERROR:FLAG_NOT_FOUND"
    assert source.decide(WEB).value(BACKGROUND) is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1:1: error: not JSON: "),
        (b'{"flags": {"n": NaN}}', ":1:17: error: not JSON: NaN is not"),
        (b'{"flags":' + b"[" * 100_000 + b"]" * 100_000 + b"}", ":1:1: error: not JSON: nested too deeply"),
        (b'{"flags":\n {"\xff": 1}}', ":2:4: error: not UTF-8; "),
        (b'{"flags": {}, // none\n}', ":1:15: error: not JSON: "),
    ],
)
def test_a_file_that_cannot_be_served_is_refused_at_start(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    told = refused(path)
    assert told.startswith(f"{path}{message}")
    assert len(told.splitlines()) == 1


def test_a_file_that_is_bad_at_start_is_in_force_once_it_is_good(path: Path) -> None:
    torn = b'{"flags": {"memfd-pu'
    path.write_bytes(torn)
    with contextlib.closing(FileFlags(path, poll=NEVER)) as source:
        write(path, flag_from(PUNCH, True))
        assert (source.refresh().state, punches(source)) == ("VALID", True)
        path.write_bytes(torn)
        assert (source.refresh().state, punches(source)) == ("INTERRUPTED", True)


def test_a_missing_file_or_folder_is_refused_at_start(tmp_path: Path) -> None:
    for place in (tmp_path / "none.json", tmp_path / "none" / "flags.json"):
        assert "No such file or directory" in refused(place)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")


def test_an_unknown_flag_keeps_no_other_from_being_served(path: Path) -> None:
    write(path, flag_from(PUNCH, True), {**flag_from(PUNCH, True), "key": "memfd-punch"})
    source = FileFlags(path, poll=NEVER)
    assert source.status().state == "VALID"
    assert punches(source) is True
    source.close()


def test_an_emptied_set_of_flags_serves_the_safe_values_and_is_told(path: Path, source: FileFlags) -> None:
    write(path, flag_from(PUNCH, True))
    source.refresh()
    told: list[str] = []
    source.subscribe(told.append)
    write(path)
    source.refresh()
    assert told == [PUNCH]
    assert source.decide(WEB).evaluations[0].reason == "ERROR:FLAG_NOT_FOUND"
    assert punches(source) is False


def test_a_closed_source_leaves_no_thread_behind(path: Path) -> None:
    before = threading.active_count()
    source = FileFlags(path)
    source.close()
    source.close()
    assert threading.active_count() == before
