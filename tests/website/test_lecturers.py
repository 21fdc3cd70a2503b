"""What is written for lecturers: solutions whose code runs, notes that fit the notebooks."""

from __future__ import annotations

import re

import nbformat
import pytest

from docs import expected, solutions, stage
from labkit.course.run import course

SOLUTIONS = solutions.sections(solutions.SOLUTIONS.read_text(encoding="utf-8"))
NOTES = solutions.sections(expected.NOTES.read_text(encoding="utf-8"))

every_notebook = pytest.mark.parametrize("path", course(), ids=lambda path: path.stem)


def text(path):
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@every_notebook
def test_the_solutions_print_what_they_say(path):
    section = SOLUTIONS[path.name[:2]]
    assert solutions.executed(section) == section


@every_notebook
def test_every_exercise_has_a_solution_and_every_check_is_passed(path):
    section = SOLUTIONS[path.name[:2]]
    exercises = re.split(r"^##+ (?:Exercises|To try)$", text(path), flags=re.MULTILINE)[1]
    asked = re.findall(r"^(?:\*\*)?(\d+)\. ", exercises.split("## What you")[0], re.MULTILINE)
    solved = re.findall(
        r"(\d+)\.", " ".join(re.findall(r"^\*\*(\d.*?)\*\*", section, re.MULTILINE))
    )
    assert asked
    assert set(asked) <= set(solved)
    assert "Not yet:" not in section


@every_notebook
def test_the_minutes_of_the_sections_add_up_to_the_notebooks(path):
    plan = NOTES[path.name[:2]].split("**What students")[0]
    rows = re.findall(r"^\| (.+?) \| (\d+) \|$", plan, re.MULTILINE)
    *sections, (exercises, more) = rows
    headings = re.findall(r"^## (.+)$", text(path), re.MULTILINE)
    assert [name for name, _ in sections] == ["Opening", *(h for h in headings if h != "Exercises")]
    assert sum(int(minutes) for _, minutes in sections) == stage.minutes(path)
    assert exercises == "Exercises, on top"
    assert f"and {more} more for the exercises" in stage.says(path, "It takes")


@every_notebook
def test_an_expected_number_is_listed_for_every_prediction(path):
    asked = re.findall(r'^predict\("(.+?)",', "\n".join(code(path)), re.MULTILINE)
    listed = re.findall(r"^\| (.+?) \| .+ \|$", NOTES[path.name[:2]], re.MULTILINE)
    unmeasured = {
        "n-gram drafting on a server, times as fast",  # without a server there is none
        "with integers, three tokens cost",  # tiny has no quantised weights
    }
    assert set(asked) - unmeasured <= set(listed)


def code(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]
