"""Where the shipped scenarios are: scenarios/ in a source checkout, sim/shipped/ in an installed wheel."""

from __future__ import annotations

import pathlib

from engine.errors import UserError

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]  # sim/


def scenario_path(name: str) -> pathlib.Path:
    """The path of a shipped file such as `demo.yaml`; UserError, naming what there is, for any other name."""
    folder = _shipped_folder(_PACKAGE)
    shipped = sorted(path.name for path in folder.glob("*") if path.suffix in {".yaml", ".json"})
    if name not in shipped:
        raise UserError(f"no shipped scenario is called {name!r}; there are: {', '.join(shipped) or 'none'}")
    return folder / name


def scenario_folder(name: str) -> pathlib.Path:
    """A folder of shipped scenarios such as `self-test`; UserError where it is not installed."""
    folder = _shipped_folder(_PACKAGE) / name
    if not folder.is_dir():
        raise UserError(f"the scenarios of {name} are not installed; there should be a folder {folder}")
    return folder


def _shipped_folder(package: pathlib.Path) -> pathlib.Path:
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent / "scenarios"
