"""A whole batch: good submissions among broken and hostile ones, each with a row that says why."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell

from labkit.errors import LabkitError
from labkit.grading.build import PACKAGE, release
from labkit.grading.gradebook import COLUMNS, Grade, read_table, write_table
from labkit.grading.keeper import Limits
from labkit.grading.loop import find, grade, staged
from tests.grading import made

FULL = 5.0
LIMITS = Limits(cell_seconds=15, wall_seconds=240, memory_mb=1500, output_kb=100)
BOMB = "x = []\nwhile True:\n    x.append(bytearray(50_000_000))"
SLEEP = f"time.sleep(3000 + {os.getpid()})"
ORPHAN = f"""import subprocess, sys
subprocess.Popen(
    [sys.executable, "-c", "import time; {SLEEP}"], start_new_session=True, env={{}}
)"""
ALWAYS = """class Always:
    def __eq__(self, other): return True
    def __getattr__(self, name): return self
    def __call__(self, *args, **settings): return self
    def __float__(self): return 0.5
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __lt__
    def __array__(self, *args, **settings): return self
    __hash__ = None
"""
PATCHED = """import builtins, sys
import labkit.checks, labkit.checks.verification, labkit.checks.answers
import numpy as np

right = labkit.checks.Finding(True, "right")
for name in dir(labkit.checks.verification):
    if name.islower() and not name.startswith("_"):
        setattr(labkit.checks.verification, name, lambda *args, **settings: right)
labkit.checks.answers.numbers = lambda *args: np.zeros(5)
np.abs = lambda *args, **settings: np.zeros(1)
builtins.AssertionError = KeyError
finding, verification, approximate, problems = right, labkit.checks.verification, None, []
get_ipython().ast_transformers.clear()
"""
BAD = """class Bad(Exception):
        def __str__(self): {}
    raise Bad"""
SURROGATE = "\\ud83d"  # half of a character, written as a student would write it
MADE_UP = """kernel = get_ipython().kernel
for kind, content in (
    ("stream", {"name": "stdout", "text": 3}),
    ("stream", {}),
    ("display_data", {"data": 3}),
    ("display_data", {"data": {"text/plain": 3, "image/png": [1]}, "metadata": 4}),
    ("error", {"ename": 3, "evalue": None, "traceback": [3]}),
    ("error", {}),
    ("execute_result", {"data": {}}),
    ("status", {}),
):
    kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent())
"""
FORGED = """import os
for number in range(1, 30):
    for text in (b'{"test": "test-keep", "passed": true, "says": "x"}\\n', b'{"done": true}\\n'):
        try:
            os.write(number, text)
        except OSError:
            pass
"""


def insert(work, text, before="test-keep"):
    """The work with a cell of the student's own in front of a test."""
    work.cells.insert(work.cells.index(made.of(work, before)), new_code_cell(text))
    return work


def duplicated(work):
    place = work.cells.index(made.of(work, "test-keep"))
    work.cells.insert(place + 1, nbformat.from_dict(work.cells[place]))
    return work


def reordered(work):
    work.cells.reverse()
    return work


def edited(work):
    made.of(work, "test-keep").source = "assert True"
    return work


def without(work, name):
    work.cells.remove(made.of(work, name))
    return work


def bare(work):
    for cell in work.cells:
        cell.metadata = {}
    return work


def older(work):
    made.of(work, "test-keep").metadata["nbgrader"]["grade_id"] = "test-of-last-year"
    return work


def turned_into(work, name, kind):
    made.of(work, name).cell_type = kind
    return work


def kernel(work):
    work.metadata.kernelspec = {"name": "julia-1.9", "display_name": "Julia", "language": "julia"}
    return work


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def copy(folder):
    """A function that makes a fresh students' copy."""
    return lambda: release(folder / made.NAME / f"{made.NAME}.ipynb")


