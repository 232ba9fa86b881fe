"""Every key, once: what the screen binds, the line at its foot and the help all come from here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from textual.binding import Binding

from flags.catalog import did_you_mean
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


EVERYWHERE = (
    Key("space", "space", "play", "play", "do what stands after next:, and go on so by itself; again: stop", 0),
    Key("C", "C", "clock", "clock", "let the clock run, or stop it: it ticks by itself", 4),
    Key("plus,equals_sign", "+", "speed(1)", "faster", "the clock twice as fast", 9),
    Key("minus", "-", "speed(-1)", "slower", "the clock half as fast", 9),
    Key("full_stop,t", "t", "tick", "tick", "one tick: every running guest rewrites its working set", 1),
    Key("1", "1", "show('fleet')", "fleet", "the fleet", 9),
    Key("2", "2", "show('flags')", "flags", "the flags, their rollouts and their source", 3),
    Key("3", "3", "show('faults')", "faults", "the faults: arm, see fire, clear", 3),
    Key("4", "4", "show('memory')", "memory", "the node's memory over time", 3),
    Key("5", "5", "show('log')", "log", "everything that happened; / finds words in it", 4),
    Key("6", "6", "show('map')", "map", "every sandbox of a large fleet as one cell, with totals of each group", 5),
    Key("backspace", "bksp", "drop_waiting", "drop", "drop the request that waits and was made last", 9),
    Key("y", "y", "copy", "copy", "copy what is marked with the mouse, else the run's id", 9),
    Key("R", "R", "restart", "restart", "tear down and start again on the same seed", 5),
    Key("ctrl+z", "ctrl+z", "suspend_process", "suspend", "back to the shell for a while; fg returns", 9),
    Key("question_mark", "?", "help", "help", "this page", 0),
    Key("q", "q", "quit", "quit", "judge, tear everything down, leave", 0),
)
"""What the app binds: for every screen."""

ROLLOUT_KEY = Key("7", "7", "show('rollout')", "rollout", "the stages of a rehearsal, and its decision", 9)
REPLAY = (
    Key("space", "space", "clock", "play", "play or stop", 0),
    Key("plus,equals_sign", "+", "speed(1)", "faster", "faster, up to 16 times", 5),
    Key("minus", "-", "speed(-1)", "slower", "slower, down to a thousandth: a copy takes milliseconds", 5),
    Key("left_square_bracket", "[", "scrub(-1)", "back", "a second back", 2),
    Key("right_square_bracket", "]", "scrub(1)", "on", "a second on", 2),
    Key("left_curly_bracket", "{", "step(-1)", "step back", "the step before, or ten seconds back", 6),
    Key("right_curly_bracket", "}", "step(1)", "step", "the next step, or ten seconds on", 4),
    Key("n", "n", "jump(1)", "next fault", "the next violation or fault", 1),
    Key("N", "N", "jump(-1)", "previous", "the violation or fault before", 3),
    Key("home", "home", "edge(0)", "begin", "to the beginning", 9),
    Key("end", "end", "edge(-1)", "end", "to the end", 9),
    Key("1", "1", "show('fleet')", "fleet", "the fleet", 9),
    Key("2", "2", "show('flags')", "flags", "the flags, their rollouts and their source", 7),
    Key("3", "3", "show('faults')", "faults", "the faults that were armed, and how often they fired", 9),
    Key("4", "4", "show('memory')", "memory", "the node's memory over time", 7),
    Key("5", "5", "show('log')", "log", "everything that happened; / finds words in it", 8),
    Key("6", "6", "show('map')", "map", "every sandbox of a large fleet as one cell, with totals of each group", 8),
    ROLLOUT_KEY,
    Key("y", "y", "copy", "copy", "copy what is marked with the mouse, else the run's id", 9),
    Key("ctrl+z", "ctrl+z", "suspend_process", "suspend", "back to the shell for a while; fg returns", 9),
    Key("question_mark", "?", "help", "help", "this page", 0),
    Key("q", "q", "quit", "quit", "leave", 0),
)
"""What the app binds over a recording: for every screen, before the screen's own."""

