"""Tables and sections: their text fits, their Markdown and HTML escape, and no renderer loses a cell."""

from __future__ import annotations

import html
import re
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.report.html import page
from sim.report.table import (
    Bullets,
    Code,
    Paragraph,
    Part,
    Section,
    Table,
    Words,
    code,
    facts,
    fence,
    markdown,
    markdown_words,
    text,
    toned,
)

NASTY = '<script>alert("x\'y")</script> & | `a` *b* _c_ [d](e) <!-- --> {{ 7*7 }} {% raw %}'
WORD = st.text(st.characters(categories=("L", "N", "P", "S"), max_codepoint=0x2FF), min_size=1, max_size=12)
LETTERS = st.lists(st.text("abcäß", min_size=1, max_size=12), max_size=8).map(" ".join)
PROSE = st.lists(WORD, max_size=8).map(" ".join)


NASTY_WORDS = re.findall(r"\w+", NASTY) * 2  # the verdict and the name of the page


def html_of(*said: Section) -> str:
    values: dict[str, Any] = {"drawn": "", "plot": None, "without_plot": "", "runs": [(NASTY, NASTY)]}
    return page("rehearsal.html", NASTY, "bad", NASTY, sections=said, **values)


def shown(page: str) -> str:
    """What a browser shows of a page, without its style."""
    return html.unescape(re.sub(r"<[^>]*>", " ", page.partition("</head>")[2]))


# -- text


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_are_right() -> None:
    table = Table(("name", "n"), [("web", "1"), ("web-100", "23")], "<>")
    assert text(table).splitlines() == [
        "name      n",
        "web       1",
        "web-100  23",
    ]


def test_a_table_that_is_too_wide_comes_in_blocks_with_its_key_in_each() -> None:
    table = Table(("key", *("c" * 10 for _ in range(3))), [("a", "1", "2", "3"), ("b", "4", "5", "")], "<>")
    assert text(table, width=30).splitlines() == [
        "key  cccccccccc  cccccccccc",
        "a             1           2",
        "b             4           5",
        "",
        "key  cccccccccc",
        "a             3",
    ]


def test_a_row_with_nothing_but_its_key_is_said_once() -> None:
    table = Table((), [("a", "1" * 9, "2" * 9), ("idle", "", "")], "<")
    assert text(table, width=20).splitlines() == ["a     111111111", "idle", "", "a  222222222"]


def test_prose_is_wrapped_in_its_column_and_a_path_is_never_broken() -> None:
    path = "/a/path/that/is/longer/than/all/the/room/there/is"
    lines = text(Table((), [("no", f"made one in {path} there"), ("yes", "x")], "<~"), width=30).splitlines()
    assert lines == ["no   made one in", f"     {path}", "     there", "yes  x"]


def test_a_command_is_never_broken_even_at_its_spaces() -> None:
    command = "snapdrill run runs/demo/now/scenario.yaml --seed 1"
    assert text(facts([("run again", code(command))]), width=30) == f"run again  {command}"


def test_a_section_indents_its_parts_under_its_title_and_one_without_content_is_left_out() -> None:
    said: list[Section | Part] = [
        Section("claims", (Bullets(["one", "two"]), Paragraph("and that")), "as measured"),
        Section("nothing", (Bullets([]), Table(("a",), []), Paragraph(""), Code(""))),
        Paragraph(""),
        Code("as\n  it stands"),
    ]
    assert text(said) == "claims\n  as measured\n  - one\n  - two\n  and that\n\nas\n  it stands"


def test_colours_are_for_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Paragraph(("it is ", toned("HELD", "good")))
    assert text(said) == "it is HELD"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert text(said) == "it is \x1b[32mHELD\x1b[0m"
    assert text(said, width=80) == "it is HELD"
    monkeypatch.setenv("NO_COLOR", "1")
    assert text(said) == "it is HELD"


def test_a_terminal_is_as_wide_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Paragraph("word " * 40)
    assert max(map(len, text(said).splitlines())) <= 80
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert 100 < max(map(len, text(said).splitlines())) <= 120


def test_no_value_can_move_the_cursor_or_be_taken_for_markup_of_the_terminal() -> None:
    said = text([Table((), [("a\x1b[2J", "[red]b[/red]")]), Paragraph(":smile: [b]"), Code("\x07")])
    assert said == "a\\x1b[2J  [red]b[/red]\n\n:smile: [b]\n\n\\x07"


