"""What the original (e2b-dev/infra, August 2026) does about a copy that fails after its pause has answered success.

The row of the build goes on saying success. The upload of what is not there is tried again, with longer and longer
pauses in between; when it is given up, one counter rises. Nothing else says so, until a resume reads the memory.
"""

from __future__ import annotations

from collections.abc import Iterator

ORIGINAL = "original"
FIRST_WAIT, LONGEST_WAIT, GIVES_UP = 5.0, 120.0, 7200.0
"""Seconds of virtual time: between tries of the upload, at first and at most; and until it is given up, which is when
the failure is known (given)."""


def tries() -> Iterator[float]:
    """The seconds after the failure at which the upload is tried again (derived): each wait is twice the one before."""
    at = wait = FIRST_WAIT
    while at < GIVES_UP:
        yield at
        wait = min(LONGEST_WAIT, 2 * wait)
        at += wait
