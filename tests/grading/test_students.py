"""What students get: everything to work with, and nothing that is the teacher's."""

from __future__ import annotations

import re

import nbformat
import pytest

from labkit.errors import LabkitError
from labkit.grading.build import build, sources, write_students
from tests.grading.made import lecturers_words

LONG = 24
"""Characters of a line that says enough to be a solution's own, and not anyone's."""


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    return write_students(tmp_path_factory.mktemp("out") / "students")


def lines_of(path):
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return {line.strip() for cell in cells for line in cell.source.split("\n")}
    return set(map(str.strip, path.read_text(encoding="utf-8").split("\n")))


def secret_lines(source):
    """The lines of a source's solutions and hidden tests."""
    found = set()
    for cell in nbformat.read(source, as_version=4).cells:
        inside = False
        for line in cell.source.split("\n"):
            if "### BEGIN" in line or "### END" in line:
                inside = "### BEGIN" in line
            elif inside and len(line.strip()) > LONG:
                found.add(line.strip())
    return found


@pytest.mark.parametrize("name", list(sources()))
def test_no_line_of_a_solution_or_hidden_test_is_handed_out(name, handed_out):
    secret = secret_lines(sources()[name])
    assert len(secret) > 20
    shown = {
        (str(path.relative_to(handed_out)), line)
        for path in texts_in(handed_out)
        for line in secret & lines_of(path)
    }
    assert shown == set()


def test_nothing_written_for_lecturers_alone_is_handed_out(handed_out):
    secret = lecturers_words()
    assert len(secret) > 100
    for path in texts_in(handed_out):
        text = path.read_text(encoding="utf-8")
        assert not [words for words in secret if words in text], path


def texts_in(folder):
    kinds = {".ipynb", ".py", ".md", ".toml", ".yml", ".txt", ".js"}
    texts = [path for path in folder.rglob("*") if path.suffix in kinds]
    assert len(texts) > 100
    return texts


def test_the_course_the_assignments_and_what_they_need_are_there(handed_out):
    for name in ("README.md", "pyproject.toml", "Makefile", "labkit/__init__.py"):
        assert (handed_out / name).is_file(), name
    assert len(list((handed_out / "notebooks").glob("[0-9][0-9]_*.ipynb"))) > 10
    released = handed_out / "notebooks" / "assignments"
    assert sorted(path.stem for path in released.glob("*/*.ipynb")) == list(sources())
    assert list((handed_out / "data" / "models").rglob("*.safetensors"))
    for left_out in ("tests", "docs/teaching.md", "nbgrader_config.py"):
        assert not (handed_out / left_out).exists()


def links(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"\]\(((?!https?:|attachment:|mailto:)[^)#\s]+)[^)]*\)", text)


def test_links_in_released_assignments_lead_somewhere(handed_out, tmp_path):
    paths = sorted((handed_out / "notebooks" / "assignments").glob("*/*.ipynb"))
    assert all(links(path) for path in paths)
    for path in [*paths, *build(tmp_path / "release")]:
        for link in links(path):
            assert (path.parent / link).is_file(), (path, link)


def test_links_in_the_course_that_students_get_lead_somewhere(handed_out):
    pages = [*(handed_out / "notebooks").glob("*.ipynb"), *(handed_out / "docs").glob("*.md")]
    dead = [
        (path.name, link)
        for path in pages
        for link in links(path)
        if not (path.parent / link).exists()
    ]
    assert len(pages) > 10
    assert dead == []


def test_written_again_it_holds_nothing_that_is_gone(handed_out):
    gone = handed_out / "notebooks" / "assignments" / "solution.ipynb"
    gone.write_text("{}", encoding="utf-8")
    write_students(handed_out)
    assert not gone.exists()


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("", encoding="utf-8")
    with pytest.raises(LabkitError, match="holds other files"):
        write_students(tmp_path)
    assert (tmp_path / "thesis.tex").exists()