@settings(deadline=None)
@given(st.lists(st.tuples(WORD, WORD, PROSE, PROSE), min_size=1, max_size=5), st.sampled_from(["<<~", ">>~", "~"]))
def test_text_holds_every_word_within_its_width(rows: list[tuple[str, ...]], align: str) -> None:
    said = Section("title", (Table(("one", "two", "three", "four"), rows, align),))
    drawn = text(said, width=60)
    words = {word for row in rows for cell in row for word in cell.split()}
    assert words <= set(drawn.split())
    assert max(map(len, drawn.splitlines())) <= 60


# -- Markdown


def test_a_table_in_markdown_has_a_rule_with_its_alignments() -> None:
    assert markdown(Table(("a", "n"), [("x|y", "1")], "<>")) == "| a | n |\n| --- | ---: |\n| x\\|y | 1 |"


def test_facts_and_sections_in_markdown() -> None:
    said = Section("What it is", (facts([("seed", "1"), ("none", None), ("file", code("a|b`c"))]),), "given")
    assert markdown(said) == "## What it is\n\ngiven\n\n- seed: 1\n- file: `` a|b`c ``"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("lost_because_of_the_flag", "lost_because_of_the_flag"),
        ("_so_ __init__", "\\_so\\_ \\_\\_init\\_\\_"),
        ("- a list", "\\- a list"),
        ("1. first", "1\\. first"),
        ("> said", "\\> said"),
        ("# title", "\\# title"),
        ("two\nlines", "two lines"),
        (("a ", code("x*y")), "a `x*y`"),
        ((toned("BAD", "bad"), ": why"), "**BAD**: why"),
    ],
)
def test_words_are_shown_in_markdown_as_they_are(words: Words, shown: str) -> None:
    assert markdown_words(words) == shown


def test_no_value_is_markup_of_markdown() -> None:
    said: list[Part] = [Table(("h", NASTY), [(NASTY, code(NASTY))]), Bullets([NASTY]), Paragraph(NASTY)]
    made = markdown([Section(NASTY, tuple(said), NASTY)])
    outside = re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", made)
    assert "<" not in outside
    assert all(line.count("|") - line.count("\\|") == 3 for line in made.splitlines() if line.startswith("| "))


def test_a_code_block_has_a_fence_longer_than_any_in_it() -> None:
    assert fence("a\n````\nb").startswith("`````text\n")
    assert markdown(Code("x")) == "```text\nx\n```"


# -- HTML


def test_html_shows_every_value_as_it_is_and_none_becomes_markup() -> None:
    parts: tuple[Part, ...] = (
        Table((NASTY, "n"), [(NASTY, toned(NASTY, "bad"))], "<>"),
        Bullets([NASTY, (code(NASTY), NASTY)]),
        Paragraph(NASTY),
        Code(NASTY),
    )
    made = html_of(Section(NASTY, parts, NASTY))
    assert "<script" not in made
    assert "49" not in shown(made)
    assert shown(made).count(NASTY) == 13
    assert "'" not in re.sub(r"<style>.*?</style>|<meta[^>]*>", "", made, flags=re.DOTALL)


def test_html_has_a_class_for_a_tone_and_for_numbers() -> None:
    made = html_of(Section("t", (Table(("a", "n"), [(toned("held", "good"), "1")], "<>"),)))
    assert '<td><span class="good">held</span></td><td class="right">1</td>' in made
    assert "<h2>t</h2>" in made


def test_only_the_plot_is_taken_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import PackageLoader

    loader = PackageLoader("sim.report")
    env = __import__("jinja2").Environment(autoescape=True)
    sources = {name: loader.get_source(env, name)[0] for name in loader.list_templates()}
    unescaped = [
        (name, each) for name, source in sources.items() for each in re.findall(r"\|\s*safe|autoescape", source)
    ]
    assert unescaped == [("drawing.html", "|safe")]


@settings(deadline=None)
@given(st.lists(st.tuples(LETTERS, LETTERS), min_size=1, max_size=4))
def test_the_three_renderings_say_the_same_words(rows: list[tuple[str, str]]) -> None:
    said = Section("title", (Table(("first", "second"), rows, "~"), Bullets([row[0] for row in rows])))
    words = sorted(f"title first second {' '.join(f'{a} {b} {a}' for a, b in rows)}".split())
    assert sorted(re.findall(r"\w+", text(said, width=40))) == words
    assert sorted(re.findall(r"\w+", markdown(said))) == words
    assert sorted(re.findall(r"\w+", shown(html_of(said)).partition("The runs")[0])) == sorted([*words, *NASTY_WORDS])
