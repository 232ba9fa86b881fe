"""What is kept between two screens, in the user's configuration folder (XDG): the theme, and keys of one's own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import UserError
from sim.tui.keys import refused


def settings_file() -> Path:
    """`~/.config/snapdrill/screen.json`, or below XDG_CONFIG_HOME."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "snapdrill" / "screen.json"


def _kept() -> dict[str, Any] | None:
    """Nothing where there is no file; None where it is not ours to read."""
    try:
        found = json.loads(settings_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def kept_theme() -> str | None:
    """The theme that was chosen last; None where none was, or where the file cannot be read."""
    theme = (_kept() or {}).get("theme")
    return theme if isinstance(theme, str) else None


def kept_keys() -> Mapping[str, str]:
    """Keys of one's own by the action that they do, beside the built-in ones: `"keys": {"pause_all": "f5"}`.

    UserError where an action is unknown, or a key is taken.
    """
    keys = (_kept() or {}).get("keys", {})
    if not isinstance(keys, dict) or not all(isinstance(each, str) for each in keys.values()):
        raise UserError(f'{settings_file()}: "keys" gives actions their keys, such as {{"pause_all": "f5"}}')
    if (why := refused(keys)) is not None:
        raise UserError(f"{settings_file()}: {why}")
    return keys


def keep_theme(theme: str) -> None:
    """Keep it for the next time, as far as the folder can be written; whatever else is kept stays."""
    kept, file = _kept(), settings_file()
    if kept is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**kept, "theme": theme}, indent=2) + "\n", encoding="utf-8")
    except OSError:
        return  # a screen without a home is a screen all the same
