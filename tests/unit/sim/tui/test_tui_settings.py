"""The theme and the keys that are kept."""

from __future__ import annotations

import json
import pathlib

import pytest

from engine.errors import UserError
from sim.tui.settings import keep_theme, kept_keys, kept_theme, settings_file


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


def write(**kept: object) -> None:
    settings_file().parent.mkdir(parents=True, exist_ok=True)
    settings_file().write_text(json.dumps(kept))


def test_a_theme_that_is_chosen_leaves_the_keys_as_they_are() -> None:
    write(keys={"pause_all": "f5"}, theme="gruvbox")
    keep_theme("nord")
    assert (kept_theme(), kept_keys()) == ("nord", {"pause_all": "f5"})


def test_a_file_that_cannot_be_read_is_not_written_over() -> None:
    write(keys={"pause_all": "f5"})
    settings_file().write_text("{" + settings_file().read_text())
    before = settings_file().read_text()
    keep_theme("nord")
    assert settings_file().read_text() == before


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], '"keys" gives actions their keys'),
        ({"pause_all": 5}, '"keys" gives actions their keys'),
        ({"pause_al": "f5"}, 'no action is called pause_al; did you mean "pause_all"?'),
        ({"pause_all": "r"}, "r is taken: it does resume; take another key for pause_all"),
        ({"pause_all": "?"}, "? is taken: it does help; take another key for pause_all"),
        ({"pause_all": "f5", "tick": "f5"}, "f5 is taken: it does pause_all; take another key for tick"),
        ({"pause_all": "ctrl+c"}, "'ctrl+c' is no key for pause_all"),
        ({"pause_all": "f5,f6"}, "'f5,f6' is no key for pause_all"),
    ],
)
def test_keys_that_cannot_be_are_one_line_with_the_file(keys: object, why: str) -> None:
    write(keys=keys)
    with pytest.raises(UserError) as refused:
        kept_keys()
    assert str(refused.value).startswith(f"{settings_file()}: {why}")
