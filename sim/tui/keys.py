"""Every key, once: what the screen binds, the line at its foot and the help all come from here."""

from __future__ import annotations

from dataclasses import dataclass

from sim.tui.spans import Piece, Span, Spans, line_of


@dataclass(frozen=True, slots=True)
class Key:
    """`keys` as textual names them; the higher the rank, the earlier it leaves a narrow line (9: never on it)."""

    keys: str
    shown: str
    action: str
    short: str
    help: str
    rank: int


KEYS = (
    Key("down,j", "↓ j", "cursor(1)", "down", "move the cursor down", 9),
    Key("up,k", "↑ k", "cursor(-1)", "up", "move the cursor up", 9),
    Key("pagedown", "pgdn", "page(1)", "page down", "move the cursor a page down", 9),
    Key("pageup", "pgup", "page(-1)", "page up", "move the cursor a page up", 9),
    Key("g,home", "g", "edge(0)", "first", "move to the first sandbox", 9),
    Key("G,end", "G", "edge(-1)", "last", "move to the last sandbox", 9),
    Key(
        "space",
        "space",
        "select",
        "select",
        "select or unselect; without a selection, keys act on the cursor",
        3,
    ),
    Key("escape", "esc", "unselect", "unselect", "select nothing", 9),
    Key("p", "p", "pause", "pause", "pause: freeze, copy, tear down", 0),
    Key("P,a", "P", "pause_all", "pause all", "pause every running sandbox", 1),
    Key("r", "r", "resume", "resume", "resume from the newest snapshot; a refusal says why", 0),
    Key("t", "t", "tick", "tick", "one tick: every running guest rewrites its working set", 1),
    Key("f", "f", "toggle_punch", "punch", "flip memfd-punch-on-snapshot (a rollout becomes on for all)", 0),
    Key("b", "b", "toggle_background", "background", "flip memfd-background-copy", 4),
    Key(
        "e",
        "e",
        "arm",
        "fail copy",
        "arm a full disk: copy.write gives ENOSPC at chunk 3",
        1,
    ),
    Key("E", "E", "arm_all", "fail all", "arm the same on every sandbox", 9),
    Key("c", "c", "clear", "clear", "clear every armed fault", 2),
    Key("R", "R", "app.restart", "restart", "tear down and start again on the same seed", 5),
    Key("question_mark", "?", "help", "help", "this page", 0),
    Key("q", "q", "app.quit", "quit", "judge, tear everything down, leave", 0),
)


def key_line(cells: int) -> Spans:
    """The keys that fit on one line."""
    pieces = [
        Piece(key.rank, (Span(key.shown, "title"), Span(f" {key.short}", "muted"))) for key in KEYS if key.rank < 9
    ]
    return (Span(" "), *line_of(pieces, cells - 2, gap=2))
