"""What is done with a submission's cells before anything runs."""

from __future__ import annotations

import copy
import json
import sys

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell

from labkit.grading.build import release
from labkit.grading.notebook import (
    Unreadable,
    graded_cells,
    plan,
    read,
    without_hidden,
    written_cells,
)
from tests.grading import made


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    folder = made.write_source(tmp_path_factory.mktemp("source"))
    return release(folder / made.NAME / f"{made.NAME}.ipynb")


@pytest.fixture
def work(handed_out):
    return made.solved(copy.deepcopy(handed_out))


def steps(notebook):
    """The plan's steps in short: a test's name, or the first word of a cell."""
    return [step.test or step.text.split()[0] for step in plan(notebook, made.source()).steps]


USUAL = ["import", "def", "test-keep", "def", "test-spend"]


def test_an_untouched_copy_has_nothing_to_note(handed_out):
    found = plan(handed_out, made.source())
    assert found.notes == []
    assert not found.older
    assert written_cells(made.source()) == [("why", 1)]
    assert steps(handed_out) == USUAL


def test_tests_come_from_the_source_whatever_stands_in_the_submission(work):
    made.of(work, "test-keep").source = "pass"
    found = plan(work, made.source())
    assert found.notes == ["cells edited and put back: test-keep"]
    assert "SECRET-SEED" in found.tests[0].text
    assert all("SECRET" not in step.text and "pass" not in step.text for step in found.steps)


def test_a_deleted_test_is_put_back_in_its_place(work):
    work.cells.remove(made.of(work, "test-keep"))
    assert plan(work, made.source()).notes == ["cells missing: test-keep"]
    assert steps(work) == USUAL


def test_a_copy_of_a_test_counts_once(work):
    work.cells.insert(4, copy.deepcopy(made.of(work, "test-keep")))
    assert plan(work, made.source()).notes == ["cells there more than once: test-keep"]
    assert steps(work) == USUAL


def test_a_test_waits_for_a_solution_that_was_moved_behind_it(work):
    moved = made.of(work, "keep")
    work.cells.remove(moved)
    work.cells.append(moved)
    assert plan(work, made.source()).notes == ["cells are in another order"]
    assert steps(work)[-3:] == ["def", "test-keep", "test-spend"]


def test_a_students_own_cells_run_before_the_test_behind_them(work):
    place = work.cells.index(made.of(work, "test-keep"))
    work.cells.insert(place, new_code_cell("mine = 1"))
    assert steps(work) == ["import", "def", "mine", "test-keep", "def", "test-spend"]


def test_a_given_cell_has_the_sources_text_and_is_put_back_in_front(work):
    made.of(work, "setup").source = "SCALE = 3"
    assert made.SETUP in [step.text for step in plan(work, made.source()).steps]
    work.cells.remove(made.of(work, "setup"))
    assert steps(work) == USUAL


def test_without_metadata_cells_are_known_by_their_text(work):
    for cell in work.cells:
        cell.metadata = {}
    found = plan(work, made.source())
    assert found.notes == ["the cells' nbgrader metadata is gone: tests were run at the end"]
    assert steps(work) == ["import", "def", "def", "test-keep", "test-spend"]


def test_an_older_release_is_told_from_an_edited_test(work):
    from nbgrader.utils import compute_checksum

    cell = made.of(work, "test-keep")
    cell.source = "assert keep(0, [1], [1]) == 1"
    cell.metadata["nbgrader"]["checksum"] = compute_checksum(cell)
    found = plan(work, made.source())
    assert found.older
    assert found.notes == ["it is of an older release: the present tests were used"]


def test_a_cell_that_no_release_of_ours_has_makes_it_older(work):
    meta = copy.deepcopy(made.of(work, "test-keep").metadata)
    meta["nbgrader"]["grade_id"] = "test-gone"
    work.cells.append(new_code_cell("assert True", metadata=meta))
    assert plan(work, made.source()).older


