"""Reports as values: sections of tables, bullets, paragraphs and code; rendered as text and as Markdown.

The HTML of the same values is made by the templates of sim/report/html.py. Every renderer escapes; no value is markup.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sim.files.figures import Figure, shown
from sim.report.words import Tone, scrub

WIDTH = 80
"""Columns of text if there is no terminal to take the width from."""


@dataclass(frozen=True, slots=True)
class CellSpan:
    """Words with a meaning, or literal code."""

    text: str
    tone: Tone = "plain"
    code: bool = False


Words = str | CellSpan | tuple[str | CellSpan, ...]
"""One line of prose: plain, or in spans."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a head; an empty head is for rows of label and value.

    `align` has one character per column, the last for all further ones: `<` left, `>` right, `~` prose, which may wrap.
    In text a table that is too wide comes in blocks below each other; the first `keys` columns are in each.
    """

    head: Sequence[Words]
    rows: Sequence[Sequence[Words]]
    align: str = "<"
    keys: int = 1

    def aligned(self, column: int) -> str:
        """How this column is aligned."""
        return self.align[min(column, len(self.align) - 1)]


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: Sequence[Words]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Prose, wrapped."""

    words: Words


@dataclass(frozen=True, slots=True)
class Code:
    """Lines that stand as they are."""

    text: str


Part = Table | Bullets | Paragraph | Code


@dataclass(frozen=True, slots=True)
class Section:
    """Parts under an optional title; `note` says how its figures are known. A section without content is left out."""

    title: Words
    parts: tuple[Part, ...]
    note: Words = ""

    @property
    def content(self) -> tuple[Part, ...]:
        """The parts that are not empty."""
        return tuple(each for each in self.parts if _has_content(each))


def facts(rows: Iterable[tuple[str, Words | None]]) -> Table:
    """Labels and values; empty values are left out."""
    return Table((), [(label, value) for label, value in rows if value], "<~")


def figure_table(figures: Iterable[Figure]) -> Table:
    """Label, value with its unit, how it is known."""
    rows = [(each.label, shown(each), f"({each.known}{': ' + each.note if each.note else ''})") for each in figures]
    return Table((), rows, "~")


def toned(text: str, tone: Tone) -> CellSpan:
    """Words with a meaning."""
    return CellSpan(text, tone)


def code(text: str) -> CellSpan:
    """Words to be typed or found exactly as written."""
    return CellSpan(text, code=True)


def spans(words: Words) -> tuple[CellSpan, ...]:
    """The spans of a line, none of which holds a control character."""
    parts = words if isinstance(words, tuple) else (words,)
    found = (each if isinstance(each, CellSpan) else CellSpan(each) for each in parts)
    return tuple(CellSpan(scrub(each.text), each.tone, each.code) for each in found)


def plain(words: Words) -> str:
    """A line without its tones."""
    return "".join(each.text for each in spans(words))


def _has_content(part: Part) -> bool:
    match part:
        case Table(rows=rows):
            return bool(rows)
        case Bullets(items=items):
            return bool(items)
        case Paragraph(words=words):
            return bool(plain(words))
        case Code(text=text):
            return bool(text)


# --- text

_GAP = "  "
_FIXED = "\u00a0"  # a space at which no line ends
_PROSE = 20  # columns that prose gets at least, else it comes in a block below
_WORD = re.compile(rf"(?:\S|{_FIXED})+")
_STYLES: dict[Tone, str] = {
    "plain": "",
    "muted": "dim",
    "good": "green",
    "calm": "cyan",
    "busy": "blue",
    "warn": "yellow",
    "bad": "red",
}
_Line = Sequence[CellSpan]
_Cell = Sequence[_Line]


