"""docs/model.md names tests: each is there, and each row says how it is modelled or why it is not."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "model.md").read_text()
NAMED = re.findall(r"`(test_[a-z0-9_]+)`", PAGE)


def rows() -> list[list[str]]:
    """Of the table of paths: its cells."""
    table = PAGE.partition("## The paths")[2].partition("## Beside")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_test_that_the_page_names_is_there() -> None:
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    defined = {
        name for text in tests for name in re.findall(r"^(?:async )?def (test_[a-z0-9_]+)\(", text, re.MULTILINE)
    }
    assert NAMED
    assert sorted(set(NAMED) - defined) == []


def test_every_path_of_the_original_has_a_test_or_a_reason() -> None:
    found = rows()
    assert len(found) == 11
    assert [
        was for was, here, shown in found if not NAMED_IN.search(shown) and not here.startswith("not modelled")
    ] == []


NAMED_IN = re.compile(r"`test_")
