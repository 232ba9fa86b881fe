from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError


@pytest.fixture(autouse=True)
def _errors_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of the engine's own errors that is lost is noticed where it is raised."""

    def init(self: EngineError, *arguments: Any) -> None:
        assert arguments
        assert isinstance(arguments[0], str)
        assert arguments[0]
        Exception.__init__(self, *arguments)

    monkeypatch.setattr(EngineError, "__init__", init, raising=False)
