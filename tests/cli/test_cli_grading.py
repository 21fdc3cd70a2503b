"""``labkit assignments`` and ``labkit grade``: what they are given, print and write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell

from labkit.cli import main
from labkit.grading.build import release, source_path, sources
from labkit.grading.gradebook import Grade, write_table


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
    assert table[0] == "student,assignment,status,score,max_score,written,written_max,comment"
    assert table[1].startswith("ada,trees,unreadable,0,19,,5,")
    again = run("grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert "ada      trees       unreadable  0 of 19" in again.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_name_that_the_terminal_cannot_show_is_printed_with_replacements(tmp_path, encoding):
    path = tmp_path / "in" / "Łukasz" / "trees" / "trees.ipynb"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", "grade", tmp_path / "in", "--out", tmp_path / "out"],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"?ukasz   trees       unreadable" in done.stdout
    assert "Łukasz,trees,unreadable" in (tmp_path / "out" / "grades.csv").read_text("utf-8")


def test_copies_without_nbgrader_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbgrader.preprocessors", None)
    done = run("assignments", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert "nbgrader, which is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_students_get_a_folder_of_the_course(tmp_path):
    done = run("students", "--out", str(tmp_path / "students"), "--json")
    assert json.loads(done.stdout) == {"folder": str(tmp_path / "students")}
    done = run("students", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert "holds other files" in done.stderr


def test_grades_go_into_a_gradebook_or_one_sentence_says_why_not(tmp_path):
    table = write_table([Grade("ada", "trees", "missing", 0, 19, "", "3", 5)], tmp_path / "g.csv")
    db = f"sqlite:///{tmp_path / 'gradebook.db'}"
    done = run("gradebook", str(table), "--db", db, "--json")
    assert json.loads(done.stdout) == {"entered": 1, "db": db}
    done = run("gradebook", str(tmp_path / "none.csv"), "--db", db)
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr


def test_a_folder_without_submissions_is_one_sentence(tmp_path):
    done = run("grade", str(tmp_path))
    assert done.exit_code == 2
    assert "There are no submissions" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there a console's interrupt is another thing")
def test_interrupted_it_leaves_nothing_running_and_goes_on_later(tmp_path):
    started = tmp_path / "started"
    work = release(source_path("trees"))
    waiting = f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(1000)"
    work.cells.insert(1, new_code_cell(waiting))
    for student, content in (("ada", b"{"), ("ben", nbformat.writes(work).encode())):
        path = tmp_path / "in" / student / "trees" / "trees.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    command = [sys.executable, "-m", "labkit.cli", "grade", str(tmp_path / "in")]
    # A shell's background job, as these tests may be, ignores interrupts; so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    below = psutil.Process(loop.pid).children(recursive=True)
    assert len(below) >= 3  # keeper, examiner, kernel
    loop.send_signal(signal.SIGINT)
    _, said = loop.communicate(timeout=60)
    assert loop.returncode == 130
    assert "labkit: Interrupted." in said
    assert psutil.wait_procs(below, timeout=10)[1] == []
    table = (tmp_path / "out" / "grades.csv").read_text(encoding="utf-8")
    assert "ada,trees,unreadable" in table
    assert "ben" not in table
