"""The course as a reader meets it: each notebook reads well, and runs clean on `tiny`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from docs.figures import FIGURES
from docs.terms import terms, unlinked
from labkit.course.run import complaints, course, notebooks_dir, run

PATHS = course()
LONGEST_CELL = 16
"""Lines, an import counting as one: about fifteen. What needs more belongs in labkit."""

WIDEST = 100
OPENING = ("**Afterwards you can**", "**You need**", "**It takes**", "minutes")
PARTS = (
    "**Predict.**",
    "**What it shows.**",
    "**What it does not show.**",
    "## What you have seen",
    "<details>",
    "### Further reading",
    "**On a larger machine.**",
)

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def text(path: Path) -> str:
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def calls(path: Path, name: str) -> list[ast.Call]:
    """Every call of the function ``name`` in the notebook's code."""
    return [
        node
        for cell in cells(path, "code")
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name
    ]


def test_the_course_is_whole():
    assert [path.name[:2] for path in PATHS] == [f"{number:02}" for number in range(14)]


@every_notebook
def test_it_runs_on_tiny_without_an_error_or_a_warning(path):
    done = run(path, "tiny")
    assert done.complaints == ()
    assert all(cell.execution_count for cell in done.notebook.cells if cell.cell_type == "code")


@every_notebook
def test_the_opening_says_what_one_learns_needs_and_spends(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    for part in OPENING:
        assert part in first.source, part


@every_notebook
def test_it_has_every_part_of_a_lesson(path):
    for part in PARTS:
        assert part in text(path), part
    assert text(path).count("<details>") >= 3
    assert "## Exercises" in text(path) or "### To try" in text(path)


@every_notebook
def test_every_prediction_is_asked_for_before_its_result_and_compared(path):
    asked, compared = {}, {}
    for place, cell in enumerate(read(path).cells):
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "predict",
                "compare",
            }:
                kept = asked if node.func.id == "predict" else compared
                kept.setdefault(ast.literal_eval(node.args[0]), place)
    assert asked
    assert asked.keys() == compared.keys()
    assert all(asked[name] < compared[name] for name in asked)


@every_notebook
def test_predictions_are_left_to_the_reader(path):
    for call in calls(path, "predict"):
        assert isinstance(call.args[1], ast.Constant) and call.args[1].value is ..., ast.dump(call)


def test_no_two_predictions_share_a_name():
    names = [ast.literal_eval(call.args[0]) for path in PATHS for call in calls(path, "predict")]
    assert len(names) == len(set(names))


@every_notebook
def test_code_cells_are_short_and_narrow(path):
    for cell in cells(path, "code"):
        lines = cell.source.splitlines()
        imports = (
            n for n in ast.parse(cell.source).body if isinstance(n, ast.Import | ast.ImportFrom)
        )
        counted = len(lines) - sum(node.end_lineno - node.lineno for node in imports)
        assert counted <= LONGEST_CELL, f"{cell.id} has {counted} lines"
        assert all(len(line) <= WIDEST for line in lines), f"{cell.id} is wider than {WIDEST}"


@every_notebook
def test_the_model_is_named_in_one_place(path):
    code = "\n".join(cell.source for cell in cells(path, "code"))
    assert "base_name()" in code or 'load("translator")' in code
    assert not re.search(r"""Decoder\(["']|load\(["'](?!translator["'])""", code)


@every_notebook
def test_no_output_is_stored(path):
    # An output shown before the cell is run would answer the prediction that stands above it.
    for cell in cells(path, "code"):
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id


@every_notebook
def test_it_holds_no_path_of_a_machine_and_no_trace_of_an_editor(path):
    raw = path.read_text(encoding="utf-8")
    assert not re.search(r"/home/|/Users/|/root/|/work/|/tmp/|[A-Z]:\\\\", raw)
    metadata = read(path).metadata
    assert set(metadata) <= {"kernelspec", "language_info"}
    assert metadata.kernelspec.name == "python3"
    assert set(metadata.language_info) == {"name"}


@every_notebook
def test_its_cells_have_names_of_their_own(path):
    names = [cell.id for cell in read(path).cells]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names), names


@every_notebook
def test_its_links_to_files_lead_somewhere(path):
    links = re.findall(r"\]\(([^)]+)\)|href=\"([^\"]+)\"", text(path))
    files = [a or b for a, b in links if not (a or b).startswith(("http", "#"))]
    for link in files:
        file, _, anchor = link.partition("#")
        assert (notebooks_dir() / file).exists(), link
        assert not file.endswith("glossary.md") or anchor in terms().values(), link


def test_what_a_reader_would_be_shown_amiss_is_seen():
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Race: needs a record."}
    outputs = {
        "raised": new_output("error", ename="ValueError", evalue="no", traceback=[]),
        "warned": new_output("stream", name="stderr", text="Warning:\n old"),
        "empty": new_output("display_data", data=view),
        "drawn": new_output("display_data", data={**view, "image/png": "eA=="}),
        "said": new_output("stream", name="stdout", text="fine"),
    }
    made = [new_code_cell("", id=name, outputs=[output]) for name, output in outputs.items()]
    assert list(complaints(new_notebook(cells=made))) == [
        "raised: ValueError: no",
        "warned: on standard error: Warning: old",
        "empty: Race: needs a record.",
    ]


@every_notebook
def test_it_shows_a_figure_that_is_described_in_words(path):
    shown = re.findall(r"!\[([^\]]*)\]\((figures/[\w-]+\.svg)\)", text(path))
    assert shown, "no figure"
    for alt, file in shown:
        assert len(alt) > 40, f"{file}: say in its alt text what it shows"
        assert (notebooks_dir() / file).is_file(), file


def test_the_figures_are_what_the_program_draws():
    drawn = {f"{name}.svg": made().svg() for name, made in FIGURES.items()}
    kept = {path.name: path.read_text("utf-8") for path in (notebooks_dir() / "figures").iterdir()}
    assert kept == drawn, "run python -m docs.figures"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_keeps_its_words_inside_and_needs_nothing_from_elsewhere(name):
    pen = FIGURES[name]()
    text = pen.svg()
    assert "prefers-color-scheme:dark" in text and "url(http" not in text and "\n\n" not in text
    for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"', text):
        assert 0 < float(x) < pen.width and 0 < float(y) < pen.height


@every_notebook
def test_every_glossary_term_that_it_uses_is_linked(path):
    missing = [use[0] for _, use, _ in unlinked(read(path))]
    assert missing == [], "run python -m docs.terms"


def test_the_outline_leads_to_every_notebook():
    outline = (notebooks_dir().parent / "docs" / "outline.md").read_text(encoding="utf-8")
    assert {path.name for path in PATHS} <= set(re.findall(r"notebooks/(\w+\.ipynb)", outline))
