"""The folder that students get: the course, the released assignments, and what they need to run.

Only what is listed here is copied, so that nothing of the teacher's comes along: no tests, no
solutions, no teacher's pages. The released assignments are in the place of their sources, so the
links between notebooks hold.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from labkit.course.run import course, notebooks_dir
from labkit.errors import LabkitError
from labkit.grading.build import build
from labkit.paths import data_dir
from labkit.records.base import write_whole

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


def write_students(out: Path) -> Path:
    """Write the course, the released assignments, the package and its data into ``out``.

    A folder that an earlier call wrote is replaced. Raises `LabkitError` if ``out`` holds anything
    else, or cannot be written.
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