def submissions(copy):
    """By student: what is handed in, the status it must get, its score, and part of the comment."""

    def solved(**changes):
        return made.solved(copy(), **changes)

    loop = "while True: pass"
    ignoring = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{loop}"
    late = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n    {loop}"
    always = f"{ALWAYS}keep = spend = Always()"
    return {
        "good-1": (solved(), "graded", FULL, "every test is passed"),
        "untouched": (copy(), "graded", 0, "no test is passed"),
        "half": (solved(spend="return 99"), "graded", 2, "not right: test-spend"),
        "swapped": (solved(keep="return min(1, q[x] / p[x])"), "graded", 3, "test-keep"),
        "raises": (solved(keep="raise RuntimeError('no')"), "graded", 3, "test-keep"),
        "syntax": (solved(keep="return ("), "graded", 3, "not right: test-keep"),
        "endless-cell": (insert(solved(), loop), "time limit", FULL, "left out: it ran longer"),
        "endless-answer": (solved(keep=loop), "time limit", 3, "not right: test-keep"),
        "ignores-interrupts": (insert(solved(), ignoring), "time limit", FULL, "left out"),
        "ignores-in-a-test": (solved(keep=late), "time limit", 3, "not right: test-keep"),
        "memory": (insert(solved(), BOMB), None, FULL, ""),
        "killed-kernel": (
            insert(solved(), "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)"),
            "kernel died", FULL, "left out: it ended the kernel",
        ),
        "exits": (insert(solved(), "import os\nos._exit(0)"), "kernel died", FULL, "left out"),
        "exits-in-a-test": (
            solved(keep="import os; os._exit(3)"), "kernel died", 3, "test-keep",
        ),
        "kills-its-parents": (
            insert(
                solved(),
                "import psutil\nfor one in psutil.Process().parents()[:2]:\n    one.kill()",
            ),
            "kernel died", 0, "no test is passed",
        ),
        "deleted-test": (without(solved(), "test-keep"), "restored", FULL, "missing: test-keep"),
        "duplicated": (duplicated(solved()), "restored", FULL, "more than once: test-keep"),
        "reordered": (reordered(solved()), "restored", FULL, "another order"),
        "edited-test": (edited(solved(keep="return 1")), "restored", 3, "put back: test-keep"),
        "deleted-given": (without(solved(), "setup"), "restored", FULL, "missing: setup"),
        "broken-json": (b'{"cells": [{"cell_type', "unreadable", 0, "not valid JSON"),
        "empty-file": (b"", "unreadable", 0, "the file is empty"),
        "not-a-notebook": (b"[1, 2]", "unreadable", 0, "no notebook"),
        "loud": (insert(solved(), "print('x' * 50_000_000)"), "output cut", FULL, "100 kB"),
        "wrong-kernel": (kernel(solved()), "restored", FULL, "python3 was used"),
        "asks": (insert(solved(), "input('your name? ')"), "graded", FULL, "every test"),
        "patched": (insert(copy(), PATCHED), "graded", 0, "no test is passed"),
        "always-equal": (insert(copy(), always, "test-spend"), "graded", 0, "no test"),
        "forged": (insert(copy(), FORGED), None, 0, "no test is passed"),
        "orphan": (insert(solved(), ORPHAN), "graded", FULL, "left running"),
        "no-metadata": (bare(solved()), "restored", FULL, "metadata is gone"),
        "older": (older(solved()), "older release", FULL, "an older release"),
        "surrogate-raised": (
            solved(keep=f"raise ValueError('{SURROGATE}')"), "graded", 3, "not right: test-keep",
        ),
        "surrogate-printed": (
            insert(solved(), f"print('{SURROGATE}')\n'{SURROGATE}'"), "graded", FULL, "every test",
        ),
        "surrogate-answered": (solved(keep=f"return '{SURROGATE}'"), "graded", 3, "test-keep"),
        "surrogate-in-a-cell": (
            insert(solved(), "x = '\ud83d'"), "graded", FULL, "cell 3 was left out: it holds half",
        ),
        "surrogate-in-a-solution": (
            solved(keep="return '\ud83d'"), "graded", 3, "not right: test-keep",
        ),
        "error-without-a-text": (
            solved(keep=BAD.format("raise KeyError")), "graded", 3, "not right: test-keep",
        ),
        "error-whose-text-is-a-number": (
            solved(keep=BAD.format("return 3")), "graded", 3, "not right: test-keep",
        ),
        "error-with-a-huge-text": (
            solved(keep="raise ValueError('x' * 50_000_000)"), "graded", 3, "not right: test-keep",
        ),
        "cell-with-an-error-without-a-text": (
            insert(solved(), "if True:\n    " + BAD.format("raise KeyError")),
            "graded", FULL, "every test is passed",
        ),
        "made-up-messages": (insert(solved(), MADE_UP), None, FULL, ""),
        "solution-made-text": (
            turned_into(solved(), "keep", "markdown"), "restored", 3, "are text now, not code",
        ),
        "solution-made-raw": (
            turned_into(solved(), "keep", "raw"), "restored", 3, "did not run: keep",
        ),
        "Łukasz": (solved(), "graded", FULL, "every test is passed"),
        "good-2": (solved(), "graded", FULL, "every test is passed"),
    }  # fmt: skip


