"""A small assignment with two exercises, and what students hand in of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAME = "small"
ROOT = Path(__file__).resolve().parents[2]
LONG = 40
"""Characters of a line that nobody else would write."""


def _meta(name: str, **kinds: Any) -> dict[str, Any]:
    meta = {"grade": False, "grade_id": name, "locked": False, "schema_version": 3}
    return {"nbgrader": {**meta, "solution": False, "task": False, **kinds}}


SETUP = "import numpy as np\n\nSCALE = 2"
KEEP = """def keep(x, p, q):
    ### BEGIN SOLUTION
    return min(1, p[x] / q[x])
    ### END SOLUTION"""
KEEP_TEST = """from labkit.checks import verification

finding = verification.keeping(keep)
assert finding.right, finding
### BEGIN HIDDEN TESTS
assert verification.keeping(keep, seed=41, vocabulary=7).right, "SECRET-SEED"
### END HIDDEN TESTS
print(finding)"""
SPEND = """def spend(many, much, score, budget, rng):
    ### BEGIN SOLUTION
    seen = rng.choice(much, size=budget // many, replace=False)
    return score(range(many), seen).mean(axis=1).argmax()
    ### END SOLUTION"""
SPEND_TEST = """import numpy as np

from labkit.checks import approximate

problems = [np.random.default_rng(1).random((4, 40))]
finding = approximate.within_budget(spend, problems, least=-2)
assert finding.right, finding
### BEGIN HIDDEN TESTS
problems = [np.random.default_rng(43).random((3, 50))]
assert approximate.within_budget(spend, problems, least=-2).right
### END HIDDEN TESTS"""
POINTS = {"test-keep": 2, "test-spend": 3}


def source() -> Any:
    """The assignment with solutions and hidden tests."""
    grade = {"grade": True, "locked": True}
    cells = [
        new_markdown_cell("# Small", id="opening"),
        new_code_cell(SETUP, id="setup", metadata=_meta("setup", locked=True)),
        new_code_cell(KEEP, id="keep", metadata=_meta("keep", solution=True)),
        new_code_cell(KEEP_TEST, id="test-keep", metadata=_meta("test-keep", points=2, **grade)),
        new_code_cell(SPEND, id="spend", metadata=_meta("spend", solution=True)),
        new_code_cell(SPEND_TEST, id="test-spend", metadata=_meta("test-spend", points=3, **grade)),
        new_markdown_cell(
            "### BEGIN SOLUTION\nBecause.\n### END SOLUTION",
            id="why",
            metadata=_meta("why", grade=True, solution=True, points=1),
        ),
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": spec})


def write_source(folder: Path) -> Path:
    """The source in nbgrader's layout; returns the folder of all assignments."""
    path = folder / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(source(), path)
    return folder


RIGHT_KEEP = "return min(1, p[x] / q[x])"
RIGHT_SPEND = """seen = rng.choice(much, size=budget // many, replace=False).tolist()
    return score(list(range(many)), seen).mean(axis=1).argmax()"""


def solved(copy: Any, keep: str = RIGHT_KEEP, spend: str = RIGHT_SPEND) -> Any:
    """A students' copy with the stubs replaced."""
    for cell, text in ((of(copy, "keep"), keep), (of(copy, "spend"), spend)):
        stub = "# YOUR CODE HERE\n    raise NotImplementedError()"
        assert stub in cell.source
        cell.source = cell.source.replace(stub, text)
    return copy


def of(notebook: Any, name: str) -> Any:
    """The cell with that grade_id."""
    cells = (cell for cell in notebook.cells if "nbgrader" in cell.metadata)
    return next(cell for cell in cells if cell.metadata["nbgrader"]["grade_id"] == name)


def hand_in(folder: Path, student: str, work: Any) -> Path:
    """Put a notebook, or raw bytes, where a student hands it in."""
    path = folder / student / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True)
    if isinstance(work, bytes):
        path.write_bytes(work)
    else:
        path.write_text(json.dumps(work), encoding="utf-8")
    return path


def lecturers_words() -> set[str]:
    """Return the longest plain part of each line that is written for lecturers alone."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "docs/lecturers").glob("*.md"))
    prose = re.sub(r"^(```.*?^```|[#|].*?)$", "", "\n".join(texts), flags=re.DOTALL | re.MULTILINE)
    parts = (max(re.split(r"[*`|<&]", line), key=len).strip() for line in prose.split("\n"))
    return {part for part in parts if len(part) > LONG}
