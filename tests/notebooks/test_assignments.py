"""The assignments as students and graders meet them; each solution is graded once, in full."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_notebook

from labkit import load
from labkit.grading.build import assignments_dir, release, sources
from labkit.grading.judge import free_names
from labkit.grading.keeper import Limits
from labkit.grading.loop import Submission, grade
from labkit.grading.notebook import graded_cells, hidden_lines
from tests.elsewhere import imitate_a_device

SOURCES = sources()
NAMES = ("accept_or_reject", "heads", "minimum_bayes_risk", "trees")
LONGEST_CELL, WIDEST = 16, 110
LIMITS = Limits(cell_seconds=600, wall_seconds=1800)

every_assignment = pytest.mark.parametrize("name", list(SOURCES))


def source(name):
    return nbformat.read(SOURCES[name], as_version=4)


def kind(cell):
    meta = cell.metadata.get("nbgrader", {})
    if meta.get("grade") and meta.get("solution"):
        return "written"
    if meta.get("grade"):
        return "test"
    if meta.get("solution"):
        return "solution"
    return "given" if meta.get("locked") else "own"


def cells(name, *kinds):
    return [cell for cell in source(name).cells if kind(cell) in kinds]


def code(name, *kinds):
    return [cell for cell in cells(name, *kinds) if cell.cell_type == "code"]


def test_there_are_the_four():
    assert tuple(SOURCES) == NAMES


@every_assignment
def test_the_solution_gets_all_points_and_an_untouched_copy_none(name, tmp_path):
    solved = tmp_path / "in" / "solved" / name / f"{name}.ipynb"
    solved.parent.mkdir(parents=True)
    nbformat.write(without_marks(source(name)), solved)
    untouched = tmp_path / "in" / "untouched" / name / f"{name}.ipynb"
    untouched.parent.mkdir(parents=True)
    nbformat.write(release(SOURCES[name]), untouched)
    batch = [Submission("solved", name, solved), Submission("untouched", name, untouched)]
    full, empty = grade(batch, tmp_path / "out", LIMITS)
    assert (full.score, full.status) == (full.max_score, "graded"), full.comment
    assert (empty.score, empty.status) == (0, "graded"), empty.comment
    said = [outcome.says for outcome in empty.outcomes]
    assert all("returns nothing" in text or "did both phases run" in text for text in said), said
    shown = [output for cell in full.cells if "test" not in cell for output in cell["outputs"]]
    assert [
        one for one in shown if one["output_type"] == "error" or one.get("name") == "stderr"
    ] == []


def without_marks(notebook):
    """The solutions as a student would hand them in: no marks, and only the visible tests."""
    for cell in notebook.cells:
        if kind(cell) == "test":
            hidden = hidden_lines(cell.source)
            lines = enumerate(cell.source.split("\n"), start=1)
            cell.source = "\n".join(line for number, line in lines if number not in hidden)
        else:
            cell.source = re.sub(r" *### (BEGIN|END) SOLUTION\n?", "", cell.source)
    return notebook


@every_assignment
def test_no_line_of_a_solution_or_hidden_test_is_in_the_copy(name):
    copy = "\n".join(cell.source for cell in release(SOURCES[name]).cells).splitlines()
    handed_out = set(map(str.strip, copy))
    secret = []
    for cell in source(name).cells:
        inside = False
        for line in cell.source.split("\n"):
            inside = (inside or "### BEGIN" in line) and "### END" not in line
            if inside and len(line.strip()) > 12 and "### BEGIN" not in line:
                secret.append(line.strip())
    assert len(secret) > 20
    visible = {
        line.strip() for cell in cells(name, "own", "given") for line in cell.source.split("\n")
    }
    assert set(secret) & handed_out <= visible | {"finding = check", "else:"}


@every_assignment
def test_each_solution_is_followed_by_a_test_with_other_numbers_hidden(name):
    order = [kind(cell) for cell in source(name).cells if kind(cell) in {"solution", "test"}]
    assert all(b == "test" for a, b in pairwise(order) if a == "solution")
    for test in graded_cells(source(name)):
        assert hidden_lines(test.text), test.name
        assert test.points > 0
        assert test.visible.count("assert ") == 1
    visible = [re.findall(r"\d{3}", test.visible) for test in graded_cells(source(name))]
    assert visible == [[]] * len(visible)  # the seeds of hidden tests have three figures


@every_assignment
def test_a_test_uses_what_the_student_makes_and_imports_all_else(name):
    made = {
        node.id if isinstance(node, ast.Name) else node.name
        for cell in code(name, "solution", "given")
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    for test in graded_cells(source(name)):
        assert free_names(test.text), test.name
        assert set(free_names(test.text)) <= made, test.name


@every_assignment
def test_the_opening_says_what_it_takes_and_what_it_is_worth(name):
    first = source(name).cells[0].source
    assert first.startswith("# Assignment: ")
    for part in ("**Afterwards you can**", "**You need**", "about two hours", "YOUR CODE HERE"):
        assert part in first
    auto = sum(test.points for test in graded_cells(source(name)))
    (written,) = cells(name, "written")
    by_hand = written.metadata["nbgrader"]["points"]
    assert f"| **Points** | {auto:g} by tests, {by_hand:g} for the written answer |" in first
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", first):
        assert (SOURCES[name].parent / link).exists(), link


@every_assignment
def test_cells_are_short_have_names_and_keep_no_output(name):
    notebook = source(name)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cell.id)
        meta = cell.metadata.get("nbgrader")
        assert meta is None or meta["grade_id"] == cell.id
        if cell.cell_type == "code":
            assert cell.outputs == []
            longest = 32 if kind(cell) in {"solution", "test"} else LONGEST_CELL
            assert len(cell.source.splitlines()) <= longest, cell.id
            assert all(len(line) <= WIDEST for line in cell.source.splitlines()), cell.id


@every_assignment
def test_it_holds_no_path_of_a_machine(name):
    raw = SOURCES[name].read_text(encoding="utf-8")
    assert not re.search(r"/home/|/Users/|/root/|/work/|/tmp/|[A-Z]:\\\\", raw)


def test_a_notebook_without_marks_is_left_as_it_is():
    assert without_marks(new_notebook()) == new_notebook()


def test_the_folder_holds_the_sources_alone():
    found = {path.name for path in assignments_dir().rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith(".")} == {f"{n}.ipynb" for n in NAMES}


def run_cells(name, cell_ids, base):
    """Run some cells of an assignment with ``base`` as its model; returns what they define."""
    by_id = {cell.id: cell.source for cell in source(name).cells}
    namespace = {"np": np, "torch": torch, "load": lambda _: base, "base_name": lambda: "tiny"}
    for cell in cell_ids:
        exec(by_id[cell], namespace)
    return namespace


@pytest.mark.parametrize("elsewhere", [False, True])
def test_assignments_feed_a_model_in_bfloat16_and_on_another_device(elsewhere, monkeypatch):
    base = load("tiny", dtype="bfloat16")
    wanted = base.module(torch.tensor([[5, 6, 7]])).logits[0].float().detach()
    if elsewhere:
        imitate_a_device(monkeypatch, base)
    chain = run_cells("accept_or_reject", ["real"], base)
    found = chain["next_token"]([5, 6, 7])
    assert type(found) is np.ndarray
    assert np.abs(found - wanted[-1].softmax(-1).numpy()).max() < 1e-6
    tree = run_cells("trees", ["positions", "mask", "paths"], base)
    tree |= {"Decoder": lambda _: SimpleNamespace(base=base), "EXAMPLE": [-1, -1, 0, 0, 1, 2]}
    for cell in source("trees").cells:
        if cell.id in ("pass-tree", "pass-run"):
            exec(cell.source, tree)
    assert torch.allclose(tree["last_logits"]([5, 6, 7]), wanted)
    alone = tree["last_logits"]([*tree["context"], 11, 13])[-1]
    at_once = tree["at_once"][len(tree["context"]) + 2]
    assert type(alone) is torch.Tensor
    assert (at_once - alone).abs().max() < 0.05 * alone.abs().max()


@every_assignment
def test_the_rubric_gives_each_point_of_the_written_answer(name):
    (answer,) = cells(name, "written")
    rubric = answer.source.partition("**Rubric**")[2]
    points = [int(number) for number in re.findall(r"^\* (\d) points?: \S", rubric, re.MULTILINE)]
    assert sum(points) == answer.metadata["nbgrader"]["points"]
    assert "Rubric" not in "".join(cell.source for cell in release(SOURCES[name]).cells)
