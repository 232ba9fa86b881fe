from __future__ import annotations

import dataclasses
import inspect
import json

import pytest

import engine.events
from engine.events import Condemned, Event, ignore

KINDS = [
    kind
    for _, kind in inspect.getmembers(engine.events, inspect.isclass)
    if issubclass(kind, Event) and kind is not Event
]
SAMPLES = {
    "list[str]": ["x"],
    "int": 7,
    "int | None": None,
    "str": "x",
    "str | None": "x",
    "bool": True,
    "float": 1.5,
    "dict[str, list[int]] | None": {"7": [1, 2]},
}


def sample(kind: type[Event]) -> Event:
    return kind(**{field.name: SAMPLES[str(field.type)] for field in dataclasses.fields(kind)})


def test_there_are_events() -> None:
    assert Condemned in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_says_only_what_json_can_say(kind: type[Event]) -> None:
    written = dataclasses.asdict(sample(kind))
    assert json.loads(json.dumps(written)) == written


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_cannot_be_changed_afterwards(kind: type[Event]) -> None:
    event = sample(kind)
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field.name, None)
    assert not hasattr(event, "__dict__")


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_named_in_the_past_tense(kind: type[Event]) -> None:
    assert kind.__name__.endswith(("ed", "ished"))


def test_the_listener_of_those_who_keep_no_ledger_takes_anything() -> None:
    ignore(Condemned("b1"))
