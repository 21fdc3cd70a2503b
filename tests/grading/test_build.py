"""Students' copies: what is taken out, what is locked, and that nbgrader makes the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from labkit.errors import LabkitError
from labkit.grading.build import assignments_dir, build, release, source_path, sources
from tests.grading import made

ROOT = assignments_dir().parents[1]


@pytest.fixture
def folder(tmp_path):
    return made.write_source(tmp_path / "source")


def test_a_copy_has_no_solution_and_no_hidden_test(folder, tmp_path):
    (path,) = build(tmp_path / "out", folder=folder)
    assert path == tmp_path / "out" / made.NAME / f"{made.NAME}.ipynb"
    text = path.read_text(encoding="utf-8")
    for taken in ("SOLUTION", "HIDDEN", "SECRET", "return min(1", "Because."):
        assert taken not in text
    copy = nbformat.read(path, as_version=4)
    nbformat.validate(copy)
    test = made.of(copy, "test-keep")
    assert test.source.splitlines()[-1] == "print(finding)"
    assert test.metadata["deletable"] is False
    assert test.metadata["editable"] is False
    assert test.metadata["nbgrader"]["checksum"]
    assert "raise NotImplementedError()" in made.of(copy, "keep").source
    assert made.of(copy, "why").source == "YOUR ANSWER HERE"


def test_a_source_with_a_mistake_in_its_marks_is_one_sentence(folder):
    path = folder / made.NAME / f"{made.NAME}.ipynb"
    broken = made.source()
    made.of(broken, "keep").source = "### BEGIN SOLUTION\n1"
    nbformat.write(broken, path)
    with pytest.raises(LabkitError, match="cannot be made into a students' copy"):
        release(path)


def test_unknown_names_and_empty_folders_are_one_sentence(folder, tmp_path):
    with pytest.raises(LabkitError, match="There is no assignment 'sums'; there are small"):
        source_path("sums", folder)
    with pytest.raises(LabkitError, match="There are no assignments"):
        sources(tmp_path / "source" / made.NAME)


def nbgrader(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    beside = str(Path(sys.executable).parent)  # nbgrader calls alembic by its bare name
    return subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join([beside, os.environ["PATH"]])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", list(sources()))
def test_nbgrader_generates_the_same_copy_with_the_repositorys_settings(name, tmp_path):
    shutil.copyfile(ROOT / "nbgrader_config.py", tmp_path / "nbgrader_config.py")
    shutil.copytree(assignments_dir() / name, tmp_path / "notebooks" / "assignments" / name)
    done = nbgrader("generate_assignment", name, "--create", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = nbformat.read(tmp_path / "build" / "release" / name / f"{name}.ipynb", as_version=4)
    assert release(source_path(name)) == theirs


def test_nbgraders_validate_agrees_on_copy_and_source(folder, tmp_path):
    (copy,) = build(tmp_path / "out", folder=folder)
    said = nbgrader("validate", str(copy), folder=tmp_path)
    assert "VALIDATION FAILED ON 3 CELL(S)" in said.stdout, said.stderr  # two tests, one answer
    said = nbgrader("validate", str(source_path(made.NAME, folder)), folder=tmp_path)
    assert "Success" in said.stdout, said.stderr