ATTACHED = tuple(
    Key("q", "q", "quit", "quit", "leave; the run goes on", 0) if key.action == "quit" else key
    for key in (*EVERYWHERE, ROLLOUT_KEY)
    if key.action.partition("(")[0] in {"show", "copy", "suspend_process", "help", "quit"}
)
"""What the app binds over a run of another process: for every screen."""

STAGE = (
    Key("right,enter", "→", "next", "next beat", "the next beat", 0),
    Key("left", "←", "again", "again", "this beat again, from its seed", 1),
    Key("ctrl+r", "ctrl+r", "reset", "reset", "back to the first beat, at once", 2),
    Key("question_mark", "?", "help", "help", "this page", 9),
    Key("q", "q", "quit", "quit", "judge, tear everything down, leave", 0),
)

FLEET = (
    Key("down,j", "↓ j", "cursor(1)", "down", "move the cursor down", 9),
    Key("up,k", "↑ k", "cursor(-1)", "up", "move the cursor up", 9),
    Key("pagedown", "pgdn", "page(1)", "page down", "move the cursor a page down", 9),
    Key("pageup", "pgup", "page(-1)", "page up", "move the cursor a page up", 9),
    Key("g,home", "g", "edge(0)", "first", "move to the first sandbox", 9),
    Key("G,end", "G", "edge(-1)", "last", "move to the last sandbox", 9),
    Key(
        "x",
        "x",
        "select",
        "select",
        "select or unselect; without a selection, keys act on the cursor",
        3,
    ),
    Key("X", "X", "select_shown", "all shown", "select all that are shown", 9),
    Key("escape", "esc", "unselect", "unselect", "select nothing; then: no filter", 9),
    Key("slash", "/", "filter", "filter", "show only some: part of a name, state, team, template; web-1*; !paused", 3),
    Key(
        "s",
        "s",
        "sort",
        "sort",
        "sort by the next column, ▾ marks it; a click on a title does too, twice: backwards",
        4,
    ),
    Key("S", "S", "sort_backwards", "backwards", "sort the other way round", 9),
    Key("enter", "⏎", "app.sandbox", "look", "one sandbox in full: its pages, its pause, its events", 3),
    Key("p", "p", "pause", "pause", "pause: freeze, copy, tear down", 0),
    Key("P,a", "P", "pause_all", "all", "pause every running sandbox", 1),
    Key("r", "r", "resume", "resume", "resume from the newest snapshot, and work at a tick; a refusal says why", 0),
    Key("V", "V", "resume_all", "resume all", "resume every paused sandbox", 2),
    Key("v", "v", "salvage", "salvage", "copy once more what is left of a stranded build", 9),
    Key("d,delete", "d", "kill", "kill", "end for good, after a question", 9),
    Key("f", "f", "toggle_punch", "punch", "flip memfd-punch-on-snapshot (a rollout becomes on for all)", 0),
    Key("b", "b", "toggle_background", "background", "flip memfd-background-copy", 4),
    Key(
        "e",
        "e",
        "arm",
        "break",
        "arm a full disk: copy.write gives ENOSPC at chunk 3",
        1,
    ),
    Key("E", "E", "arm_all", "fail all", "arm the same on every sandbox", 9),
    Key("c", "c", "clear", "clear", "clear every armed fault", 2),
    Key("K", "K", "kill_switch", "kill switch", "punching off for all, at once", 9),
)

SANDBOX = (
    Key("escape,enter", "esc", "app.pop_screen", "fleet", "back to the fleet", 0),
    Key("j,down", "↓ j", "next(1)", "next", "the next sandbox", 4),
    Key("k,up", "↑ k", "next(-1)", "previous", "the sandbox before", 9),
    Key("p", "p", "pause", "pause", "pause: freeze, copy, tear down", 0),
    Key("r", "r", "resume", "resume", "resume from the newest snapshot; a refusal says why", 0),
    Key("v", "v", "salvage", "salvage", "copy once more what is left of its stranded build", 9),
    Key("h", "h", "stop_copy", "stop copy", "stop its copy at the next chunk, or let it go on", 1),
    Key("n", "n", "step", "step", "let a copy that is stopped go on by one chunk", 1),
    Key("s", "s", "slow", "slow", "slow its copies down 200 times, or not; what is slow is in no figure", 2),
    Key("e", "e", "arm", "break", "arm a full disk: copy.write gives ENOSPC at chunk 3", 3),
    Key("c", "c", "clear", "clear", "clear every armed fault", 9),
    Key("f", "f", "toggle_punch", "punch", "flip memfd-punch-on-snapshot (a rollout becomes on for all)", 5),
)

