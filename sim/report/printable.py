"""What a report may print of a text that it did not write itself."""

from __future__ import annotations

import re

# What XML 1.0 has no way to write, and what a terminal or a page would obey instead of showing.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def scrub(text: str) -> str:
    """Control characters and whatever else XML cannot hold become U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)
