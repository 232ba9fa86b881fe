"""Where things live: the rooms of sim/, the one order they import in, no circle of files, each file name once."""

from __future__ import annotations

import ast
import collections
import functools
import pathlib
import tomllib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "flags", "sim")
FLAT = {"__init__.py", "cli.py", "pytest_plugin.py"}
NAMED_FOR_WHAT_THEY_SHOW = ("sim/commands/", "sim/tui/screens/")
ORDER_CONTRACT = "sim: one order; the rules do not know the node that they judge"


def module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported_by(path: pathlib.Path) -> Iterator[str]:
    """Every module of ours that a file imports: at its top, in a function, or for its types alone."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module


@functools.cache  # on the first question, not when the file is collected: every worker collects it
def arrows() -> dict[str, set[str]]:
    return {name: set(imported_by(path)) - {name} for name, path in MODULES.items()}


def circles() -> list[list[str]]:
    """Modules that import each other in a ring: whoever stays when those that need nobody else are taken away."""
    left = {name: set(targets) for name, targets in arrows().items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    wanted = {target for targets in left.values() for target in targets}
    ring = sorted(name for name in left if name in wanted)
    return [ring] if ring else []


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 2 and parts[0] == "sim" else None


def order() -> dict[str, int]:
    """Each room's place from the bottom, as the import contract has it; siblings share a place."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["name"] == ORDER_CONTRACT]
    assert "ignore_imports" not in contract
    rows = [[name.removeprefix("sim.") for name in row.split(" | ")] for row in contract["layers"]]
    return {room: place for place, row in enumerate(reversed(rows)) for room in row}


def test_sim_has_nine_rooms_and_two_doors() -> None:
    rooms = {path.name for path in (ROOT / "sim").iterdir() if (path / "__init__.py").exists()}
    print(f"rooms: {len(rooms)}: {', '.join(sorted(rooms))}")
    assert rooms == set(order())
    assert {path.name for path in (ROOT / "sim").glob("*.py")} == FLAT


def test_no_file_imports_itself_by_way_of_others() -> None:
    found = circles()
    print(f"circles: {len(found)} in {len(MODULES)} files with {sum(map(len, arrows().values()))} arrows")
    assert found == []


def test_no_room_imports_a_room_above_it_or_beside_it() -> None:
    places = order()
    back = [
        f"{name} -> {target}"
        for name, targets in arrows().items()
        for target in targets
        if (ours := room_of(name)) and (theirs := room_of(target)) and ours != theirs
        if places[theirs] >= places[ours]
    ]
    up = [
        f"{name} -> {target}" for name in arrows() if room_of(name) for target in arrows()[name] if target == "sim.cli"
    ]
    print(f"arrows back: {len(back) + len(up)}")
    assert back + up == []


def test_a_file_name_is_used_once_in_sim() -> None:
    names = collections.defaultdict(list)
    for path in (ROOT / "sim").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        if path.name != "__init__.py" and not name.startswith(NAMED_FOR_WHAT_THEY_SHOW):
            names[path.name].append(name)
    twice = {name: places for name, places in names.items() if len(places) > 1}
    print(f"names used twice: {len(twice)}")
    assert twice == {}


def test_a_class_name_is_used_once() -> None:
    names = collections.defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef):
                names[node.name].append(module)
    twice = {name: places for name, places in names.items() if len(places) > 1}
    print(f"class names used twice: {len(twice)}")
    assert twice == {}


def test_a_unit_test_lies_in_the_room_that_it_tests() -> None:
    rooms = {path.name for path in (ROOT / "tests" / "unit" / "sim").iterdir() if path.is_dir()} - {"__pycache__"}
    assert rooms <= set(order())
