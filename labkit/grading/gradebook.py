"""The table of grades that a teacher reads and completes, and nbgrader's gradebook from it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError
from labkit.grading.build import sources
from labkit.grading.judge import Outcome
from labkit.grading.notebook import graded_cells, read, written_cells
from labkit.records.base import write_whole

COLUMNS = (
    "student", "assignment", "status", "score", "max_score", "written", "written_max", "comment",
)  # fmt: skip
"""The table's columns. ``score`` is by the tests; the teacher fills in ``written``."""


@dataclass
class Grade:
    """The result for a submission: a row of the table and the content of its page."""

    student: str
    assignment: str
    status: str
    score: float = 0.0
    max_score: float = 0.0
    comment: str = ""
    written: str = ""
    written_max: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)


def write_table(
    grades: Sequence[Grade], path: Path, earlier: Iterable[dict[str, str]] = ()
) -> Path:
    """Write the table, one row a submission, with the ``earlier`` rows of those not yet graded."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for one in grades:
        scores = {name: f"{getattr(one, name):g}" for name in ("score", "max_score", "written_max")}
        writer.writerow(vars(one) | scores)
    writer.writerows(earlier)
    return write_whole(path, text.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table of grades, in which the teacher may have filled in the ``written`` points.

    Raises `LabkitError` if it is no such table, or such points are not from 0 to ``written_max``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise LabkitError(f"The table {path} cannot be read: {reason}.") from None
    for row in rows:
        if not set(COLUMNS) <= set(row) or None in row.values():
            raise LabkitError(f"{path} is no table of grades: it needs {', '.join(COLUMNS)}.")
        written, most = row["written"].strip() or "0", row["written_max"]
        with contextlib.suppress(ValueError):  # no number is as wrong as one too large
            if 0 <= float(written) <= float(most):
                continue
        raise LabkitError(
            f"In {path} the written points of {row['student']} in {row['assignment']} are "
            f"{written!r}: give a number from 0 to {most}."
        )
    return rows


def enter(table: Path, database: str, folder: Path | None = None) -> int:
    """Enter the rows of ``table`` (grades.csv) into the gradebook at ``database``, an nbgrader URL.

    The points of single tests are those kept with the table. Returns how many rows were entered;
    rows of unknown assignments are left out. Raises `LabkitError` if nbgrader is not installed, the
    gradebook cannot be opened, or the table does not belong to what is kept with it.
    """
    try:
        from nbgrader.api import Gradebook
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise LabkitError(
            "The gradebook is nbgrader's, which is not installed: pip install nbgrader."
        ) from None
    # nbgrader calls alembic, which is installed with this Python, by its bare name.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    known = sources(folder)
    rows = [row for row in read_table(table) if row["assignment"] in known]
    try:
        opened = Gradebook(database)
    except SQLAlchemyError as error:
        reason = str(error).partition("\n")[0]
        raise LabkitError(f"The gradebook {database} cannot be opened: {reason}.") from None
    with opened as book:
        for row in rows:
            name, student = row["assignment"], row["student"]
            source = read(known[name])
            passed = _passed(table.parent / "graded" / student / f"{name}.json")
            tests = {test.name: test.points for test in graded_cells(source)}
            answers = dict(written_cells(source))
            scores = {test: points * (test in passed) for test, points in tests.items()}
            if abs(sum(scores.values()) - float(row["score"])) > 1e-6:
                raise LabkitError(
                    f"In {table} {student} has {row['score']} points in {name}, and the tests kept "
                    f"with it give {sum(scores.values()):g}: run `labkit grade` again."
                )
            book.update_or_create_assignment(name)
            book.update_or_create_notebook(name, name)
            for kind, cells in (("code", tests), ("markdown", answers)):
                for cell, points in cells.items():
                    book.update_or_create_grade_cell(
                        cell, name, name, max_score=points, cell_type=kind
                    )
            book.update_or_create_student(student)
            book.update_or_create_submission(name, student)
            for cell, score in scores.items():
                book.find_grade(cell, name, name, student).auto_score = score
            if row["written"].strip():
                left = float(row["written"])
                for cell, points in answers.items():
                    grade = book.find_grade(cell, name, name, student)
                    grade.manual_score, grade.needs_manual_grade = min(left, points), False
                    left -= grade.manual_score
        book.db.commit()
    return len(rows)


def _passed(kept: Path) -> set[str]:
    """Return the tests that a submission passed; none if nothing is kept of it."""
    try:
        grade = json.loads(kept.read_text(encoding="utf-8"))["grade"]
        nothing = grade["status"] in ("tampered", "unreadable")
        return {one["test"] for one in grade["outcomes"] if one["passed"] and not nothing}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
