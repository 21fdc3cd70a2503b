"""``labkit assignments`` and ``labkit grade``: what they are given, print and write."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.grading.build import sources


def run(*words: str):
    return CliRunner().invoke(main, list(words))


def test_copies_of_all_assignments_are_written(tmp_path):
    done = run("assignments", "--out", str(tmp_path), "--json")
    assert done.exit_code == 0, done.stderr
    names = list(sources())
    assert len(json.loads(done.stdout)["files"]) == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_one_assignment_may_be_named_and_a_strange_name_is_one_sentence(tmp_path):
    done = run("assignments", "accept_or_reject", "--out", str(tmp_path))
    assert done.stdout.strip().endswith("accept_or_reject.ipynb")
    done = run("assignments", "knitting", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert "There is no assignment 'knitting'; there are accept_or_reject" in done.stderr


@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_submission_that_is_no_notebook_is_a_row(tmp_path, content):
    path = tmp_path / "in" / "ada" / "trees" / "trees.ipynb"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    done = run("grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)["grades"]
    assert (row["student"], row["status"], row["score"]) == ("ada", "unreadable", 0)
    table = (tmp_path / "out" / "grades.csv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "student,assignment,status,score,max_score,comment"
    assert table[1].startswith("ada,trees,unreadable,0,19,")
    again = run("grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert "ada      trees       unreadable  0 of 19" in again.stdout


def test_a_folder_without_submissions_is_one_sentence(tmp_path):
    done = run("grade", str(tmp_path))
    assert done.exit_code == 2
    assert "There are no submissions" in done.stderr
