"""The `readers` key: which pauses are read right after their answer, as an auto-resume or a prefetch does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sim.files.strict import Strict
from sim.files.units import Percent


class Readers(Strict):
    """`immediate` is the share of pauses whose sandbox is resumed as soon as the pause has its answer.

    While the copy goes on in the background, the new guest waits for each chunk that it reads. Which pauses those are
    is drawn by the seed. Such a pause is admitted with the memory of the new guest; after its step the sandbox runs.
    """

    immediate: Annotated[Percent, Field(ge=0, le=100)] = 0.0

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.immediate / 100
