"""Whether there is a terminal that a screen can be drawn on, and in which characters."""

from __future__ import annotations

import os
import sys


def is_terminal() -> bool:
    """Textual draws on stderr and reads stdin, and would draw its escape codes into a pipe as well."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}


def is_unicode() -> bool:
    """False where what is written to the terminal cannot be more than ASCII."""
    return (sys.stderr.encoding or "").lower().replace("-", "").startswith("utf")
