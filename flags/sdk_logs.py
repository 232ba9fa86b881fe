"""Where the log records of LaunchDarkly's SDK go."""

from __future__ import annotations

import logging
from pathlib import Path


def route_sdk_logs(path: Path) -> None:
    """Send the SDK's log records to a file from now on, so that none is written over a screen."""
    logger = logging.getLogger("ldclient")
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(logging.FileHandler(path, encoding="utf-8", delay=True))
    logger.propagate = False


def silence_sdk_logs() -> None:
    """For commands that print findings of their own: what the SDK logs about a flag file repeats them."""
    logger = logging.getLogger("ldclient")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
