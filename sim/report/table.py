"""What a report says, as values: sections of tables, bullets, paragraphs and code; rendered as text and as Markdown.

The HTML of the same values is made by the templates of sim/report/html.py. Every renderer escapes; no value is markup.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sim.files.figures import Figure, shown
from sim.report.words import Tone, scrub

if TYPE_CHECKING:
    from rich.table import Table as Block
    from rich.text import Text

WIDTH = 80
"""Columns of text where no terminal says how many it has."""


@dataclass(frozen=True, slots=True)
class Span:
    """Words with a meaning, or literal code."""

    text: str
    tone: Tone = "plain"
    code: bool = False


Words = str | Span | tuple[str | Span, ...]
"""One line of prose: plain, or in spans."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a head; an empty head is for rows of label and value.

    `align` has a character a column, the last for all that follow: `<` left, `>` right, `~` prose, which may be
    wrapped. In text a table that is too wide comes in blocks below each other; the first `keys` columns are in each.
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
    """Parts under a title, if it has one; `note` says how its figures are known. Without content it is left out."""

    title: Words
    parts: tuple[Part, ...]
    note: Words = ""

    @property
    def content(self) -> tuple[Part, ...]:
        """The parts that say something."""
        return tuple(each for each in self.parts if _is_said(each))


def facts(rows: Iterable[tuple[str, Words | None]]) -> Table:
    """Labels and values; a value that is empty is left out."""
    return Table((), [(label, value) for label, value in rows if value], "<~")


def figure_table(figures: Iterable[Figure]) -> Table:
    """Label, value with its unit, how it is known."""
    rows = [(each.label, shown(each), f"({each.known}{': ' + each.note if each.note else ''})") for each in figures]
    return Table((), rows, "<<~")


def toned(text: str, tone: Tone) -> Span:
    """Words with a meaning."""
    return Span(text, tone)


def code(text: str) -> Span:
    """Words that are to be typed or found as they stand."""
    return Span(text, code=True)


def spans(words: Words) -> tuple[Span, ...]:
    """The spans of a line, none of which holds a control character."""
    parts = words if isinstance(words, tuple) else (words,)
    found = (each if isinstance(each, Span) else Span(each) for each in parts)
    return tuple(Span(scrub(each.text), each.tone, each.code) for each in found)


def plain(words: Words) -> str:
    """A line without its tones."""
    return "".join(each.text for each in spans(words))


def _is_said(part: Part) -> bool:
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

_GAP = 2
_FIXED = "\u00a0"  # a space at which no line ends
_PROSE = 20  # columns that prose gets at least, else it comes in a block below
_STYLES: dict[Tone, str] = {
    "plain": "",
    "muted": "dim",
    "good": "green",
    "calm": "cyan",
    "busy": "blue",
    "warn": "yellow",
    "bad": "red",
}


def text(said: Section | Part | Iterable[Section | Part], *, width: int | None = None) -> str:
    """As text of at most `width` columns, where no single word and no column that does not wrap is wider.

    Without a width it is as the terminal of standard output is, in colours; where that is no terminal, WIDTH and plain.
    """
    styled = width is None and sys.stdout.isatty()
    if width is None:
        width = max(_PROSE, shutil.get_terminal_size().columns) if styled else WIDTH
    every = [said] if isinstance(said, Section | Part) else said
    blocks = ("\n".join(_lines(each, width, styled=styled)) for each in every)
    return "\n\n".join(filter(None, blocks))


def _lines(said: Section | Part, width: int, *, styled: bool) -> list[str]:
    if not isinstance(said, Section):
        return _part(said, width, styled=styled) if _is_said(said) else []
    if not said.content:
        return []
    if not plain(said.title):
        return [line for each in said.content for line in _part(each, width, styled=styled)]
    lines = _hanging("", said.title, width, styled=styled)
    notes: tuple[Part, ...] = (Paragraph(said.note),)
    for each in notes + said.content if plain(said.note) else said.content:
        lines += [f"  {line}".rstrip() for line in _part(each, width - 2, styled=styled)]
    return lines


def _part(part: Part, width: int, *, styled: bool) -> list[str]:
    match part:
        case Table():
            blocks = [_rendered(each, styled=styled) for each in _blocks(part, width)]
            return [line for at, lines in enumerate(blocks) for line in ([""] if at else []) + lines]
        case Bullets(items=items):
            return [line for each in items for line in _hanging("- ", each, width, styled=styled)]
        case Paragraph(words=words):
            return _hanging("", words, width, styled=styled)
        case Code(text=code):
            return [scrub(line) for line in code.splitlines()]


def _hanging(start: str, words: Words, width: int, *, styled: bool) -> list[str]:
    lines = _rendered(_wrapped(_rich(words), width - len(start)), styled=styled)
    return [f"{' ' * len(start) if at else start}{line}" for at, line in enumerate(lines)]