def text(item: Section | Part | Iterable[Section | Part], *, width: int | None = None) -> str:
    """As text of at most `width` columns, where no single word and no column that does not wrap is wider.

    Without a width it is as the terminal of standard output is, in colours; where that is no terminal, WIDTH and plain.
    NO_COLOR takes the colours away, FORCE_COLOR keeps them where there is no terminal.
    """
    coloured = sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))
    styled = width is None and coloured and not os.environ.get("NO_COLOR")
    if width is None:
        width = max(_PROSE, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDTH
    every = [item] if isinstance(item, Section | Part) else item
    blocks = ("\n".join(_shown(line, styled=styled) for line in _lines(each, width)) for each in every)
    return "\n\n".join(filter(None, blocks))


def _lines(item: Section | Part, width: int) -> list[_Line]:
    if not isinstance(item, Section):
        return _part(item, width) if _has_content(item) else []
    if not item.content:
        return []
    if not plain(item.title):
        return [line for each in item.content for line in _part(each, width)]
    note = [Paragraph(item.note)] if plain(item.note) else []
    below = [line for each in (*note, *item.content) for line in _part(each, width - len(_GAP))]
    return [*_wrapped(_cell_of(item.title), width), *((CellSpan(_GAP), *line) for line in below)]


def _part(part: Part, width: int) -> list[_Line]:
    match part:
        case Table():
            return _blocks(part, width)
        case Bullets(items=items):
            return [line for each in items for line in _bullet(_wrapped(_cell_of(each), width - len(_GAP)))]
        case Paragraph(words=words):
            return list(_wrapped(_cell_of(words), width))
        case Code(text=code):
            return [[CellSpan(scrub(line))] for line in code.splitlines()]


def _bullet(cell: _Cell) -> list[_Line]:
    return [(CellSpan(_GAP if at else "- "), *line) for at, line in enumerate(cell)]


def _cell_of(words: Words) -> _Cell:
    """Its lines; within code no space ends one."""
    found: list[list[CellSpan]] = [[]]
    for each in spans(words):
        first, *more = (each.text.replace(" ", _FIXED) if each.code else each.text).expandtabs(4).split("\n")
        found[-1].append(CellSpan(first, each.tone))
        found += [[CellSpan(line, each.tone)] for line in more]
    return found


def _wrapped(cell: _Cell, width: int) -> _Cell:
    """Broken at spaces only and never within code, so that a path or a command can be copied whole."""
    found: list[_Line] = []
    for line in cell:
        whole = "".join(each.text for each in line)
        if _columns(line) <= width:
            found.append(line)
            continue
        start = end = 0
        for word in _WORD.finditer(whole):
            if word.start() > start and _columns([CellSpan(whole[start : word.end()])]) > width:
                found.append(_cut(line, start, end))
                start = word.start()
            end = word.end()
        found.append(_cut(line, start, end))
    return found


def _cut(line: _Line, start: int, end: int) -> _Line:
    found, at = [], 0
    for each in line:
        found.append(CellSpan(each.text[max(0, start - at) : max(0, end - at)], each.tone))
        at += len(each.text)
    return found


def _columns(line: _Line) -> int:
    from rich.cells import cell_len

    return sum(cell_len(each.text) for each in line)


def _widest(cells: Iterable[_Cell]) -> int:
    return max((_columns(line) for cell in cells for line in cell), default=0)


def _blocks(table: Table, width: int) -> list[_Line]:
    """The table in as many blocks as it takes to fit into `width`; a row that is empty in a block is left out of it."""
    rows = [[_cell_of(cell) for cell in row] for row in ([table.head] if table.head else []) + list(table.rows)]
    columns = range(len(rows[0]))
    natural = [_widest(row[at] for row in rows) for at in columns]
    needs = [min(each, _PROSE) if table.aligned(at) == "~" else each for at, each in enumerate(natural)]
    keys, groups = list(columns[: table.keys]), list[list[int]]()
    for at in columns[table.keys :]:
        taken = [*keys, *(groups[-1] if groups else []), at]
        if not groups or sum(needs[each] for each in taken) + len(_GAP) * (len(taken) - 1) > width:
            groups.append([])
        groups[-1].append(at)
    lines: list[_Line] = []
    for number, group in enumerate(groups or [[]]):
        shown = [
            row
            for at, row in enumerate(rows)
            if (table.head and not at) or _is_in(row, group) or not (number or _is_in(row, columns[table.keys :]))
        ]
        lines += [[]] if lines else []
        lines += _block(table, [*keys, *group], shown, natural, needs, width)
    return lines


def _is_in(row: Sequence[_Cell], group: Iterable[int]) -> bool:
    """Whether the row has any text in these columns."""
    return any(span.text for at in group for line in row[at] for span in line)


def _block(
    table: Table,
    taken: Sequence[int],
    rows: Sequence[Sequence[_Cell]],
    natural: Sequence[int],
    needs: Sequence[int],
    width: int,
) -> Iterator[_Line]:
    """The columns `taken`; prose gets the width that the others leave."""
    spare = width - sum(needs[each] for each in taken) - len(_GAP) * (len(taken) - 1)
    cells, widths = [], []
    for at in taken:
        room = max(needs[at], min(natural[at], needs[at] + spare))
        spare -= room - needs[at]
        cells.append([_wrapped(row[at], room) if table.aligned(at) == "~" else row[at] for row in rows])
        widths.append(_widest(cells[-1]))
    for row in zip(*cells, strict=True):
        for line in zip_longest(*row, fillvalue=()):
            found: list[CellSpan] = []
            for at, part, wide in zip(taken, line, widths, strict=True):
                pad = CellSpan(" " * (wide - _columns(part)))
                found += (pad, *part) if table.aligned(at) == ">" else (*part, pad)
                found.append(CellSpan(_GAP))
            yield found


def _shown(line: _Line, *, styled: bool) -> str:
    if not styled:
        return "".join(each.text for each in line).replace(_FIXED, " ").rstrip()
    from rich.color import ColorSystem
    from rich.style import Style

    while line and not line[-1].text.strip():
        line = line[:-1]
    system = ColorSystem.STANDARD
    made = (Style.parse(_STYLES[each.tone]).render(each.text, color_system=system) for each in line if each.text)
    return "".join(made).replace(_FIXED, " ").rstrip()


# --- Markdown

_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*[]|~#$"} | {"<": "&lt;", "&": "&amp;"})
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word it is no markup
_OPENING = re.compile(r"^(?:[-+=]+|\d+[.)])(?=\s|$)|^>")


def markdown(item: Section | Part | Iterable[Section | Part], level: int = 2) -> str:
    """As Markdown; titles are headings of that level. No newline at the end."""
    every = [item] if isinstance(item, Section | Part) else item
    blocks = [block for each in every for block in _markdown_blocks(each, level)]
    return "\n\n".join(blocks)


def _markdown_blocks(item: Section | Part, level: int) -> list[str]:
    if not isinstance(item, Section):
        return [_markdown_part(item)] if _has_content(item) else []
    if not item.content:
        return []
    parts = [_markdown_part(each) for each in item.content]
    note = markdown_words(item.note)
    return [
        *([f"{'#' * level} {markdown_words(item.title)}"] if plain(item.title) else []),
        *([note] if note else []),
        *parts,
    ]


def _markdown_part(part: Part) -> str:
    match part:
        case Table(head=head, rows=rows):
            if not head:
                return "\n".join(f"- {markdown_words(row[0])}: {_joined(row[1:])}" for row in rows)
            rule = ["---:" if part.aligned(at) == ">" else "---" for at in range(len(head))]
            lines = [[_cell(each) for each in head], rule, *([_cell(each) for each in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Bullets(items=items):
            return "\n".join(f"- {markdown_words(each)}" for each in items)
        case Paragraph(words=words):
            return markdown_words(words)
        case Code(text=code):
            return fence(code)


def _joined(cells: Iterable[Words]) -> str:
    return ", ".join(filter(None, map(markdown_words, cells)))


def _cell(words: Words) -> str:
    """Code that holds a pipe would end the cell: GitHub takes it escaped."""
    return "".join(
        _span(each).replace("|", "\\|") if each.code else _span(CellSpan(each.text)) for each in spans(words)
    ).strip()


def markdown_words(words: Words) -> str:
    """A line that Markdown shows as it is; what has a tone is bold."""
    made = "".join(map(_span, spans(words))).strip()
    return _OPENING.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", made)


def _span(span: CellSpan) -> str:
    line = re.sub(r"\s+", " ", span.text)
    if span.code and line.strip():
        mark = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
        pad = " " if "`" in line else ""
        return f"{mark}{pad}{line}{pad}{mark}"
    shown = _UNDERSCORE.sub(r"\_", line.translate(_MARKDOWN))
    return f"**{shown}**" if span.tone in {"good", "warn", "bad"} and shown.strip() == shown != "" else shown


def fence(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    mark = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{mark}text\n{scrub(text)}\n{mark}"
