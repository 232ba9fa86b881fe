"""How the tests of the screen look at it: as text, and until it shows what it should."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from textual.app import App
from textual.pilot import Pilot


def seen(app: App[Any]) -> str:
    """What is on screen, as text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def until(pilot: Pilot[Any], condition: Callable[[], bool], what: str) -> None:
    """Let the app run until `condition`; `what` names it where it never comes."""
    deadline = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}:\n{seen(pilot.app)}"
        await pilot.pause(0.02)


async def until_seen(pilot: Pilot[Any], *words: str) -> None:
    """Let the app run until all of these are on screen."""
    await until(pilot, lambda: all(word in seen(pilot.app) for word in words), f"the screen says {words!r}")
