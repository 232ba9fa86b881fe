"""How incarnations and pauses are named: `web-0.2` is the second guest of `web-0`, `web-0.p3` its third pause."""

from __future__ import annotations

CONDEMNED = "condemned"
"""The folder of condemned records, in a run's folder."""


def incarnation_name(sandbox: str, number: int) -> str:
    """Of a sandbox's guest, counted from 1."""
    return f"{sandbox}.{number}"


def pause_name(sandbox: str, number: int) -> str:
    """Of a sandbox's pause or checkpoint, and of the build it makes; counted from 1."""
    return f"{sandbox}.p{number}"


def sandbox_of(name: str) -> str:
    """The sandbox of an incarnation, a pause or a build."""
    return name.rpartition(".")[0]


def number_of(name: str) -> int:
    """Which of its sandbox's guests an incarnation is, or which of its pauses a pause or a build."""
    return int(name.rpartition(".")[2].removeprefix("p"))
