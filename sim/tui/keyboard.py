"""What a terminal sends: bytes in, messages out; whatever the bytes are, nothing breaks."""

from __future__ import annotations

from codecs import getincrementaldecoder

from textual import events
from textual._xterm_parser import XTermParser
from textual.message import Message

from sim.report.words import scrub

MOST = 1000
"""Columns and rows: a terminal that reports more is not believed, since every cell would be drawn."""
PASTE_ENDS = 1.0
"""Seconds without a byte after which a paste that was begun and never ended is over: it would swallow every key."""
_BEGIN, _END = "\x1b[200~", "\x1b[201~"


class Keyboard:
    """Bytes that are no UTF-8 are left out; a sequence that textual's parser fails on is forgotten."""

    def __init__(self) -> None:
        self._decode = getincrementaldecoder("utf-8")("ignore").decode
        self._parser = XTermParser()
        self._tail = ""
        self._pasting = False
        self._last = 0.0

    def feed(self, data: bytes, now: float) -> list[Message]:
        """The messages that these bytes complete; `now` in monotonic seconds."""
        self._last = now
        found: list[Message] = []
        for sign in self._decode(data):
            self._tail = (self._tail + sign)[-len(_BEGIN) :]
            self._pasting = self._tail == _BEGIN or (self._pasting and self._tail != _END)
            found += self._parsed(sign)
        return found

    def tick(self, now: float) -> list[Message]:
        """What a pause in the bytes completes: a lone escape is a key."""
        if self._pasting and now - self._last > PASTE_ENDS:
            self._pasting = False
            return [*self.feed(_END.encode(), now), *self.tick(now)]
        return self._parsed(None)

    def _parsed(self, sign: str | None) -> list[Message]:
        found: list[Message] = []
        try:
            for message in self._parser.tick() if sign is None else self._parser.feed(sign):
                found += _believed(message)
        except Exception:  # noqa: BLE001 - whatever it is that the parser cannot read, the next key must be read
            self._parser = XTermParser()
        return found


def _believed(message: Message) -> list[Message]:
    """The message, without what could not be drawn; nothing for a size that no terminal has."""
    match message:
        case events.Resize(size=size) if not (0 < size.width <= MOST and 0 < size.height <= MOST):
            return []
        case events.Paste(text=text):
            return [events.Paste(scrub(text))]
        case events.Key(character=str(character)) if scrub(character) != character and not character.isascii():
            return []
    return [message]
