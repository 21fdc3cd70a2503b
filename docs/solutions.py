"""Runs the code of the worked solutions and writes what it prints: ``python -m docs.solutions``.

Each section of `solutions.md` belongs to one notebook. Its code blocks share their names; the
function ``cells`` runs cells of the notebook, by their ids, as far as a solution needs them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat

from labkit.course.run import course
from labkit.records import write_whole

SOLUTIONS = Path(__file__).parent / "lecturers" / "solutions.md"
SECTION = re.compile(r"^## (\d\d) .*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"```python( slow)?\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)


def sections(text: str) -> dict[str, str]:
    """Return the sections of the solutions by their notebook's number."""
    return {found[1]: found[0] for found in SECTION.finditer(text)}


def executed(section: str, slow: bool = False) -> str:
    """Return a section with the output of its code, run on `tiny` in an empty folder.

    Blocks that are marked ``slow`` keep the output that they have, unless ``slow``. Calibrations
    kept on this machine are not read: trees, and so the output, would depend on them.
    """
    number = SECTION.match(section)[1]  # type: ignore[index]
    path = next(path for path in course() if path.name.startswith(number))
    by_id = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    names: dict[str, Any] = {"__name__": "solutions", "display": print}

    def cells(*ids: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            for one in ids:
                exec(compile(by_id[one], f"{path.stem}:{one}", "exec"), names)

    def run(block: re.Match[str]) -> str:
        if block[1] and not slow:
            return block[0]
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(block[2], f"solutions of {number}", "exec"), names)
        lines = [
            line.rstrip() for line in said.getvalue().splitlines() if " object at 0x" not in line
        ]
        output = "\n```text\n" + "\n".join(lines) + "\n```\n" if lines else ""
        return f"```python{block[1] or ''}\n{block[2]}```\n{output}"

    names["cells"] = cells
    before, os.environ["LABKIT_BASE"] = os.environ.get("LABKIT_BASE"), "tiny"
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            mock.patch("labkit.speculative.calibrate.cache_dir", lambda: Path(folder, "cache")),
        ):
            return BLOCK.sub(run, section)
    finally:
        os.environ.pop("LABKIT_BASE")
        if before is not None:
            os.environ["LABKIT_BASE"] = before


def main() -> None:
    """Write the output of all code, or of the notebooks whose numbers are given."""
    for number, section in sections(SOLUTIONS.read_text(encoding="utf-8")).items():
        if number in sys.argv[1:] or not sys.argv[1:]:
            print(number, file=sys.stderr)
            made = executed(section, slow=True)
            text = SOLUTIONS.read_text(encoding="utf-8")
            write_whole(SOLUTIONS, text.replace(section, made))


if __name__ == "__main__":
    main()
