"""What every sign becomes on a terminal that has no more than ASCII. Each is one cell wide, as what it stands for."""

from __future__ import annotations

ASCII: dict[str, str] = {
    "●": "*",  # running, on
    "○": "o",  # off
    "◌": ".",  # created
    "◐": "%",  # pausing, a rollout
    "■": "#",  # paused, held
    "◎": "@",  # checkpointing
    "◑": "&",  # resuming
    "✗": "x",  # discarded
    "†": "+",  # killed
    "◆": "!",  # condemned
    "‼": "!",
    "✓": "v",
    "▶": ">",
    "◂": "<",
    "▸": ">",
    "▾": "v",
    "▴": "^",
    "╵": "'",
    "┃": "|",
    "│": "|",
    "─": "-",
    "━": "=",
    "█": "#",
    "▓": "=",
    "▒": "+",
    "░": ":",
    "·": ".",
    "▪": ",",  # clean pages
    "△": "^",  # pauses over time: without punching, with it
    "▲": "A",
    "┄": ".",
    "…": "~",
    "→": ">",
    "←": "<",
    "↑": "^",
    "↓": "v",
    "⏎": "e",
    "▁": "_",
    "▂": "_",
    "▃": ".",
    "▄": "-",
    "▅": "-",
    "▆": "=",
    "▇": "=",
}
OTHER = "?"
_TABLE = str.maketrans(ASCII)


def to_ascii(data: str) -> str:
    """Signs by the table, frames of boxes by their shape, and what nobody thought of as a question mark."""
    data = data.translate(_TABLE)
    return data if data.isascii() else "".join(each if each.isascii() else _shape(each) for each in data)


def _shape(sign: str) -> str:
    if "\u2500" <= sign <= "\u257f":  # box drawing: a line across, a line down, or a corner
        return "-" if sign in "┄┅┈┉╌╍═╴╶╸╺╼╾" else "|" if sign in "┆┇┊┋╎╏║╷╹╻╽╿" else "+"
    if "\u2580" <= sign <= "\u259f":  # block elements: textual's scroll bars and borders
        return "#"
    return OTHER
