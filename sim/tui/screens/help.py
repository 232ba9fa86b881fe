"""What the keys do and what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from sim.tui.keys import KEYS
from sim.tui.rows import STATES

SIGNS = (
    ("█ resident", "memory that the guest's memfd holds now, as the kernel counts it"),
    ("▓ cached", "memory that the file of the snapshot holds now"),
    ("░ punched", "freed from the memfd for ever: this guest can never run again"),
    ("━ copying", "chunks published of chunks planned; its colour turns at the point of no return"),
    ("◆ CONDEMNED", "past the point of no return: what is left is a snapshot or nothing"),
    ("peak 2.00x", "most memory that a pause took, in units of what the guest held when it was frozen"),
    ("╵1x ╵2x", "where node memory is with every guest held once, and twice; ┃ is the peak"),
)


def help_text() -> str:
    """Keys, signs and states as plain lines."""
    lines = ["keys", *(f"  {key.shown:<12} {key.help}" for key in KEYS)]
    lines += ["", "signs", *(f"  {sign:<12} {meaning}" for sign, meaning in SIGNS)]
    states = "  ".join(f"{glyph} {state}" for state, (glyph, _) in STATES.items())
    return "\n".join([*lines, "", "states", f"  {states}", "", "esc closes this page"])


class HelpScreen(ModalScreen[None]):
    """One page over the fleet, which stays live."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(help_text(), markup=False)
