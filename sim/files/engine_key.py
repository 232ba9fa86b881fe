"""The `engine` key of a scenario: its options, and which wrong engine it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from flags.catalog import did_you_mean
from sim.files.original import ORIGINAL
from sim.files.strict import Strict
from sim.files.wrong_engines import MUTANTS, PR_2902, SWITCHES


def _mutant(name: str) -> str:
    if name not in MUTANTS:
        raise ValueError(f'unknown mutant "{name}"; {did_you_mean(name, MUTANTS)}')
    return name


def _profile(name: str) -> str:
    if name not in {PR_2902, ORIGINAL}:
        raise ValueError(f'unknown profile "{name}"; {did_you_mean(name, [PR_2902, ORIGINAL])}')
    return name


def _switch(name: str) -> str:
    if name not in SWITCHES:
        raise ValueError(f'unknown weakness "{name}"; {did_you_mean(name, SWITCHES)}')
    return name


Switches = Annotated[tuple[Annotated[str, AfterValidator(_switch)], ...], Field(strict=False)]


class Engine(Strict):
    """The engine of the runs. With `mutant` or `profile: pr-2902` it is wrong on purpose: the scenario must catch it.

    `profile: pr-2902` is the pull request as written; `mended` fixes the named weaknesses, `only` fixes all others.
    `profile: original` changes nothing that the engine does: reports say when the original would know of a copy that
    failed after its pause had answered, and what it says until then.
    `verify` does not make an engine wrong: `full` compares clean pages with the parent before anything is punched.
    `on_copy_failure` says what becomes of a copy that fails past the point of no return, unless the flag
    `memfd-salvage-on-failure` is served and decides: `discard` loses the sandbox; `salvage` keeps its memory, tries the
    copy again, and leaves the build stranded until a step `salvage` completes it.
    """

    mutant: Annotated[str, AfterValidator(_mutant)] | None = None
    profile: Annotated[str, AfterValidator(_profile)] | None = None
    mended: Switches = ()
    only: Switches = ()
    verify: Literal["off", "full"] = "off"
    on_copy_failure: Literal["discard", "salvage"] = "discard"

    @model_validator(mode="after")
    def _is_one_engine(self) -> Self:
        if self.mutant is not None and self.profile is not None:
            raise ValueError("an engine is one mutant or one profile; remove mutant or profile")
        if (self.mended or self.only) and self.profile != PR_2902:
            raise ValueError(f"mended and only go with a profile; add profile: {PR_2902}")
        if self.mended and self.only:
            raise ValueError("mended names the fixed weaknesses, only the ones that stay; remove one of the two")
        return self

    @property
    def weak(self) -> str | None:
        """The profile, where it makes the engine wrong."""
        return None if self.profile == ORIGINAL else self.profile

    def choice(self) -> dict[str, Any]:
        """For the ledger and the node: mutant, profile, the mended weaknesses, and the options."""
        sound = [name for name in SWITCHES if name not in self.only] if self.only else list(self.mended)
        wrong = {"mutant": self.mutant, "profile": self.weak, "mended": sound}
        return {**wrong, "verify": self.verify, "on_copy_failure": self.on_copy_failure}
