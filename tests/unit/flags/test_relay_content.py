from __future__ import annotations

import json
from typing import Any

import pytest

from flags.inline import flag_from
from flags.lease import HEARTBEAT, heartbeat_flag
from flags.relay_content import Change, Content, event, fdv1, fdv2

PUNCH = "memfd-punch-on-snapshot"
ON, OFF = flag_from(PUNCH, True), flag_from(PUNCH, False)


def told(sent: bytes | Change) -> tuple[str, Any]:
    """An event's name and data, as a reader of the stream takes it apart."""
    message = fdv1(sent) if isinstance(sent, Change) else sent
    head, data, *rest = message.decode().split("\n")
    assert rest == ["", ""]
    return head.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.fixture
def content() -> Content:
    """Serves PUNCH, on."""
    made = Content(first_version=1)
    list(made.set("flags", PUNCH, ON))
    return made


def test_the_put_holds_everything_in_launchdarklys_form(content: Content) -> None:
    everything = {"flags": {PUNCH: {**ON, "version": 1}}, "segments": {}}
    assert told(content.put()) == ("put", {"path": "/", "data": everything})
    assert json.loads(content.whole()) == everything


def test_a_change_is_one_patch_with_a_higher_version(content: Content) -> None:
    (message,) = content.set("flags", PUNCH, OFF)
    assert told(message) == ("patch", {"path": f"/flags/{PUNCH}", "data": {**OFF, "version": 2}})
    assert content.version(PUNCH) == 2


def test_the_same_content_is_no_change(content: Content) -> None:
    assert list(content.set("flags", PUNCH, dict(ON))) == []
    assert content.version(PUNCH) == 1


def test_a_version_that_went_back_is_served_as_a_higher_one(content: Content) -> None:
    """A reverted file brings back an old version, which the SDK would drop."""
    list(content.set("flags", PUNCH, {**OFF, "version": 40}))
    list(content.set("flags", PUNCH, {**ON, "version": 39}))
    assert content.version(PUNCH) == 41


def test_versions_rise_over_a_deletion(content: Content) -> None:
    (deletion,) = content.delete("flags", PUNCH)
    assert told(deletion) == ("delete", {"path": f"/flags/{PUNCH}", "version": 2})
    assert content.version(PUNCH) is None
    list(content.set("flags", PUNCH, ON))
    assert content.version(PUNCH) == 3


def test_a_flag_that_is_not_there_is_not_deleted(content: Content) -> None:
    assert list(content.delete("flags", "none")) == []


def test_a_replaced_set_is_told_by_its_differences_segments_before_their_flags(content: Content) -> None:
    other = flag_from("memfd-background-copy", True)
    messages = content.replace({"memfd-background-copy": other}, {"kept": {"key": "kept"}})
    paths = [(name, data["path"]) for name, data in map(told, messages)]
    assert paths == [
        ("patch", "/segments/kept"),
        ("patch", "/flags/memfd-background-copy"),
        ("delete", f"/flags/{PUNCH}"),
    ]


def test_a_replaced_set_leaves_the_heartbeat_alone(content: Content) -> None:
    list(content.set("flags", HEARTBEAT, heartbeat_flag(1)))
    assert list(content.replace({PUNCH: ON}, {})) == []
    assert content.version(HEARTBEAT) == 1


def test_the_first_version_is_given_to_flags_that_bring_none() -> None:
    content = Content(first_version=500)
    list(content.set("flags", PUNCH, ON))
    assert content.version(PUNCH) == 500


def test_fdv2_transfers_everything_and_then_each_change_with_the_state(content: Content) -> None:
    names = [each.split(b"\n")[0] for each in content.transfer().split(b"\n\n") if each]
    assert names == [b"event: server-intent", b"event: put-object", b"event: payload-transferred"]
    (change,) = content.set("flags", PUNCH, OFF)
    put, state, rest = fdv2(change).split(b"\n\n")
    expected = {"version": 2, "kind": "flag", "key": PUNCH, "object": {**OFF, "version": 2}}
    assert told(put + b"\n\n") == ("put-object", expected)
    assert told(state + b"\n\n")[0] == "payload-transferred"
    assert rest == b""
    (deletion,) = content.delete("flags", PUNCH)
    gone = fdv2(deletion).split(b"\n\n")[0]
    assert told(gone + b"\n\n") == ("delete-object", {"version": 3, "kind": "flag", "key": PUNCH})
    assert json.loads(content.polled())["events"][0]["event"] == "server-intent"


def test_what_no_json_can_say_is_not_served(content: Content) -> None:
    (change,) = content.set("flags", PUNCH, {**ON, "variations": [False, float("inf")]})
    assert change.item is None
    assert json.loads(content.whole()) == {"flags": {}, "segments": {}}
    with pytest.raises(ValueError, match="JSON compliant"):
        event("put", {"n": float("nan")})