MEMORY = (
    Key("escape", "esc", "app.pop_screen", "fleet", "back to the fleet", 0),
    Key("P,a", "P", "pause_all", "all", "pause every running sandbox", 1),
    Key("V", "V", "resume_all", "resume all", "resume every paused sandbox", 2),
    Key("f", "f", "toggle_punch", "punch", "flip memfd-punch-on-snapshot (a rollout becomes on for all)", 1),
    Key("w", "w", "window", "window", "the chart: all of the run without idle times, 5 minutes, 30 seconds", 9),
    Key("T", "T", "twin", "twin", "the twin: this fleet and seed twice more, flag off and on; again: end it", 0),
)

FLAGS = (
    Key("escape", "esc", "undo", "back", "forget what is being edited; then: back to the fleet", 0),
    Key("j,down", "↓ j", "cursor(1)", "next", "the next flag", 9),
    Key("k,up", "↑ k", "cursor(-1)", "previous", "the flag before", 9),
    Key("g,home", "g", "edge(0)", "first", "the first flag", 9),
    Key("G,end", "G", "edge(-1)", "last", "the last flag", 9),
    Key("right,l", "◂ ▸", "percent(1)", "1%", "one percent more; shift: ten", 0),
    Key("left,h", "←", "percent(-1)", "1% less", "one percent less; shift: ten", 9),
    Key("shift+right,L", "L", "percent(10)", "10% more", "ten percent more", 9),
    Key("shift+left,H", "H", "percent(-10)", "10% less", "ten percent less", 9),
    Key("w", "w", "by", "by kind", "draw by sandbox, team, template or cluster", 3),
    Key("enter", "⏎", "set", "set", "set the rollout", 0),
    Key("f", "f", "flip", "flip", "flip the flag under the cursor (a rollout becomes on for all)", 1),
    Key("K", "K", "kill_switch", "kill switch", "punching off for all, at once", 0),
    Key("d", "d", "outage('drop')", "drop", "drop the streams of the flag source once; the client comes back", 2),
    Key("z", "z", "outage('freeze')", "freeze", "freeze them, half-open: no error, only a lease sees it", 2),
    Key("D", "D", "outage('down')", "down", "take the source down: the last values stay in force", 3),
    Key("u", "u", "outage('recover')", "restore", "make the flag source sound again", 2),
)

FAULTS = (
    Key("escape", "esc", "app.pop_screen", "back", "back to the fleet", 0),
    Key("j,down", "↓ j", "cursor(1)", "next", "the next point", 9),
    Key("k,up", "↑ k", "cursor(-1)", "previous", "the point before", 9),
    Key("g,home", "g", "edge(0)", "first", "the first point", 9),
    Key("G,end", "G", "edge(-1)", "last", "the last point", 9),
    Key("right,l", "◂ ▸", "kind(1)", "kind", "the next kind of fault that makes sense there", 0),
    Key("left,h", "←", "kind(-1)", "kind before", "the kind before", 9),
    Key("o", "o", "place(1)", "place", "in another chunk", 0),
    Key("w", "w", "targets", "targets", "on the selected sandboxes, or on every one", 2),
    Key("b", "b", "kernel", "by kernel", "have the kernel itself give the errno, or not", 4),
    Key("enter,e", "⏎", "arm", "arm", "arm it, until it is cleared", 0),
    Key("c", "c", "clear", "clear", "clear every armed fault", 0),
    Key("p", "p", "pause", "pause", "pause the selected, else every running sandbox, and see it fire", 1),
    Key("r", "r", "resume", "resume", "resume the selected, else every paused sandbox", 1),
    Key("N", "N", "restart_node", "restart node", "start the node again after a crash", 3),
)
LOG = (
    Key("escape", "esc", "back", "back", "drop the words that are looked for; then: back to the fleet", 0),
    Key("slash", "/", "find", "find", "show only sentences with these words", 0),
    Key("f", "f", "fine", "details", "chunks, scans and samples too, or not", 1),
    Key("j,down", "↓ j", "scroll(1)", "down", "a line down", 9),
    Key("k,up", "↑ k", "scroll(-1)", "up", "a line up", 9),
    Key("pagedown", "pgdn", "page(1)", "page down", "a page down", 9),
    Key("pageup", "pgup", "page(-1)", "page up", "a page up", 9),
    Key("g,home", "g", "edge(0)", "first", "to the first", 9),
    Key("G,end", "G", "edge(-1)", "last", "to the last, and follow", 9),
)
MAP = (
    Key("escape", "esc", "app.pop_screen", "fleet", "back to the fleet", 0),
    Key("m", "m", "by", "by", "by state, memory or decision", 0),
)
ROLLOUT = (Key("escape", "esc", "app.pop_screen", "fleet", "back to the fleet", 0),)
ASKING = frozenset(
    {
        "arm",
        "arm_all",
        "clear",
        "drop_waiting",
        "flip",
        "kill",
        "kill_switch",
        "outage",
        "pause",
        "pause_all",
        "play",
        "restart",
        "restart_node",
        "resume",
        "resume_all",
        "salvage",
        "set",
        "slow",
        "step",
        "stop_copy",
        "toggle_background",
        "toggle_punch",
        "twin",
    }
)
"""Actions that ask something of a run: refused where it can only be watched."""


