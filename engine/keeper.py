"""Another process that holds the memory of a condemned guest, so that it outlives the process that copies it."""

from __future__ import annotations

from typing import Protocol


class Keeper(Protocol):
    """Its calls block. An fd that it holds keeps the memory when all others are gone."""

    def keep(self, build: str, fd: int) -> None:
        """Return once it has acknowledged that it holds the memory of this build; raises where it does not."""
        ...

    def drop(self, build: str) -> None:
        """Let go of it. Harmless where it holds nothing of that name; raises where it does not answer."""
        ...
