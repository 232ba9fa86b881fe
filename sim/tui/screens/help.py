"""What the keys do and what the signs mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.columns import Columns
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from sim.tui.keys import Key
from sim.tui.rows import STATES

SIGNS = (
    ("█ resident", "memory that the guest's memfd has now, as the kernel counts it"),
    ("▓ cached", "memory that the file of the snapshot has now"),
    ("◦ punched", "freed from the memfd for ever: nothing is there, and this guest can never run again"),
    ("┃ peak", "the most of memfd and cache in the last pause; a sandbox's bar goes from nothing to 2x"),
    ("━ copying", "chunks published of chunks planned; from the point of no return it begins with ◆"),
    ("◆ CONDEMNED", "past the point of no return: what is left is a snapshot or nothing"),
    ("peak 2.00x", "most memory that a pause took, in units of what the guest had when it was frozen"),
    ("▁▂▃▄▅▆▇█", "trend: the peaks of the last pauses, from 1x to 2x, the latest at the right"),
    ("▄ ▪ ·", "pages: partly dirty; clean, as in the build before; zero"),
    ("▶ pages", "of the chunks that copiers are at, where copies are slowed or stopped"),
    ("△ ▲ ✗", "when a pause began: without punching, with it, and one that ended in discard"),
    ("╵1x ╵2x", "where node memory is with every guest there once, and twice; ┃ is the peak"),
)


def page(keys: tuple[Key, ...]) -> Group:
    """Keys, the screen's own first, then signs and states; what is too long for a line goes on below where it began."""
    states = Columns([Text(f"{glyph} {state}") for state, (glyph, _) in STATES.items()], padding=(0, 2))
    told = _table((key.shown, key.help) for key in keys)
    return Group(
        *("keys", told, ""),
        *("signs", _table(SIGNS), ""),
        *("states", Padding(states, (0, 2)), ""),
        "↓ and pgdn go on, esc closes this page",
    )


def _table(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(width=12, no_wrap=True)
    table.add_column(ratio=1)
    for sign, meaning in rows:
        table.add_row(Text(sign), Text(meaning))
    return table


class HelpScreen(ModalScreen[None]):
    """One page over a screen, which stays live."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "close")]

    def __init__(self, keys: tuple[Key, ...]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(page(self._keys))
