from __future__ import annotations

import pathlib
import re

import pytest

from sim.tui.pictures import SHOWN, without_fonts

ROOT = pathlib.Path(__file__).parents[4]
PICTURES = ROOT / "docs" / "pictures"


def test_a_picture_fetches_nothing() -> None:
    svg = "<style>@font-face { font-family: a; src: url(https://b); }\n.x { fill: red }</style>"
    assert without_fonts(svg) == "<style>\n.x { fill: red }</style>"


@pytest.mark.parametrize("name", [*SHOWN, "stage"])
def test_every_picture_is_there_and_the_readme_shows_it(name: str) -> None:
    svg = (PICTURES / f"{name}.svg").read_text()
    assert svg.startswith("<svg")
    assert re.findall(r"url\(http|<image", svg) == []
    assert f"](docs/pictures/{name}.svg)" in (ROOT / "README.md").read_text()
