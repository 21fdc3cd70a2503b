"""``labkit notebooks``: what it says of a notebook, and that it leaves it as it was."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from labkit.cli import main


def write(path: Path, *cells: str) -> Path:
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    return path


def run(*words: str):
    return CliRunner().invoke(main, ["notebooks", "--base", "tiny", "--json", *words])


def test_a_clean_and_a_broken_notebook_are_told_apart(tmp_path):
    clean = write(
        tmp_path / "clean.ipynb",
        "import pathlib; pathlib.Path('left').touch()",
        "import os; assert os.environ['LABKIT_BASE'] == 'tiny'",
    )
    broken = write(tmp_path / "broken.ipynb", "import warnings; warnings.warn('old')", "1 / 0", "2")
    before = [path.read_bytes() for path in (clean, broken)]
    result = run(str(clean), str(broken))
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)["notebooks"]
    assert first["complaints"] == []
    warned, raised = second["complaints"]
    assert "UserWarning: old" in warned
    assert "ZeroDivisionError: division by zero" in raised
    assert [path.read_bytes() for path in (clean, broken)] == before
    assert {path.name for path in tmp_path.iterdir()} == {"clean.ipynb", "broken.ipynb"}


def test_what_is_no_notebook_is_one_sentence(tmp_path):
    (tmp_path / "it.ipynb").write_text("{", encoding="utf-8")
    result = run(str(tmp_path / "it.ipynb"))
    assert result.exit_code == 2
    assert "cannot be read as a notebook" in result.stderr
    assert "Traceback" not in result.stderr