OF_SCREENS = (FLEET, SANDBOX, MEMORY, FLAGS, FAULTS, LOG, MAP, ROLLOUT)
OF_TEXTUAL = frozenset({"ctrl+p", "ctrl+c", "ctrl+q", "tab", "shift+tab", "enter", "escape"})
"""Keys that textual or its widgets need."""


def name_of(key: Key) -> str:
    """What its action is called: `pause_all`, `show('log')`."""
    return key.action.removeprefix("app.")


def refused(own: Mapping[str, str]) -> str | None:
    """Why these keys (by action) cannot be added to the built-in ones; None where they can."""
    keys = [*EVERYWHERE, *REPLAY, ROLLOUT_KEY, *(key for screen in OF_SCREENS for key in screen)]
    taken = {each: name_of(key) for key in keys for each in key.keys.split(",")}
    for action, key in own.items():
        if action not in taken.values():
            return f"no action is called {action}; {did_you_mean(action, set(taken.values()))}"
        if not key or "," in key or key in OF_TEXTUAL:
            return f"{key!r} is no key for {action}; take one such as f5 or ctrl+t"
        if (has := taken.get(_long(key))) is not None:
            return f"{key} is taken: it does {has}; take another key for {action}"
        taken[_long(key)] = action
    return None


def _long(key: str) -> str:
    """`slash` for `/`, as textual names it."""
    return next(iter(Binding.make_bindings([Binding(key, "", "")]))).key


def with_own(keys: Iterable[Key], own: Mapping[str, str]) -> tuple[Key, ...]:
    """The same, each with the key of one's own beside its built-in ones."""
    return tuple(replace(key, shown=f"{key.shown} {own[name_of(key)]}") if name_of(key) in own else key for key in keys)


def asks(key: Key) -> bool:
    """True for a key whose action is one of those."""
    return key.action.partition("(")[0] in ASKING


def key_line(
    keys: tuple[Key, ...], cells: int, *, everywhere: tuple[Key, ...] = EVERYWHERE, watched: bool = False
) -> Spans:
    """The keys that fit on one line: help first, whatever the width, then the screen's own, then those of every screen;
    of a run that is only `watched` those that do not ask. A click on one is as good."""
    shown = [(key, "screen.") for key in keys] + [(key, "app.") for key in everywhere]
    shown.sort(key=lambda each: each[0].action != "help")
    pieces = [
        Piece(-1 if key.action == "help" else key.rank, said(key, of))
        for key, of in shown
        if key.rank < 9 and not (watched and asks(key))
    ]
    return (Span(" "), *line_of(pieces, cells - 2, gap=2))


def said(key: Key, of: str) -> Spans:
    """`p pause`; `of` is whose action it is: `app.` or `screen.`."""
    action = key.action if key.action.startswith("app.") else of + key.action
    return (Span(key.shown, "title", action), Span(f" {key.short}", "muted", action))
