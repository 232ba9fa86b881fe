"""What other people wrote, as it may be printed: nothing in it is obeyed by a terminal, a page or a CI system."""

from __future__ import annotations

import re

LONGEST = 400
"""Characters of one quoted text."""

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NOT_XML = "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
# All but the line feed and the tab; U+2028 and U+2029 end a line too, for some.
_OBEYED = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029{_BIDI}{_NOT_XML}]")
_LINE_ENDS = re.compile("[\n\t]")
_COMMAND = re.compile(r"^(\s*):(?=:)|#(?=#\[)", re.MULTILINE)


def escaped(text: str) -> str:
    """Its line feeds and tabs as they are, everything else that is obeyed instead of shown by its code, as in `x1b`."""
    return _OBEYED.sub(_code, text) if not text.isascii() or not text.isprintable() else text


def printable(text: str, longest: int = LONGEST) -> str:
    """On one line, and shortened: what a message quotes of a document, a name or an error."""
    if len(text) > longest:
        text = f"{text[:longest]}... ({len(text):,} characters)"
    return _LINE_ENDS.sub(_code, escaped(text))


def not_a_command(text: str) -> str:
    """Lines that GitHub Actions would take for commands (`::error::` at the start, `##[` anywhere) as mere text."""
    return _COMMAND.sub(lambda found: f"{found[1] or ''}\\x3a" if found[0].endswith(":") else "\\x23", text)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    if found[0] in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[found[0]]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
