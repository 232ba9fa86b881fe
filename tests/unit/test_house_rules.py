"""What the code as a whole keeps to, whoever writes it: imports, sizes, and what no file may name."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "flags", "sim")
LONGEST_FUNCTION = 60
LONGEST_MODULE = 450

IMPORT_ALL = """
import importlib, pkgutil, sys
package, without = sys.argv[1], tuple(sys.argv[2].split(","))
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    if not module.name.startswith(without) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

# Written in pieces, so that this file does not name what it forbids.
INDEX_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "deb" + "ian.org",
    "find" + "-links",
)
MACHINE_PATH = re.compile(r"(?<![\w.*-])/(?:work|root|home/\w+|opt/\w+|usr/local)/")


def sources() -> list[pathlib.Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def loaded_by_importing(package: str, *, but_not: str = "-") -> set[str]:
    command = [sys.executable, "-c", IMPORT_ALL, package, but_not]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@functools.cache
def read(path: pathlib.Path) -> tuple[set[str], list[tuple[int, str, int]]]:
    """The names that a module imports; and the line, name and length of each of its functions."""
    imported, functions = set[str](), []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append((node.lineno, node.name, (node.end_lineno or node.lineno) - node.lineno + 1))
    return imported, functions


def tracked_texts() -> Iterator[tuple[str, str]]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            yield name, content.decode()


def test_importing_the_engine_loads_no_flag_no_fleet_and_no_screen() -> None:
    assert loaded_by_importing("engine") & {"flags", "sim", "ldclient", "textual"} == set()


def test_importing_the_flags_loads_no_fleet_and_no_screen() -> None:
    assert loaded_by_importing("flags") & {"sim", "textual"} == set()


def test_importing_everything_but_the_tui_loads_no_screen() -> None:
    assert "textual" not in loaded_by_importing("sim", but_not="sim.tui")


def test_what_renders_reports_is_loaded_only_where_one_is_rendered() -> None:
    assert loaded_by_importing("sim", but_not="sim.tui") & {"rich", "jinja2"} == set()


def test_only_engine_linux_uses_ctypes() -> None:
    users = {name_of(path) for path in sources() if "ctypes" in {name.partition(".")[0] for name in read(path)[0]}}
    assert users <= {"engine/linux.py"}


def test_no_function_is_too_long_to_read_at_once() -> None:
    too_long = [
        f"{name_of(path)}:{line}: {name} has {length} lines"
        for path in sources()
        for line, name, length in read(path)[1]
        if length > LONGEST_FUNCTION
    ]
    assert too_long == []


def test_no_module_holds_more_than_one_subject_worth_of_lines() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in sources()}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs git and a git checkout")
def test_no_file_names_a_package_index_or_a_path_of_one_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if any(host in line for host in INDEX_HOSTS) or MACHINE_PATH.search(line)
    ]
    assert found == []


def test_the_wheel_holds_every_package_and_every_scenario() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in sources() if path.name == "__init__.py"}
    assert set(setuptools["packages"]) == packages | {"sim.shipped"}
    patterns = setuptools["package-data"]["sim.shipped"]
    scenarios = {path for path in (ROOT / "scenarios").rglob("*") if path.is_file() and path.suffix != ".md"}
    assert scenarios == {path for pattern in patterns for path in (ROOT / "scenarios").glob(pattern)}


def test_the_wheel_holds_every_file_that_lies_beside_the_code() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    others = {path for path in (ROOT / "sim").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    folders = {package: ROOT.joinpath(*package.split(".")) for package in data if package != "sim.shipped"}
    assert others == {
        path for package, folder in folders.items() for each in data[package] for path in folder.glob(each)
    }


def test_every_module_sits_in_a_package_that_the_wheel_ships() -> None:
    assert [name_of(path) for path in sources() if not (path.parent / "__init__.py").exists()] == []
