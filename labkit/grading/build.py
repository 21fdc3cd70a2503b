"""What students get: copies of the assignments, and the folder of the whole course.

Copies are made by nbgrader's own preprocessors. No solution, no hidden test, checksums and locks as
nbgrader writes them: the same notebook that ``nbgrader generate_assignment`` makes, without its
database.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat

from labkit.course.run import course, notebooks_dir
from labkit.errors import LabkitError
from labkit.paths import data_dir
from labkit.records.base import write_whole

PREPROCESSORS = (
    "CheckCellMetadata", "LockCells", "ClearSolutions", "ClearOutput", "ClearHiddenTests",
    "ComputeChecksums", "CheckCellMetadata",
)  # fmt: skip
"""nbgrader's own, in its order."""
PACKAGE = Path(__file__).resolve().parents[1]
MARK = ".labkit-students"
"""The file by which a folder is known as one that this module wrote."""
ROOT_FILES = (
    "pyproject.toml", "constraints.txt", "environment.yml", "postBuild", "Makefile", "LICENSE*",
    "CITATION.cff", "docs/glossary.md", "docs/transformer.md", "docs/capstone.md",
)  # fmt: skip
"""Copied as they are: what `make lab` needs, and the pages that notebooks link to."""
PICTURES = (".svg", ".png")
README = """# labkit: how language models decode

This is the course as students get it. `make lab` sets up what is missing and opens the first
notebook; `labkit doctor` says what is missing and how to get it.

* `notebooks`: the course, in reading order. Predictions are kept next to the notebooks.
* `notebooks/assignments`: graded work. Put your code where it says `YOUR CODE HERE`, and hand in
  `NAME.ipynb` under that name.
"""


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
        import nbgrader.preprocessors as kinds
    except ImportError:
        raise LabkitError(
            "Students' copies are made by nbgrader, which is not installed: pip install nbgrader."
        ) from None
    notebook = nbformat.read(source, as_version=4)
    resources: dict[str, Any] = {"metadata": {"name": source.stem}}
    for name in PREPROCESSORS:
        try:
            notebook, resources = getattr(kinds, name)().preprocess(notebook, resources)
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


def write_students(out: Path) -> Path:
    """Write the course, the released assignments, the package and its data into ``out``.

    Only what is listed in this module is copied, so nothing of the teacher's comes along: no tests,
    no solutions, no teacher's pages. The released assignments are in the place of their sources, so
    the links between notebooks hold. A folder that an earlier call wrote is replaced. Raises
    `LabkitError` if ``out`` holds anything else, or cannot be written.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARK).is_file():
        raise LabkitError(f"The folder {out} holds other files: name an empty or a new one.")
    root = notebooks_dir().parent
    pictures = [path for path in notebooks_dir().rglob("*") if path.suffix in PICTURES]
    files = [path for name in ROOT_FILES for path in root.glob(name)] + course()
    files += [path for path in pictures if "assignments" not in path.parts]
    try:
        shutil.rmtree(out, ignore_errors=True)
        write_whole(out / MARK, "")
        for path in files:
            target = out / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        build(out / "notebooks" / "assignments")
        write_whole(out / "README.md", README)
        clutter = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(PACKAGE, out / PACKAGE.name, ignore=clutter)
        if PACKAGE not in data_dir().parents:
            shutil.copytree(data_dir(), out / "data", ignore=clutter)
    except OSError as error:
        raise LabkitError(f"Cannot write {out}: {error.strerror or error}.") from None
    return out
