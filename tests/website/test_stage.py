"""The pages put together for Sphinx, from small made-up ones."""

from __future__ import annotations

import doctest
import json

import pytest

from docs import rendering, stage
from labkit.errors import LabkitError

WIDGET = "application/vnd.jupyter.widget-view+json"


def notebook(*cells: dict) -> dict:
    opening = {"cell_type": "markdown", "id": "opening", "metadata": {}, "source": "# Title: more"}
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
    return {"cells": [opening, *cells], "metadata": kernel}


def code(source: str, *outputs: dict) -> dict:
    return {
        "cell_type": "code",
        "id": "made",
        "metadata": {},
        "execution_count": None,
        "source": source,
        "outputs": list(outputs),
    }


def shown(*cells: dict) -> list[dict]:
    path = stage.ROOT / "notebooks" / "00_start_here.ipynb"
    page, _ = stage.notebook_page(notebook(*cells), path, f"course/{path.name}")
    return json.loads(page)["cells"]


@pytest.mark.parametrize("module", [stage, rendering], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module):
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


def test_outputs_are_shown_and_a_widget_is_its_picture_with_a_link_to_a_live_one():
    output = {
        "output_type": "display_data",
        "metadata": {},
        "data": {WIDGET: {"model_id": "1"}, "text/html": "<b>3</b>"},
    }
    *_, cell, hint = shown(code("Race(a, b)", output))
    assert "tags" not in cell["metadata"]
    assert cell["outputs"][0]["data"] == {"text/html": "<b>3</b>"}
    assert "(../gallery/race.md)" in hint["source"]


def test_a_widget_that_was_not_run_leads_to_the_live_one():
    *_, cell, hint = shown(code("log = read()\nLossCurves(log)"))
    assert "tags" not in cell["metadata"]
    assert "(../gallery/loss-curves.md)" in hint["source"]
    assert shown(code("print(1)"))[-1]["cell_type"] == "code"


@pytest.mark.parametrize(
    ("link", "home", "leads_to"),
    [
        (
            "[a](00_start_here.ipynb#to-try)",
            "notebooks",
            "00_start_here.ipynb#to-try",
        ),
        ('<a href="02_accept_or_reject.ipynb">a</a>', "notebooks", "02_accept_or_reject.html"),
        ("[a](../labkit/mbr/decide.py)", "notebooks", "(#labkit.mbr.decide)"),
        ("[a](labkit/mbr)", "", "(#labkit.mbr)"),
        (
            '<a href="../labkit/mbr/decide.py">a</a>',
            "notebooks",
            "../api/labkit.mbr.html#module-labkit.mbr.decide",
        ),
        ("[a](README.md#how-it-is-built)", "", "../architecture.md#how-it-is-built"),
        ("![a](data/pictures/race.png)", "", "../files/data/pictures/race.png"),
        ("[a](https://arxiv.org/abs/1)", "", "https://arxiv.org/abs/1"),
        ("[a](#here)", "", "#here"),
    ],
)
def test_links_lead_to_where_the_site_shows_it(link, home, leads_to):
    text, along = stage.relinked(link, stage.ROOT / home, "course/page.md")
    assert leads_to in text
    assert [*along] == ([leads_to.removeprefix("../")] if "files/" in leads_to else [])


@pytest.mark.parametrize("link", ["[a](nowhere.ipynb)", "[a](../../secret.txt)"])
def test_a_link_to_nothing_is_one_sentence(link):
    with pytest.raises(LabkitError, match="leads nowhere"):
        stage.relinked(link, stage.ROOT / "notebooks", "course/page.md")


def test_a_folder_is_brought_to_what_it_should_hold_and_nothing_more(tmp_path):
    stage.write(tmp_path, {"a/b.md": "one", "c.md": "two"})
    kept = (tmp_path / "c.md").stat().st_mtime_ns
    stage.write(tmp_path, {"c.md": "two", "d.png": b"\x89"})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["c.md", "d.png"]
    assert (tmp_path / "c.md").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("formula", "holds"),
    [
        (r"\frac{p(x)}{q(x)}", "<mfrac>"),
        (r"\arg\min_a R(a)", '<munder><mo movablelimits="true">arg\N{THIN SPACE}min</mo>'),
        (r"\operatorname{softmax}(z)", '<mi mathvariant="normal">s</mi>'),
        (r"\max\Big(1, 2\Big)", "max"),
        (r"a < b", "<mo>&lt;</mo>"),
        (r"\sum_r w(r)", "<munder><mo>\N{N-ARY SUMMATION}</mo>"),
        (r"a\!b", '<mspace width="-0.167em" />'),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "</mtd></mtr><mtr><mtd"),
        (r"\begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}", "<mtable"),
    ],
)
def test_formulas_become_mathml(formula, holds):
    assert holds in rendering.mathml(formula, block=True)


def test_a_formula_that_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match=r"\\nonesuch"):
        rendering.mathml(r"a + \nonesuch{b}", block=False)
