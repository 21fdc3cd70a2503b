"""From a table of grades into nbgrader's gradebook, with each test's and each answer's points."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from labkit.errors import LabkitError
from labkit.grading.build import sources
from labkit.grading.loop import read_table
from labkit.grading.notebook import graded_cells, read, written_cells


def enter(table: Path, database: str, folder: Path | None = None) -> int:
    """Enter the rows of ``table`` (grades.csv) into the gradebook at ``database``, an nbgrader URL.

    The points of single tests are those kept with the table. Returns how many rows were entered;
    rows of unknown assignments are left out. Raises `LabkitError` if nbgrader is not installed, or
    the table does not belong to what is kept with it.
    """
    try:
        from nbgrader.api import Gradebook
    except ImportError:
        raise LabkitError(
            "The gradebook is nbgrader's, which is not installed: pip install nbgrader."
        ) from None
    # nbgrader calls alembic, which is installed with this Python, by its bare name.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    known = sources(folder)
    rows = [row for row in read_table(table) if row["assignment"] in known]
    with Gradebook(database) as book:
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
