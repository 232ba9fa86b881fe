"""Shipped scenarios are found in a checkout and in an installed wheel."""

from __future__ import annotations

import pathlib

import pytest

from engine.errors import UserError
from sim.files import shipped as shipped_files
from sim.files.shipped import scenario_path


@pytest.fixture
def package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    folder = tmp_path / "sim"
    folder.mkdir()
    monkeypatch.setattr(shipped_files, "_PACKAGE", folder)
    return folder


def write(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("version: 1\n")
    return path


def test_a_checkout_reads_the_scenarios_folder_beside_the_package(package: pathlib.Path) -> None:
    expected = write(package.parent / "scenarios" / "demo.yaml")
    assert scenario_path("demo.yaml") == expected


def test_an_installed_wheel_reads_the_folder_inside_the_package(package: pathlib.Path) -> None:
    write(package.parent / "scenarios" / "demo.yaml")
    expected = write(package / "shipped" / "demo.yaml")
    assert scenario_path("demo.yaml") == expected


def test_the_demo_of_this_very_installation_is_there() -> None:
    assert scenario_path("demo.yaml").is_file()


@pytest.mark.parametrize("name", ["dmeo.yaml", "../pyproject.toml", "", "."])
def test_a_name_that_is_not_shipped_is_refused_with_the_names_that_are(package: pathlib.Path, name: str) -> None:
    write(package.parent / "scenarios" / "demo.yaml")
    with pytest.raises(UserError, match=r"there are: demo\.yaml"):
        scenario_path(name)


def test_an_installation_without_scenarios_says_so(package: pathlib.Path) -> None:
    with pytest.raises(UserError, match="there are: none"):
        scenario_path("demo.yaml")
