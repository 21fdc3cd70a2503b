"""Students' copies of the assignments, made by nbgrader's own preprocessors.

No solution, no hidden test, checksums and locks as nbgrader writes them: the same notebook that
``nbgrader generate_assignment`` makes, without its database.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nbformat

from labkit.course.run import notebooks_dir
from labkit.errors import LabkitError
from labkit.records.base import write_whole


def assignments_dir() -> Path:
    """Return the folder of the assignments' sources, ``notebooks/assignments``."""
    return notebooks_dir() / "assignments"


def source_path(name: str, folder: Path | None = None) -> Path:
    """Return the source of an assignment; `LabkitError` lists the names if there is none."""
    known = sources(folder)
    if name not in known:
        raise LabkitError(f"There is no assignment {name!r}; there are {', '.join(known)}.")
    return known[name]


def sources(folder: Path | None = None) -> dict[str, Path]:
    """Return the source of each assignment by its name: ``folder``/NAME/NAME.ipynb, in order.

    Raises `LabkitError` if there are none.
    """
    folder = folder or assignments_dir()
    paths = sorted(folder.glob("*/*.ipynb"))
    found = {path.stem: path for path in paths if path.parent.name == path.stem}
    if not found:
        raise LabkitError(f"There are no assignments NAME/NAME.ipynb in {folder}.")
    return found


def release(source: Path) -> Any:
    """Return the students' copy of a source; raises `LabkitError` if its marks are wrong."""
    try:
        from nbgrader.preprocessors import (
            CheckCellMetadata,
            ClearHiddenTests,
            ClearOutput,
            ClearSolutions,
            ComputeChecksums,
            LockCells,
        )
    except ImportError:
        raise LabkitError(
            "Students' copies are made by nbgrader, which is not installed: pip install nbgrader."
        ) from None
    notebook = nbformat.read(source, as_version=4)
    resources: dict[str, Any] = {"metadata": {"name": source.stem}}
    for kind in (
        CheckCellMetadata,
        LockCells,
        ClearSolutions,
        ClearOutput,
        ClearHiddenTests,
        ComputeChecksums,
        CheckCellMetadata,
    ):
        try:
            notebook, resources = kind().preprocess(notebook, resources)
        except Exception as error:  # RuntimeError for marks, ValidationError for metadata
            raise LabkitError(f"{source} cannot be made into a students' copy: {error}.") from None
    return notebook


def build(out: Path, names: tuple[str, ...] = (), folder: Path | None = None) -> list[Path]:
    """Write the students' copies of the named assignments, or of all: ``out``/NAME/NAME.ipynb.

    Links to notebooks that are not where a copy would look for them become plain text.
    """
    chosen = {name: source_path(name, folder) for name in names} or sources(folder)
    paths = []
    for name, source in chosen.items():
        path, copy = out / name / f"{name}.ipynb", release(source)
        for cell in copy.cells:
            if cell.cell_type == "markdown" and "nbgrader" not in cell.metadata:
                cell.source = _without_dead_links(cell.source, path.parent)
        paths.append(write_whole(path, nbformat.writes(copy) + "\n"))
    return paths


def _without_dead_links(text: str, folder: Path) -> str:
    def mended(link: re.Match[str]) -> str:
        return link[0] if Path(os.path.normpath(folder / link[2])).exists() else f"*{link[1]}*"

    return re.sub(r"\[([^]]+)\]\(([^):#]+\.ipynb)(?:#[^)]*)?\)", mended, text)
