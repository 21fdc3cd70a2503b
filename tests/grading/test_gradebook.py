"""Grades in nbgrader's gradebook: what a table and the results beside it say, and nothing else."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest
from nbgrader.api import Gradebook

from labkit.errors import LabkitError
from labkit.grading.gradebook import Grade, enter, write_table
from labkit.grading.judge import Outcome
from tests.grading import made

PASSED = [Outcome("test-keep", True, "right"), Outcome("test-spend", False, "no")]


@pytest.fixture
def folder(tmp_path):
    return made.write_source(tmp_path / "source")


def graded(out, *grades):
    for one in grades:
        kept = out / "graded" / one.student / f"{one.assignment}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"state": "", "grade": asdict(one)}), encoding="utf-8")
    return write_table(grades, out / "grades.csv")


def test_points_of_tests_and_of_the_written_answer_are_entered(tmp_path, folder):
    table = graded(
        tmp_path,
        Grade("ada", made.NAME, "graded", 2, 5, "", "0.5", 1, PASSED),
        Grade("ben", made.NAME, "unreadable", 0, 5, "", "", 1, PASSED),
        Grade("ben", "cooking", "unknown assignment"),
    )
    db = f"sqlite:///{tmp_path / 'gradebook.db'}"
    assert enter(table, db, folder) == 2
    table.write_text(table.read_text(encoding="utf-8").replace("0.5,1", "1,1"), encoding="utf-8")
    assert enter(table, db, folder) == 2  # a second time it brings the same rows up to date
    with Gradebook(db) as book:
        ada = book.find_submission(made.NAME, "ada")
        assert (ada.score, ada.max_score) == (3, 6)
        found = {
            grade.name: (grade.auto_score, grade.manual_score) for grade in ada.notebooks[0].grades
        }
        assert found == {"test-keep": (2, None), "test-spend": (0, None), "why": (None, 1)}
        assert book.find_submission(made.NAME, "ben").score == 0
        assert [one.name for one in book.assignments] == [made.NAME]


def test_a_table_that_does_not_belong_to_the_results_is_one_sentence(tmp_path, folder):
    table = graded(tmp_path, Grade("ada", made.NAME, "graded", 5, 5, "", "", 1, PASSED))
    with pytest.raises(LabkitError, match="ada has 5 points in small, and the tests kept with"):
        enter(table, f"sqlite:///{tmp_path / 'gradebook.db'}", folder)


@pytest.mark.parametrize("db", ["nope://x", "nonsense", "sqlite:////nowhere/at/all.db"])
def test_a_gradebook_that_cannot_be_opened_is_one_sentence(db, tmp_path, folder):
    table = graded(tmp_path, Grade("ada", made.NAME, "graded", 2, 5, "", "", 1, PASSED))
    with pytest.raises(LabkitError, match=r"^The gradebook \S+ cannot be opened: [^\n]+$"):
        enter(table, db, folder)


def test_without_nbgrader_it_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader.api", None)
    with pytest.raises(LabkitError, match="not installed"):
        enter(tmp_path / "grades.csv", "sqlite://")
