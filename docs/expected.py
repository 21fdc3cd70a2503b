"""Writes the expected numbers into the lecturer notes: ``python -m docs.expected``.

They are read from the notebooks that ``make docs`` ran, on `tiny` and on whatever other base it
was given; a base that a notebook was not run on has no column there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from docs.executed import kept
from labkit.records import write_whole

NOTES = Path(__file__).parent / "lecturers" / "notes.md"
BASES = ("tiny", "real")
COMPARED = re.compile(r"(?P<name>.+?): (?P<value>.+)\. \(You made no prediction here\.\)")


def compared(notebook: Any) -> Iterator[tuple[str, str]]:
    """Yield each prediction of an executed notebook with its measured value."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            found = COMPARED.fullmatch(output.get("data", {}).get("text/plain", ""))
            if found:
                yield found["name"], found["value"]


def table(number: str) -> str:
    """Return a notebook's expected numbers as a Markdown table, a column for each base."""
    columns = {
        base: dict(compared(nbformat.read(path, as_version=4)))
        for base in BASES
        for path in kept(base).glob(f"{number}_*.ipynb")
    }
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [("prediction", *(f"on `{base}`" for base in columns))]
    rows += [(":--",) * (1 + len(columns))]
    rows += [(name, *(column.get(name, "") for column in columns.values())) for name in names]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def main() -> None:
    """Write every notebook's table that there is a run for."""
    text = NOTES.read_text(encoding="utf-8")

    def renewed(section: re.Match[str]) -> str:
        made = table(section[2])
        return section[1] + (made if made.count("\n") > 2 else section[3])

    pattern = r"(^## (\d\d) .*?\*\*Expected numbers\.\*\*\n\n)((?:\|[^\n]*\n)+)"
    write_whole(NOTES, re.sub(pattern, renewed, text, flags=re.DOTALL | re.MULTILINE))


if __name__ == "__main__":
    main()
