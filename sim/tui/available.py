"""Whether there is a terminal that a screen can be drawn on, and in which characters."""

from __future__ import annotations

import os
import sys

WEB_DRIVER = "textual.drivers.web_driver:WebDriver"
"""What a server of textual apps sets as TEXTUAL_DRIVER: the screen is drawn in a browser, through pipes."""


def is_served() -> bool:
    """True where a browser draws the screen."""
    return os.environ.get("TEXTUAL_DRIVER") == WEB_DRIVER


def is_terminal() -> bool:
    """Textual draws on stderr and reads stdin, and would draw its escape codes into a pipe as well."""
    if is_served():
        return True
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}


PLAIN = ("linux", "vt", "ansi", "cons", "sun")
"""How the names of terminals begin whose fonts lack the signs, whatever the locale says."""
COERCED = {"C.UTF-8", "C.utf8", "UTF-8"}
"""What Python itself writes into LC_CTYPE where the locale is C (PEP 538): it says nothing of the terminal."""


def is_unicode() -> bool:
    """False where locale or terminal has no more than ASCII."""
    if is_served():
        return True
    if os.environ.get("TERM", "").startswith(PLAIN):
        return False
    ctype = os.environ.get("LC_CTYPE", "")
    locale = os.environ.get("LC_ALL") or ("" if ctype in COERCED else ctype) or os.environ.get("LANG", "")
    encoding = (sys.stderr.encoding or "").lower().replace("-", "")
    return locale not in {"C", "POSIX"} and encoding.startswith("utf")
