"""The slides of the two lectures: every figure is there, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import doctest
import json
import re

import pytest

from docs import slides
from docs.stage import ROOT
from labkit.course.run import course

FIGURES = {
    "speculative-decoding": [
        "step",
        "roofline",
        "accept-reject",
        "architecture",
        "tree-mask",
        "kv-cache",
        "two-phases",
        "batching",
        "drafters",
        "launches",
    ],
    "minimum-bayes-risk": ["four-choices", "equal-beginnings", "sets-of-answers"],
}
PICTURE = {"image/png": "iVBORw0KGgo=", "text/plain": "a matrix of losses"}


@pytest.fixture(scope="module")
def lectures(tmp_path_factory):
    """Both lectures by name, from notebooks whose code cells each gave a picture and a table."""
    executed = {}
    for path in course():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                given = (
                    {**PICTURE},
                    {"text/html": f"<table><tr><td>{cell['id']}</td></tr></table>"},
                )
                cell["outputs"] = [{"output_type": "display_data", "data": d} for d in given]
        executed[path.name] = notebook
    paths = slides.write(tmp_path_factory.mktemp("slides"), executed)
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def test_examples_in_docstrings_hold():
    result = doctest.testmod(slides)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", FIGURES)
def test_a_lecture_holds_each_required_figure_with_its_alt_text(name, lectures):
    inside = re.findall(
        r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', lectures[name]
    )
    assert all(len(alt) > 40 for _, alt in inside)
    drawn = {base64.b64decode(figure) for figure, _ in inside}
    for figure in FIGURES[name]:
        assert (ROOT / "notebooks" / "figures" / f"{figure}.svg").read_bytes() in drawn, figure


@pytest.mark.parametrize("name", FIGURES)
def test_a_lecture_loads_and_links_nothing(name, lectures):
    text = lectures[name]
    assert not re.findall(r"https?://|<link|<a\b|@import|url\(", text)
    assert {src[:5] for src in re.findall(r'src="([^"]+)"', text)} == {"data:"}


@pytest.mark.parametrize("name", FIGURES)
def test_a_lecture_shows_results_formulas_and_where_a_slide_is_from(name, lectures):
    text = lectures[name]
    assert 20 <= text.count("<section>") <= 50
    assert f'alt="{PICTURE["text/plain"]}"' in text and "<table>" in text
    assert "<math" in text and "$$" not in text
    for path in course():
        (lecture,) = (one.name for one in slides.LECTURES if path.name[:2] in one.notebooks)
        assert (f"<footer>{path.stem}</footer>" in text) == (lecture == name)


def test_results_that_jupyter_saved_into_a_notebook_are_shown(tmp_path, monkeypatch):
    (source,) = (path for path in course() if path.name.startswith("03"))
    notebook = json.loads(source.read_text(encoding="utf-8"))
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["metadata"]["slideshow"] = {"slide_type": "slide"}
    lines = ["the first\n", "the second"]  # as Jupyter writes them
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines}]
    notebook["cells"] = [cell]
    path = tmp_path / source.name
    path.write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.setattr(slides, "course", lambda: [path])
    (lecture,) = (one for one in slides.LECTURES if path.name[:2] in one.notebooks)
    assert "the first\nthe second" in slides.page(lecture, {})


def test_without_results_slides_that_would_be_empty_are_left_out():
    lecture = slides.LECTURES[0]
    assert slides.page(lecture, {}).count("<section>") > 20
    assert not re.search(r"<section>\s*<footer>", slides.page(lecture, {}))
