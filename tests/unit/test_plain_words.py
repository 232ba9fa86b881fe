"""Sentences that a user may read are plain: no word of the old dialect is in them."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DIALECT = re.compile(
    r"""\b(
        told | tells? | telling | whom | whoever | (no|some|any|every)body     # write: report, which, no sandbox
        | (came|comes?|coming)\ (to|of) | but\ for | in\ vain | as\ far\ as\ it\ went | for\ those\ who
        | each\ of\ what | made\ sure\ of | hears?\ of | asked\ of | all\ else | owed | borne | thereof | hereof
        | (is|are|was|were|be|been|not)\ said | (can|cannot|may)\ be\ had
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""Each has a plain word in its place, and no innocent use in a message of this project."""

PROSE = (
    "README.md",
    *(str(each.relative_to(ROOT)) for each in sorted((ROOT / "docs").glob("*.md"))),
    "tests/README.md",
    "scenarios/README.md",
    *(str(each.relative_to(ROOT)) for each in sorted((ROOT / "scenarios").rglob("*.yaml"))),
)
CODE = ("engine", "flags", "sim")


def strings(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """The sentences among the string literals of a module, docstrings included, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def modules() -> list[pathlib.Path]:
    return [path for name in CODE for path in (ROOT / name).rglob("*.py")]


def test_no_string_of_the_code_is_in_the_dialect() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {hit.group()!r} in {text[max(0, hit.start() - 40) : hit.end() + 40]!r}"
        for path in modules()
        for line, text in strings(path)
        for hit in DIALECT.finditer(text)
    ]
    assert not found, "\n".join(["write plain words, such as report, except, no sandbox:", *found])


@pytest.mark.parametrize("name", PROSE)
def test_no_document_is_in_the_dialect(name: str) -> None:
    found = [f"{name}: {hit.group()!r}" for hit in DIALECT.finditer((ROOT / name).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "sentence",
    [
        "no guest_ended tells the end of web-0.1",
        "neither event says whom web-0.p1 took",
        "a failure is told to nobody",
        "What m.yaml came to.",
        "The space for the copy is made sure of.",
        "HELD as far as it went",
        "Counts of pauses, but for names",
    ],
)
def test_a_sentence_of_the_dialect_is_found(sentence: str) -> None:
    assert DIALECT.search(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "missing evidence: no `guest_ended` event for web-0.1",
        "HELD so far (stopped early)",
        "Disk space for the copy is reserved.",
        "sandboxes become paused, and a body of bytes is stored",
    ],
)
def test_a_plain_sentence_is_not(sentence: str) -> None:
    assert not DIALECT.search(sentence)
