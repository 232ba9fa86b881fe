"""The colours of the tones: in every theme danger looks like danger, and what is condemned or punched like nothing
else."""

from __future__ import annotations

import pytest
from textual.color import Color

from sim.tui.app import ShowApp
from sim.tui.spans import DARK, LIGHT

THEMES = sorted(ShowApp().available_themes)


def luminance(color: Color) -> float:
    """As WCAG 2 defines it."""
    parts = [part / 255 for part in color.rgb]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: Color, other: Color) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def shown(theme: str) -> tuple[dict[str, Color], Color]:
    app = ShowApp()
    app.theme = theme
    variables = app.get_css_variables()
    tones = {name: Color.parse(variables[f"tone-{name}"]) for name in DARK}
    background = variables["background"]
    dark = app.current_theme.dark
    return tones, Color.parse("#000000" if dark else "#ffffff") if background.startswith("ansi") else Color.parse(
        background
    )


@pytest.mark.parametrize("theme", THEMES)
def test_every_tone_can_be_read_in_every_theme(theme: str) -> None:
    tones, background = shown(theme)
    assert {name for name, color in tones.items() if contrast(color, background) < 4.5} == set()


@pytest.mark.parametrize("tones", [DARK, LIGHT], ids=["dark", "light"])
@pytest.mark.parametrize("own", ["bad", "condemned", "punched"])
def test_danger_and_what_cannot_be_undone_look_like_nothing_else(own: str, tones: dict[str, str]) -> None:
    mine = Color.parse(tones[own])
    for other, color in tones.items():
        if other != own:
            assert sum(abs(a - b) for a, b in zip(mine.rgb, Color.parse(color).rgb, strict=True)) >= 100, other
