"""What the keys do and what the signs mean."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from sim.tui.keys import Key
from sim.tui.rows import STATES

SIGNS = (
    ("█ resident", "memory that the guest's memfd holds now, as the kernel counts it"),
    ("▓ cached", "memory that the file of the snapshot holds now"),
    ("░ punched", "freed from the memfd for ever: this guest can never run again; it would lie beyond 1x"),
    ("┃ peak", "the most of memfd and cache in the last pause; a sandbox's bar goes from nothing to 2x"),
    ("━ copying", "chunks published of chunks planned; from the point of no return it begins with ◆"),
    ("◆ CONDEMNED", "past the point of no return: what is left is a snapshot or nothing"),
    ("peak 2.00x", "most memory that a pause took, in units of what the guest held when it was frozen"),
    ("▁▂▃▄▅▆▇█", "trend: the peaks of the last pauses, from 1x to 2x, the latest at the right"),
    ("▄ ▪ ·", "pages: partly dirty; clean, as in the build before; zero"),
    ("▶ pages", "of the chunks that copiers are at, where copies are slowed or held"),
    ("△ ▲ ✗", "when a pause began: without punching, with it, and one that ended in discard"),
    ("╵1x ╵2x", "where node memory is with every guest held once, and twice; ┃ is the peak"),
)


def help_text(keys: tuple[Key, ...]) -> str:
    """Signs, states and keys as plain lines."""
    signs = [f"  {sign:<12} {meaning}" for sign, meaning in SIGNS]
    states = "  ".join(f"{glyph} {state}" for state, (glyph, _) in STATES.items())
    lines = ["signs", *signs, "", "states", f"  {states}", ""]
    lines += ["keys", *(f"  {key.shown:<12} {key.help}" for key in keys)]
    return "\n".join([*lines, "", "↓ and pgdn go on, esc closes this page"])


class HelpScreen(ModalScreen[None]):
    """One page over a screen, which stays live."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "close")]

    def __init__(self, keys: tuple[Key, ...]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(help_text(self._keys), markup=False)
