"""Copies that failed after their pause had answered: when that is known, here and in the original."""

from __future__ import annotations

from collections.abc import Iterable

from sim.files import original
from sim.record.view import PauseView, View
from sim.report.words import plural

_HERE = "known at once: the build turned failed; failed_copy_discards judges what became of the sandboxes"


def failed_late(pauses: Iterable[PauseView]) -> list[PauseView]:
    """Pauses of which success was answered, and whose copy then failed. Checkpoints are not among them: their sandbox
    goes on, so that their failure shows at once in the original too."""
    return [each for each in pauses if each.answered and each.outcome == "discarded" and not each.checkpoint]


def known_after(view: View) -> float | None:
    """Seconds until such a failure is known, by the profile of the run; None where there was none."""
    if not failed_late(view.pauses):
        return None
    return original.GIVES_UP if view.run is not None and view.run.known_as == original.ORIGINAL else 0.0


def late_failures(count: int, known_as: str) -> str:
    """The same in a sentence; empty without any."""
    if not count:
        return ""
    said = f"{plural(count, 'copy', 'copies')} failed after success was answered; "
    if known_as != original.ORIGINAL:
        return f"{said}{_HERE}"
    tries, apart = len(list(original.tries())), f"{original.FIRST_WAIT:g} to {original.LONGEST_WAIT:g} s apart"
    hours = f"{original.GIVES_UP / 3600:g} h of virtual time (given)"
    return (
        f"{said}in the original it is known after {hours}; meanwhile the upload is tried {tries} times (derived), "
        f"{apart}; the build says success, and a resume is let through: its guest is killed when it reads the memory. "
        "What became of the sandboxes here is judged by failed_copy_discards"
    )