def _rich(words: Words) -> Text:
    from rich.text import Text

    return Text.assemble(
        *((each.text.replace(" ", _FIXED) if each.code else each.text, _STYLES[each.tone]) for each in spans(words)),
        tab_size=4,
    )


def _wrapped(words: Text, width: int) -> Text:
    """Broken at spaces only and never within code, so that a path or a command can be copied whole."""
    from rich.cells import cell_len
    from rich.text import Text

    lines: list[Text] = []
    for line in words.split("\n", allow_blank=True):
        start, cuts = 0, []
        for word in re.finditer(rf"(?:\S|{_FIXED})+", line.plain):
            if word.start() > start and cell_len(line.plain[start : word.end()]) > width:
                start = word.start()
                cuts.append(start)
        lines += line.divide(cuts)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _blocks(table: Table, width: int) -> Iterator[Block]:
    """The table in as many blocks as it takes to fit into `width`."""
    rows = [[_rich(cell) for cell in row] for row in ([table.head] if table.head else []) + list(table.rows)]
    columns = range(len(rows[0]))
    natural = [max(_width(row[at]) for row in rows) for at in columns]
    needs = [min(each, _PROSE) if table.aligned(at) == "~" else each for at, each in enumerate(natural)]
    keys, groups = list(columns[: table.keys]), list[list[int]]()
    for at in columns[table.keys :]:
        if not groups or sum(needs[each] + _GAP for each in [*keys, *groups[-1]]) + needs[at] > width:
            groups.append([])
        groups[-1].append(at)
    for group in groups or [[]]:
        taken = [*keys, *group]
        spare = width - sum(needs[each] + _GAP for each in taken) + _GAP
        shown = rows if len(groups) < 2 else _with_content(rows, group, headed=bool(table.head))
        cells: list[list[Text]] = []
        for at in taken:
            room = max(needs[at], min(natural[at], needs[at] + spare))
            spare -= room - needs[at]
            prose = table.aligned(at) == "~"
            cells.append([_wrapped(row[at], room) if prose else row[at] for row in shown])
        yield _block(table, taken, cells)


def _width(words: Text) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, words.plain.split("\n")))


def _with_content(rows: Sequence[list[Text]], group: Sequence[int], *, headed: bool) -> list[list[Text]]:
    """Of a block the rows that have a cell there."""
    return [row for number, row in enumerate(rows) if (headed and not number) or any(row[at].plain for at in group)]


def _block(table: Table, taken: Sequence[int], cells: Sequence[Sequence[Text]]) -> Block:
    """Of the cells of each column, the head's first."""
    from rich.table import Table as Block

    headed = bool(table.head)
    block = Block(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=headed)
    for at, column in zip(taken, cells, strict=True):
        justify: Literal["left", "right"] = "right" if table.aligned(at) == ">" else "left"
        width = max(map(_width, column), default=0)
        block.add_column(column[0] if headed else "", justify=justify, width=width, no_wrap=True)
    for row in list(zip(*cells, strict=True))[headed:]:
        block.add_row(*row)
    return block


def _rendered(what: Block | Text, *, styled: bool) -> list[str]:
    from io import StringIO

    from rich.console import Console

    console = Console(
        file=StringIO(),
        width=10_000,  # what is rendered knows its own width: nothing is cropped or folded here
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    with console.capture() as captured:
        console.print(what)
    return [line.replace(_FIXED, " ").rstrip() for line in captured.get().removesuffix("\n").split("\n")]


# --- Markdown

_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*[]|~#$"} | {"<": "&lt;", "&": "&amp;"})
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word it is no markup
_OPENING = re.compile(r"^(?:[-+=]+|\d+[.)])(?=\s|$)|^>")


def markdown(said: Section | Part | Iterable[Section | Part], level: int = 2) -> str:
    """As Markdown; titles are headings of that level. No newline at the end."""
    every = [said] if isinstance(said, Section | Part) else said
    blocks = [block for each in every for block in _markdown_blocks(each, level)]
    return "\n\n".join(blocks)


def _markdown_blocks(said: Section | Part, level: int) -> list[str]:
    if not isinstance(said, Section):
        return [_markdown_part(said)] if _is_said(said) else []
    if not said.content:
        return []
    parts = [_markdown_part(each) for each in said.content]
    note = markdown_words(said.note)
    return [
        *([f"{'#' * level} {markdown_words(said.title)}"] if plain(said.title) else []),
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
        _span(each).replace("|", "\\|") if each.code else _span(Span(each.text)) for each in spans(words)
    ).strip()


def markdown_words(words: Words) -> str:
    """A line that Markdown shows as it is; what has a tone is bold."""
    made = "".join(map(_span, spans(words))).strip()
    return _OPENING.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", made)


def _span(span: Span) -> str:
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
