"""Who may import whom: the design's rooms, held by reading every import in the package."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import labkit

PACKAGE = Path(labkit.__file__).parent
GROUND = {"errors", "threads", "paths", "reading"}
"""What any room may use."""

MAY_IMPORT = {
    "errors": set(),
    "threads": set(),
    "paths": {"errors"},
    "reading": {"errors"},
    "questions": GROUND,
    "records": set(),
    "devices": GROUND,
    "models": GROUND | {"records", "devices"},
    "kernels": GROUND | {"devices"},
    "sampling": {"errors"},
    "speculative": GROUND | {"records", "devices", "models", "kernels", "sampling", "questions"},
    "mbr": GROUND | {"records", "devices", "models", "kernels", "sampling"},
    "training": GROUND
    | {"records", "devices", "models", "kernels", "speculative", "mbr", "provenance"},
    "serving": GROUND
    | {"records", "devices", "models", "kernels", "sampling", "speculative", "provenance"},
    "plots": {"records"},
    "widgets": {"records", "plots"},
    "checks": GROUND
    | {"records", "devices", "models", "kernels", "speculative", "mbr", "training"},
    "gallery": GROUND | {"records", "plots", "widgets"},
    "together": GROUND | {"records", "sampling", "speculative"},
    "provenance": GROUND | {"records"},
    "recordings": GROUND | {"records", "sampling", "speculative", "mbr", "together", "provenance"},
    "course": GROUND | {"records", "plots", "widgets", "checks", "training"},
    "grading": GROUND | {"records", "course"},
    "doctor": GROUND | {"records", "devices", "models", "kernels", "speculative"},
}
"""For each room the other rooms that it may import; the command line may import them all."""

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


def test_each_room_imports_only_the_rooms_that_it_may():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for room, path in sources()
        for other in rooms_imported(path)
        if other != room and other not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_every_room_has_its_rule():
    assert {room for room, _ in sources()} <= set(MAY_IMPORT)


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


def test_every_public_name_can_be_had():
    for name in labkit.__all__:
        assert getattr(labkit, name) is not None
    for name, home in labkit._HOMES.items():
        assert getattr(importlib.import_module(home), name) is getattr(labkit, name)
