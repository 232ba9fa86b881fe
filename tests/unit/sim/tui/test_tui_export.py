from __future__ import annotations

import pathlib
import re

import pytest

from sim.tui.pictures import PRINTED, SHOWN, without_fonts

ROOT = pathlib.Path(__file__).parents[4]
PICTURES = ROOT / "docs" / "pictures"


def test_a_picture_fetches_nothing() -> None:
    svg = "<style>@font-face { font-family: a; src: url(https://b); }\n.x { fill: red }</style>"
    assert without_fonts(svg) == "<style>\n.x { fill: red }</style>"


@pytest.mark.parametrize("name", [*SHOWN, *PRINTED, "stage"])
def test_every_picture_is_there_and_a_page_shows_it(name: str) -> None:
    svg = (PICTURES / f"{name}.svg").read_text()
    assert svg.startswith("<svg")
    assert re.findall(r"url\(http|<image", svg) == []
    pages = (ROOT / "README.md").read_text() + (ROOT / "docs" / "screen.md").read_text()
    assert re.search(rf"\]\((docs/)?pictures/{name}\.svg\)", pages)
