"""`--kinds`: which kinds of context there are when a flag is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flags.context import Contexts

KINDS_HELP = "Kinds of context: original, all, or as a scenario's contexts: '{pause: [sandbox, team]}'."


def contexts_given(text: str) -> Contexts:
    """The table of an option; UserError where it is none."""
    from engine.errors import UserError
    from flags.context import PRESETS, contexts_of
    from sim.files.yaml import parse

    if text in PRESETS:
        return PRESETS[text]
    try:
        return contexts_of(parse(text).data)
    except UserError as error:
        raise UserError(f"--kinds: {error}") from None
