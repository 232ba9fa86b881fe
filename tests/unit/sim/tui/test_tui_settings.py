"""The theme that is kept."""

from __future__ import annotations

import pathlib

import pytest

from sim.tui.settings import keep_theme, kept_theme, settings_file


@pytest.fixture(autouse=True)
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_what_was_kept_is_found_again() -> None:
    assert kept_theme() is None
    keep_theme("nord")
    assert kept_theme() == "nord"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"theme": 3}', "\xff"])
def test_what_cannot_be_read_is_no_theme(text: str) -> None:
    keep_theme("nord")
    settings_file().write_bytes(text.encode("latin-1"))
    assert kept_theme() is None


def test_where_nothing_can_be_written_nothing_breaks(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config").write_text("a file, not a folder")
    keep_theme("nord")
    assert kept_theme() is None