def test_a_test_that_was_made_markdown_is_put_back(work):
    place = work.cells.index(made.of(work, "test-keep"))
    meta = work.cells[place].metadata
    work.cells[place] = new_markdown_cell("assert", metadata=meta)
    assert steps(work) == USUAL
    assert plan(work, made.source()).notes == ["cells edited and put back: test-keep"]


@pytest.mark.parametrize("strange", [3, "text", [], {"grade_id": 7}, {"grade_id": "keep"}, {}])
def test_strange_metadata_is_no_error(work, strange):
    made.of(work, "spend").metadata["nbgrader"] = strange
    assert steps(work)[-1] == "test-spend"


def test_what_is_hidden_is_cut_to_the_line():
    visible = without_hidden(made.KEEP_TEST)
    assert visible.splitlines()[-1] == "print(finding)"
    assert "SECRET" not in visible
    assert [test.points for test in graded_cells(made.source())] == [2, 3]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b'{"cells": [', "not valid JSON"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"[]", "JSON, but no notebook"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"nbformat": 4, "nbformat_minor": 5}', "no whole notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}', "no whole notebook"),
        (b'{"nbformat": 99, "metadata": {}, "cells": []}', "no whole notebook"),
    ],
)
def test_what_is_no_notebook_is_one_sentence(tmp_path, content, says):
    path = tmp_path / "it.ipynb"
    path.write_bytes(content)
    with pytest.raises(Unreadable) as raised:
        read(path)
    assert says in str(raised.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@st.composite
def spoilt_notebooks(draw):
    """A right submission as JSON, of which one to four values were lost, changed or doubled."""
    whole = json.loads(nbformat.writes(made.source()))
    for _ in range(draw(st.integers(1, 4))):
        inside = whole
        while True:
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(inside[key], (dict, list)) and draw(st.integers(0, 5)):
                inside = inside[key]
                continue
            match draw(st.sampled_from(["lost", "changed", "doubled"])):
                case "lost":
                    del inside[key]
                case "changed":
                    inside[key] = draw(json_values)
                case "doubled" if isinstance(inside, list):
                    inside.append(copy.deepcopy(inside[key]))
            break
    return whole


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(spoilt_notebooks() | json_values)
def test_any_json_is_planned_or_refused_in_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "strange.ipynb"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        notebook = read(path)
    except Unreadable as reason:
        assert "\n" not in str(reason)
        return
    found = plan(notebook, made.source())
    assert [step.test for step in found.steps if step.test] == ["test-keep", "test-spend"]
    assert all(isinstance(step.text, str) for step in found.steps)


@pytest.mark.parametrize("kind", ["markdown", "raw"])
def test_a_solution_cell_turned_into_text_is_named(work, kind):
    made.of(work, "keep").cell_type = kind
    found = plan(work, made.source())
    assert found.notes == ["cells that are text now, not code, and did not run: keep"]
    assert "def keep" not in "".join(step.text for step in found.steps)


def test_without_nbgrader_a_submission_is_planned_all_the_same(work, monkeypatch):
    made.of(work, "test-keep").source = "pass"
    monkeypatch.setitem(sys.modules, "nbgrader.utils", None)
    assert plan(work, made.source()).notes == ["cells edited and put back: test-keep"]


def test_a_folder_in_place_of_the_notebook_is_one_sentence(tmp_path):
    with pytest.raises(Unreadable, match="cannot be read"):
        read(tmp_path)


def test_an_older_format_is_read_in_todays(tmp_path, work):
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": ""},
        "worksheets": [
            {
                "cells": [
                    {
                        "cell_type": "code",
                        "language": "python",
                        "metadata": {},
                        "outputs": [],
                        "collapsed": False,
                        "input": "x = 1",
                    }
                ],
                "metadata": {},
            }
        ],
    }
    path = tmp_path / "it.ipynb"
    path.write_text(json.dumps(old), encoding="utf-8")
    assert read(path).cells[0].source == "x = 1"
