"""Who may import whom: the README's table, compared with every import in the package."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labkit
from labkit import facade

PACKAGE = Path(labkit.__file__).parent
README = PACKAGE.parent / "README.md"
NOTEBOOKS = sorted((PACKAGE.parent / "notebooks").rglob("*.ipynb"))
ROOMS = "speculative training mbr serving checks course plots widgets records".split()  # noqa: SIM905
FACADES = ["labkit", *(f"labkit.{room}" for room in ROOMS)]
"""What notebooks and assignments may import from."""

GROUND = {"errors", "facade", "paths", "reading", "threads"}
"""What any room may import."""


def readme_rules() -> dict[str, set[str]]:
    """Return for each room the others that it may import, as the README's table states."""
    rules: dict[str, set[str]] = {}
    rows = re.findall(r"^\| (`labkit/.*?) \| .*? \| (.*?) ?\|$", README.read_text("utf-8"), re.M)
    for rooms, allowed in rows:
        for room in re.findall(r"[\w/]+", rooms):
            rules[room.removeprefix("labkit/")] = set(re.findall(r"\w+", allowed))
    return rules


MAY_IMPORT = readme_rules()

LIGHT = {"records", "plots", "widgets"}
"""Rooms that work without torch, so that a record can be read anywhere."""

HEAVY = {"torch", "transformers", "numba", "accelerate", "tokenizers"}


def sources() -> Iterator[tuple[str, Path]]:
    """Each source file with the room that it stands in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in {"__init__", "cli"}:
            yield room, path


def imports(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each module that a file imports, wherever in it, with the names taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module or "", tuple(alias.name for alias in node.names)


def rooms_imported(path: Path) -> Iterator[str]:
    """Each room of labkit that a file imports from."""
    for module, names in imports(path):
        if module == "labkit":
            yield from names
        elif module.startswith("labkit."):
            yield module.split(".")[1]


def imported_by_room() -> dict[str, set[str]]:
    """Return for each room the other rooms that its files import."""
    found: dict[str, set[str]] = {}
    for room, path in sources():
        found.setdefault(room, set()).update(set(rooms_imported(path)) - {room})
    return found


def test_each_room_imports_only_the_rooms_that_the_readme_allows():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other}: change it, or the README's table"
        for room, path in sources()
        for other in rooms_imported(path)
        if other != room and other not in MAY_IMPORT.get(room, set()) | GROUND
    ]
    assert wrong == []


def test_the_readme_allows_no_import_that_no_room_needs():
    found = imported_by_room()
    unused = {room: allowed - found[room] for room, allowed in MAY_IMPORT.items() if room != "cli"}
    assert {room: names for room, names in unused.items() if names} == {}


def test_the_readme_names_every_room_and_no_other():
    assert {room for room, _ in sources()} | {"cli"} == set(MAY_IMPORT)


def test_nobody_imports_the_command_line():
    assert [p for _, p in sources() if "cli" in rooms_imported(p)] == []


def test_records_plots_and_widgets_need_no_torch():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for room, path in sources()
        if room in LIGHT
        for module, _ in imports(path)
        if module.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_no_private_name_crosses_a_file():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name} from {module}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for module, names in imports(path)
        for name in names
        if module.startswith("labkit") and name.startswith("_")
    ]
    assert wrong == []


def test_the_command_line_imports_nothing_heavy_at_the_top():
    wrong = []
    for path in sorted((PACKAGE / "cli").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tops = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        for node in tops:
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            light = ("labkit.cli", "labkit.errors")
            wrong += [
                f"{path.relative_to(PACKAGE)}: {module}"
                for module in modules
                if module.split(".")[0] in {*HEAVY, "numpy", "pydantic"}
                or (module.startswith("labkit") and not module.startswith(light))
            ]
    assert wrong == []


@pytest.mark.parametrize("package", FACADES)
def test_every_public_name_exists_where_its_home_says(package):
    public = importlib.import_module(package)
    assert sorted(public.__all__) == sorted(set(public.__all__)) != []
    for name in public.__all__:
        home = facade.HOMES.get(package, {}).get(name, package)
        value = getattr(public, name)
        if home != package:
            assert value is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("package", FACADES)
def test_no_public_name_is_hidden_by_a_module_of_the_same_name(package):
    folder = PACKAGE.joinpath(*package.split(".")[1:])
    modules = {path.stem for path in folder.iterdir() if path.suffix in {".py", ""}}
    homes = facade.HOMES.get(package, {})
    assert {name for name in modules & set(homes) if homes[name] != package} == set()


@pytest.mark.parametrize("package", ["labkit", "labkit.records", "labkit.plots", "labkit.widgets"])
def test_importing_it_loads_no_torch(package):
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_import_public_names_only(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for node in (node for text in code for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.startswith("labkit.")], path.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labkit"):
            assert node.module in FACADES, f"{path.name} imports from {node.module}"
            public = set(importlib.import_module(node.module).__all__)
            assert {alias.name for alias in node.names} <= public, node.module
