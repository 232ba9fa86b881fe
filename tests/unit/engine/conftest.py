from __future__ import annotations

import pytest

from engine.errors import EngineError
from tests.story import checked_message


@pytest.fixture(autouse=True)
def _errors_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of the engine's own errors that is lost is noticed where it is raised."""
    monkeypatch.setattr(EngineError, "__init__", checked_message, raising=False)
