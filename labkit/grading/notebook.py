"""A submission compared with its source: what to run, what to test, and what was changed.

Cells are matched by nbgrader's ``grade_id``, or by their text if that is gone. Tests and locked
cells always have the source's text. A test runs after everything that precedes it in the source,
and after the student's own cells that follow that.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

BEGIN, END = "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"
"""nbgrader's markers around what students do not see of a test."""


class Unreadable(Exception):  # noqa: N818 - it is the student's mistake, and an outcome
    """A file that is not a notebook; the message says why in one sentence."""


@dataclass(frozen=True)
class GradedCell:
    """A graded cell of the source: its text, hidden lines included, and its points."""

    name: str
    text: str
    points: float

    @property
    def visible(self) -> str:
        """The text that students see."""
        return without_hidden(self.text)


@dataclass(frozen=True)
class PlannedCell:
    """A step of a plan: run a cell's ``text``, or keep the values that a ``test`` needs."""

    text: str
    test: str | None = None


@dataclass
class Plan:
    """What to run and to test, with a note for each thing that was changed."""

    steps: list[PlannedCell]
    tests: list[GradedCell]
    notes: list[str] = field(default_factory=list)
    older: bool = False


def read(path: Path) -> Any:
    """Read the notebook at ``path`` into today's format; raises `Unreadable`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror})") from None
    if not raw.strip():
        raise Unreadable("the file is empty")
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("the file is not text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the file is not valid JSON ({str(error)[:80]})") from None
    if not isinstance(found, dict) or "nbformat" not in found:
        raise Unreadable("the file is JSON, but no notebook")
    try:
        notebook = nbformat.reads(json.dumps(found), as_version=4)
        for part in (notebook, *notebook.cells):
            if not isinstance(part.get("metadata"), dict):
                part.metadata = NotebookNode()
        if not all(
            isinstance(text, str) for c in notebook.cells for text in (c.source, c.cell_type)
        ):
            raise TypeError("a cell has no source")
        return notebook
    except Exception as error:  # nbformat raises whatever it stumbles over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Unreadable(f"the file is no whole notebook ({reason})") from None


def graded_cells(source: Any) -> list[GradedCell]:
    """Return the source's tests, in order."""
    return [
        GradedCell(_name(cell), cell.source, float(_meta(cell)["points"]))
        for cell in source.cells
        if _is_test(cell)
    ]


def written_cells(source: Any) -> list[tuple[str, float]]:
    """Return the names and points of the source's written answers."""
    return [
        (_name(cell), float(_meta(cell)["points"]))
        for cell in source.cells
        if cell.cell_type == "markdown" and _name(cell) and _meta(cell).get("grade")
    ]


def plan(submission: Any, source: Any) -> Plan:
    """Return what to run of a submission, and where its tests belong."""
    kinds = {_name(cell): cell for cell in source.cells if _name(cell)}
    by_text = {
        without_hidden(cell.source): name
        for name, cell in kinds.items()
        if cell.cell_type == "code" and (_is_test(cell) or _is_given(cell))
    }
    items: list[tuple[str, PlannedCell]] = []  # each with its name, or ""
    seen: set[str] = set()
    for cell in submission.cells:
        name = _name(cell)
        if name not in kinds:
            name = by_text.get(cell.source, "") if cell.cell_type == "code" else ""
        known = kinds.get(name)
        if known is not None and (_is_test(known) or known.cell_type != "code"):
            continue
        if known is not None and _is_given(known):
            if name not in seen:
                items.append((name, PlannedCell(known.source)))
            seen.add(name)
        elif cell.cell_type == "code" and cell.source.strip():
            items.append((name, PlannedCell(cell.source)))
            seen.add(name)
    before: set[str] = set()
    for name, cell in kinds.items():
        place = 1 + max((i for i, (of, _) in enumerate(items) if of in before), default=-1)
        if _is_test(cell):
            while place < len(items) and not items[place][0]:
                place += 1
            items.insert(place, (name, PlannedCell("", test=name)))
        elif _is_given(cell) and name not in seen:
            items.insert(place, (name, PlannedCell(cell.source)))
        before.add(name)
    made = Plan([step for _, step in items], graded_cells(source))
    _look_over(made, submission, kinds)
    return made


def _look_over(made: Plan, submission: Any, kinds: dict[str, Any]) -> None:
    """Note what differs from the released copy, and whether it is of an older release."""
    names = Counter(_name(cell) for cell in submission.cells if _name(cell))
    if not names:
        made.notes.append("the cells' nbgrader metadata is gone: tests were run at the end")
        return
    edited: list[str] = []
    older: list[str] = []
    as_text: list[str] = []
    for cell in submission.cells:
        known = kinds.get(_name(cell))
        if known is None:
            continue
        if not (_is_test(known) or _is_given(known)):
            if known.cell_type == "code" != cell.cell_type:
                as_text.append(_name(cell))
        elif cell.source != without_hidden(known.source) or cell.cell_type != known.cell_type:
            (older if _untouched(cell) else edited).append(_name(cell))
    made.older = bool(older) or not set(names) <= set(kinds)
    if made.older:
        made.notes.append("it is of an older release: the present tests were used")
    graded = [name for name, cell in kinds.items() if cell.cell_type == "code"]
    for what, which in (
        ("edited and put back", edited),
        ("that are text now, not code, and did not run", as_text),
        ("missing", [name for name in graded if name not in names and not made.older]),
        ("there more than once", [name for name in graded if names[name] > 1]),
    ):
        if which:
            made.notes.append(f"cells {what}: {', '.join(dict.fromkeys(which))}")
    found = [name for name in names if name in graded]
    if found != [name for name in graded if name in found]:
        made.notes.append("cells are in another order")


def _untouched(cell: Any) -> bool:
    """Return whether the cell is as some release had it, by nbgrader's checksum in it."""
    checksum = cell.metadata["nbgrader"].get("checksum")
    if not checksum:
        return False
    try:
        from nbgrader.utils import compute_checksum

        return compute_checksum(cell) == checksum
    except Exception:  # half of the metadata is gone, or nbgrader is not installed
        return False


def _meta(cell: Any) -> dict[str, Any]:
    found = cell.metadata.get("nbgrader")
    return found if isinstance(found, dict) else {}


def _name(cell: Any) -> str:
    name = _meta(cell).get("grade_id")
    return name if isinstance(name, str) else ""


def _is_test(cell: Any) -> bool:
    return bool(_meta(cell).get("grade")) and not _meta(cell).get("solution")


def _is_given(cell: Any) -> bool:
    return bool(_meta(cell).get("locked")) and not _is_test(cell) and cell.cell_type == "code"


def hidden_lines(text: str) -> set[int]:
    """Return the numbers, from 1, of a test's hidden lines, markers included."""
    found, inside = set(), False
    for number, line in enumerate(text.split("\n"), start=1):
        inside = inside or BEGIN in line
        if inside:
            found.add(number)
        inside = inside and END not in line
    return found


def without_hidden(text: str) -> str:
    """Return a test as students see it."""
    hidden, lines = hidden_lines(text), text.split("\n")
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in hidden)