def left_of(folder: Path) -> list[str]:
    """The command lines of what a batch left: its files lie in ``folder``, or it is the orphan."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            ours = process.environ().get("TMPDIR") == str(folder)
            if (ours or SLEEP in line) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(line)
        except psutil.Error:  # gone, or of another user
            continue
    return found


@pytest.fixture(scope="module")
def batch(tmp_path_factory, folder, copy):
    """Everything handed in and graded once: folder of results, what was wanted, the grades."""
    root = tmp_path_factory.mktemp("batch")
    wanted = submissions(copy)
    if sys.platform == "linux":  # elsewhere no folder can have such a name
        wanted["J\udcfcrg"] = (b"{", "unreadable", 0, "not valid JSON")
        wanted["K\udcfcrg"] = (made.solved(copy()), "graded", FULL, "every test is passed")
    for student, (work, *_) in wanted.items():
        made.hand_in(root / "in", student, work)
    (root / "in" / "misnamed" / made.NAME).mkdir(parents=True)
    (root / "in" / "misnamed" / made.NAME / "small (1).ipynb").write_text("{}", encoding="utf-8")
    (root / "in" / "elsewhere" / "cooking").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        (root / "tmp").mkdir()
        patch.setenv("TMPDIR", str(root / "tmp"))  # by which all that it starts is known
        grades = grade(find(root / "in"), root / "out", LIMITS, folder=folder, jobs=2)
    wanted = {os.fsencode(s).decode("utf-8", "backslashreplace"): w for s, w in wanted.items()}
    return root, wanted, {one.student: one for one in grades}, left_of(root / "tmp")


def test_every_submission_has_its_row_with_status_score_and_reason(batch):
    root, wanted, grades, _ = batch
    wrong = []
    for student, (_, status, score, comment) in wanted.items():
        got = grades[student]
        fits = (status in (None, got.status)) and got.score == score and comment in got.comment
        if not fits or got.max_score != FULL:
            wrong.append((student, (status, score, comment), (got.status, got.score, got.comment)))
    assert wrong == []
    with (root / "out" / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["student"] for row in rows] == sorted([*wanted, "misnamed", "elsewhere"])
    assert all(row["comment"] for row in rows)


def test_memory_is_limited_by_the_system_or_by_the_keeper(batch):
    one = batch[2]["memory"]
    said = str(one.cells)
    assert one.status == "memory limit" or "MemoryError" in said, one


def test_what_changes_the_checks_in_its_own_kernel_ran_and_changed_nothing(batch):
    one = batch[2]["patched"]
    (cell,) = [cell for cell in one.cells if cell.get("text", "").startswith("import builtins")]
    assert cell["outputs"] == []
    assert "left_out" not in cell


def test_no_process_is_left_running(batch):
    assert batch[3] == []


def test_a_folder_without_its_notebook_and_an_unknown_assignment_are_rows_too(batch):
    grades = batch[2]
    assert grades["misnamed"].status == "missing"
    assert "small (1).ipynb" in grades["misnamed"].comment
    assert grades["elsewhere"].status == "unknown assignment"
    assert "there are small" in grades["elsewhere"].comment


def test_feedback_shows_what_the_test_says_and_nothing_that_is_hidden(batch):
    root = batch[0]
    pages = {
        path.parts[-3]: path.read_text(encoding="utf-8")
        for path in (root / "out" / "feedback").rglob("*.html")
    }
    assert {"good-1", "patched", "broken-json"} <= set(pages)
    assert not [name for name, text in pages.items() if "SECRET" in text or "seed=4" in text]
    assert "p and q are swapped" in pages["swapped"]
    assert "5 of 5 points" in pages["good-1"]
    assert "StdinNotImplementedError" in pages["asks"]
    assert "ValueError: ?" in pages["surrogate-raised"]
    for student in ("error-without-a-text", "cell-with-an-error-without-a-text"):
        assert "its text cannot be shown, because `__str__` raised KeyError" in pages[student]
    assert "`__str__` raised TypeError" in pages["error-whose-text-is-a-number"]
    assert "missing, is not a code cell, or ended with an error" in pages["solution-made-text"]
    assert {os.fsencode(name)[1:] for name in pages if not name.isascii()} <= {
        b"\xfcrg",
        "Łukasz".encode()[1:],
    }
    assert len(pages["loud"]) < 200_000


def test_a_batch_goes_on_where_it_stopped(batch, folder, monkeypatch):
    root, _, before, _ = batch
    monkeypatch.setattr("labkit.grading.loop.subprocess.Popen", None)  # nothing may be started
    again = grade(find(root / "in"), root / "out", LIMITS, folder=folder)
    assert {one.student: one.score for one in again} == {s: g.score for s, g in before.items()}


def refusing(monkeypatch, refused: Path):
    """Make the system refuse to list or read this path, as it does others than root."""
    for module, name in ((os, "scandir"), (Path, "read_bytes"), (Path, "is_file")):
        usual = getattr(module, name)

        def asked(path, *args, usual=usual, **settings):
            if not isinstance(path, int) and refused in (Path(path), Path(path).parent):
                raise PermissionError(13, "Permission denied", str(path))
            return usual(path, *args, **settings)

        monkeypatch.setattr(module, name, asked)


@pytest.mark.parametrize("what", ["it", f"it/{made.NAME}", f"it/{made.NAME}/{made.NAME}.ipynb"])
def test_what_cannot_be_read_is_a_row_that_says_so(tmp_path, folder, monkeypatch, what):
    made.hand_in(tmp_path / "in", "after", b"")
    made.hand_in(tmp_path / "in", "it", b"")
    made.hand_in(tmp_path / "in", "zoe", b"")
    refusing(monkeypatch, tmp_path / "in" / what)
    grades = grade(find(tmp_path / "in"), tmp_path / "out", LIMITS, folder=folder)
    assert [one.student for one in grades] == ["after", "it", "zoe"]
    assert [one.status for one in grades] == ["unreadable"] * 3
    assert "cannot be read (Permission denied)" in grades[1].comment
    assert "the file is empty" in grades[2].comment


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: {**kept, "grade": {**kept["grade"], "score": "many"}},
        lambda kept: {**kept, "grade": {**kept["grade"], "cells": [{"outputs": 3}]}},
        lambda kept: {**kept, "grade": {**kept["grade"], "comment": ["no", "text"]}},
        lambda kept: {**kept, "grade": {"student": "late"}},
        lambda kept: [kept],
    ],
)
def test_a_damaged_kept_grade_is_made_again(tmp_path, folder, spoil):
    made.hand_in(tmp_path / "in", "late", b"")
    out = tmp_path / "out"
    (first,) = grade(find(tmp_path / "in"), out, LIMITS, folder=folder)
    kept = out / "graded" / "late" / f"{made.NAME}.json"
    kept.write_text(json.dumps(spoil(json.loads(kept.read_text(encoding="utf-8")))))
    assert grade(find(tmp_path / "in"), out, LIMITS, folder=folder) == [first]


def test_a_kept_grade_that_holds_half_a_character_is_shown_all_the_same(tmp_path, folder):
    made.hand_in(tmp_path / "in", "late", b"")
    out = tmp_path / "out"
    grade(find(tmp_path / "in"), out, LIMITS, folder=folder)
    kept = out / "graded" / "late" / f"{made.NAME}.json"
    found = json.loads(kept.read_text(encoding="utf-8"))
    found["grade"]["comment"] = "half: \ud83d"
    kept.write_text(json.dumps(found), encoding="utf-8")
    (again,) = grade(find(tmp_path / "in"), out, LIMITS, folder=folder)
    assert again.comment == "half: ?"


def test_a_submission_at_which_grading_itself_raises_is_a_row(tmp_path, folder, monkeypatch):
    for student in ("ada", "ben"):
        made.hand_in(tmp_path / "in", student, b"")
    monkeypatch.setattr("labkit.grading.loop._end_marked", lambda mark: 1 / 0)
    grades = grade(find(tmp_path / "in"), tmp_path / "out", LIMITS, folder=folder)
    assert [one.status for one in grades] == ["failed", "failed"]
    assert "ZeroDivisionError: division by zero" in grades[0].comment


def test_what_is_changed_after_grading_is_graded_again(tmp_path, folder, copy):
    path = made.hand_in(tmp_path / "in", "late", b"")
    out = tmp_path / "out"
    assert grade(find(tmp_path / "in"), out, LIMITS, folder=folder)[0].status == "unreadable"
    path.write_text(nbformat.writes(made.solved(copy())), encoding="utf-8")
    assert grade(find(tmp_path / "in"), out, LIMITS, folder=folder)[0].score == FULL


def test_all_of_a_submission_together_is_limited(tmp_path, folder, copy):
    work = insert(made.solved(copy()), "import time\ntime.sleep(100)", "test-spend")
    made.hand_in(tmp_path / "in", "slow", work)
    limits = Limits(cell_seconds=100, wall_seconds=12, memory_mb=1500, output_kb=100)
    (one,) = grade(find(tmp_path / "in"), tmp_path / "out", limits, folder=folder)
    assert (one.status, one.score) == ("wall limit", 0)
    assert "longer than 12 s in all" in one.comment


@pytest.mark.skipif(sys.platform == "win32", reason="the mark of orphans differs there")
def test_a_secret_of_the_teachers_environment_is_not_passed_on(tmp_path, folder, copy, monkeypatch):
    monkeypatch.setenv("TEACHERS_TOKEN", "very-secret")
    work = insert(made.solved(copy()), "import os\nprint(sorted(os.environ.items()))")
    made.hand_in(tmp_path / "in", "curious", work)
    (one,) = grade(find(tmp_path / "in"), tmp_path / "out", LIMITS, folder=folder)
    assert one.score == FULL
    assert "LABKIT_BASE" in str(one.cells)
    assert "very-secret" not in str(one.cells)


def test_a_changed_copy_of_the_lab_is_found_out_and_mended(folder):
    path = folder / made.NAME / f"{made.NAME}.ipynb"
    with staged({made.NAME: path}) as stage:
        assert stage.mend() == []
        checks = stage.folder / "labkit" / "checks"
        before = (checks / "risk.py").read_text(encoding="utf-8")
        (checks / "risk.py").write_text("raise SystemExit", encoding="utf-8")
        (checks / "extra.py").write_text("", encoding="utf-8")
        stage.sources[made.NAME].unlink()
        assert set(stage.mend()) == {"risk.py", "extra.py", path.name}
        assert (checks / "risk.py").read_text(encoding="utf-8") == before
        assert not (checks / "extra.py").exists()
        assert stage.sources[made.NAME].read_bytes() == path.read_bytes()
    assert not stage.folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes among files")
def test_pipes_links_and_folders_in_the_place_of_files_are_mended(folder, tmp_path):
    with staged({made.NAME: folder / made.NAME / f"{made.NAME}.ipynb"}) as stage:
        checks, records = (stage.folder / "labkit" / name for name in ("checks", "records"))
        elsewhere = tmp_path / "elsewhere.py"
        elsewhere.write_bytes((checks / "trees.py").read_bytes())
        for path in (checks / "risk.py", checks / "heads.py", checks / "trees.py"):
            path.unlink()
        os.mkfifo(checks / "risk.py")
        (checks / "heads.py").mkdir()
        (checks / "heads.py" / "more.txt").write_text("")
        (checks / "trees.py").symlink_to(elsewhere)
        (checks / "extra.py").mkdir()
        shutil.rmtree(records)
        records.write_text("")
        lost = {path.name for path in (PACKAGE / "records").glob("*.py")}
        assert set(stage.mend()) == {"risk.py", "heads.py", "trees.py", "extra.py"} | lost
        assert not (checks / "trees.py").is_symlink()
        assert stage.mend() == []


def test_what_is_no_folder_of_submissions_is_one_sentence(tmp_path):
    with pytest.raises(LabkitError, match="There is no folder"):
        find(tmp_path / "none")
    with pytest.raises(LabkitError, match="There are no submissions"):
        find(tmp_path)


def test_written_points_stay_in_the_table_when_it_is_made_again(tmp_path, folder):
    for student in ("ada", "ben"):
        made.hand_in(tmp_path / "in", student, b"")
    out = tmp_path / "out"
    grade(find(tmp_path / "in"), out, LIMITS, folder=folder)
    table = out / "grades.csv"
    text = table.read_text(encoding="utf-8")
    assert "ada,small,unreadable,0,5,,1," in text
    table.write_text(text.replace("5,,1", "5,0.5,1", 1), encoding="utf-8")
    again = grade(find(tmp_path / "in"), out, LIMITS, folder=folder, again=True)
    assert [(one.written, one.written_max) for one in again] == [("0.5", 1), ("", 1)]
    assert "ada,small,unreadable,0,5,0.5,1," in table.read_text(encoding="utf-8")


@pytest.mark.parametrize("points", ["2", "-1", "many", "nan"])
def test_written_points_that_cannot_be_are_one_sentence(tmp_path, points):
    path = write_table(
        [Grade("ada", "small", "graded", written=points, written_max=1)], tmp_path / "t"
    )
    with pytest.raises(LabkitError, match="written points of ada in small"):
        read_table(path)


@pytest.mark.parametrize("content", [b"", b"student\nada\n", b"\xff\xfe", b"a,b\n1,2,3\n"])
def test_what_is_no_table_of_grades_is_one_sentence(tmp_path, content):
    path = tmp_path / "grades.csv"
    path.write_bytes(content)
    if content:
        with pytest.raises(LabkitError, match="table"):
            read_table(path)
    else:
        assert read_table(path) == []


def test_the_table_reads_back_whatever_stands_in_it(tmp_path):
    odd = 'a "quote", a comma,\nand a line'
    path = write_table([Grade("ö", "it", "graded", 1.5, 3, odd)], tmp_path / "grades.csv")
    with Path(path).open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["student"], row["score"], row["comment"]) == ("ö", "1.5", odd)


def test_limits_are_positive():
    with pytest.raises(LabkitError, match="memory_mb is 0"):
        Limits(memory_mb=0)
