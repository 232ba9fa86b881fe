"""Themes of our own, beside textual's: for a projector, and for eyes that need it."""

from __future__ import annotations

from textual.theme import Theme

HIGH_CONTRAST = Theme(
    name="high-contrast",
    primary="#5fafff",
    secondary="#87ffff",
    warning="#ffd700",
    error="#ff5f5f",
    success="#5fff87",
    accent="#ff87ff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    dark=True,
    text_alpha=1.0,
    variables={
        "text-primary": "#5fafff",
        "text-secondary": "#87ffff",
        "text-warning": "#ffd700",
        "text-error": "#ff5f5f",
        "text-success": "#5fff87",
        "text-accent": "#ff87ff",
    },
)
"""Bright tones on black; every one of them at least 7:1 against it (WCAG AAA)."""
