"""Any bytes on stdin: the keys among them are read, and nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.message import Message

from sim.tui.keyboard import MOST, PASTE_ENDS, Keyboard


class Typed(Keyboard):
    """A keyboard whose parser's own clock is the test's."""

    def feed(self, data: bytes, now: float) -> list[Message]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("textual._parser.get_time", lambda: now)
            return super().feed(data, now)

    def tick(self, now: float) -> list[Message]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("textual._parser.get_time", lambda: now)
            return super().tick(now)


ODD = [
    "\x1b[1;2:3P",
    "\x1b[999999999999P",
    "\x1b[55296u",  # a surrogate: no terminal can draw it
    "\x1b[48;0;0;0;0t\x1b[<0;5;5M",
    "\x1b[<999999999999999;5;5M",
    "\x1b[",
    "\x1b[200~",
    "\x1b[201~",
    "\x9b",
    "\x1bP",
    "\x1b]0;",
    "é",
    "\x00",
    "\x7f",
]


def keys(messages: list[Message]) -> list[str]:
    return [each.key for each in messages if isinstance(each, events.Key)]


@pytest.mark.parametrize("byte", range(256))
def test_a_key_after_any_byte_is_read(byte: int) -> None:
    keyboard = Typed()
    keyboard.feed(bytes([byte]), 0.0)
    keyboard.tick(10.0)
    found = keys(keyboard.feed(b"xq", 11.0))
    assert found[-1] == "q"


@pytest.mark.parametrize("odd", ODD)
def test_a_key_after_a_sequence_that_nobody_can_read_is_read(odd: str) -> None:
    keyboard = Typed()
    keyboard.feed(odd.encode(), 0.0)
    keyboard.tick(PASTE_ENDS + 1)
    keyboard.tick(PASTE_ENDS + 2)
    assert keys(keyboard.feed(b"xq", PASTE_ENDS + 3))[-1] == "q"


@given(st.lists(st.one_of(st.binary(max_size=6), st.sampled_from([each.encode() for each in ODD])), max_size=12))
def test_no_bytes_raise_and_the_next_key_is_read(parts: list[bytes]) -> None:
    keyboard = Typed()
    for number, part in enumerate(parts):
        for message in keyboard.feed(part, number / 10):
            if isinstance(message, events.Resize):
                assert 0 < message.size.width <= MOST
                assert 0 < message.size.height <= MOST
            if isinstance(message, events.Key) and message.character:
                message.character.encode()
    keyboard.tick(100.0)
    keyboard.tick(200.0)
    keyboard.tick(300.0)
    keyboard.feed(b"~" * 40, 400.0)  # the longest sequence is over
    keyboard.tick(500.0)
    assert keys(keyboard.feed(b"q", 600.0)) == ["q"]


def test_letters_that_are_cut_in_two_reads_are_whole() -> None:
    keyboard = Typed()
    assert keyboard.feed("é".encode()[:1], 0.0) == []
    assert [each.character for each in keyboard.feed("é".encode()[1:], 0.1) if isinstance(each, events.Key)] == ["é"]


def test_what_is_pasted_has_no_control_character() -> None:
    keyboard = Typed()
    pasted = keyboard.feed(b"\x1b[200~web\x07\x1b[201~", 0.0) + keyboard.feed(b"x", 0.0)
    assert [each.text for each in pasted if isinstance(each, events.Paste)] == ["web\\x07"]


def test_a_click_is_a_click() -> None:
    pressed, released = Keyboard().feed(b"\x1b[<0;5;6M\x1b[<0;5;6m", 0.0)
    assert isinstance(pressed, events.MouseDown)
    assert isinstance(released, events.MouseUp)
    assert (pressed.x, pressed.y) == (4, 5)
