"""What is kept between two screens: the theme, in the user's configuration folder (XDG)."""

from __future__ import annotations

import json
import os
from pathlib import Path


def settings_file() -> Path:
    """`~/.config/snapdrill/screen.json`, or below XDG_CONFIG_HOME."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "snapdrill" / "screen.json"


def kept_theme() -> str | None:
    """The theme that was chosen last; None where none was, or where the file cannot be read."""
    try:
        found = json.loads(settings_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    theme = found.get("theme") if isinstance(found, dict) else None
    return theme if isinstance(theme, str) else None


def keep_theme(theme: str) -> None:
    """Keep it for the next time, as far as the folder can be written."""
    file = settings_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"theme": theme}) + "\n", encoding="utf-8")
    except OSError:
        return  # a screen without a home is a screen all the same
