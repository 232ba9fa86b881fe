"""What is quoted is shown and never obeyed."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.printable import LONGEST, escaped, not_a_command, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ünï \U0001f600", "ünï \U0001f600"),
        ("a\n::error::b", r"a\n::error::b"),
        ("\x1b[31m\r\t", r"\x1b[31m\r\t"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\x85c\ud800", r"a\u2028b\x85c\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_by_its_code(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut_and_its_length_said() -> None:
    assert printable("x" * (1 << 20)) == "x" * LONGEST + "... (1,048,576 characters)"


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    kinds = {unicodedata.category(each) for each in escaped(text) if each not in "\n\t"}
    assert kinds & {"Cc", "Cs", "Zl", "Zp"} == set()
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", escaped(text))
    assert len(printable(text).splitlines()) <= 1


@pytest.mark.parametrize("line", ["::error::x", "  ::stop-commands::x", "a\n::add-mask::b", "x ##[error]y"])
def test_a_line_that_github_would_obey_is_none_any_more(line: str) -> None:
    said = not_a_command(line)
    assert not any(each.strip().startswith("::") for each in said.splitlines())
    assert "##[" not in said
    assert not_a_command(said) == said


@pytest.mark.parametrize("line", ["a.yaml:1:1: error: x", "std::string", "# [x]", "a :: b"])
def test_any_other_line_stays_as_it_is(line: str) -> None:
    assert not_a_command(line) == line


@pytest.mark.parametrize(
    ("line", "said"),
    [("::error::x", "\\x3a:error::x"), ("  ::a::", "  \\x3a:a::"), ("x ##[error]y", "x \\x23#[error]y")],
)
def test_of_a_line_that_github_would_obey_one_character_is_written_as_its_code(line: str, said: str) -> None:
    assert not_a_command(line) == said
