"""The site shows what notebooks give: each is run once, and again only after a change."""

from __future__ import annotations

import json

import nbformat
import pytest
from click.testing import CliRunner

from docs import build, executed, slides
from labkit.course.run import NotebookRun, course
from labkit.errors import LabkitError


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Names of the notebooks that were run, in order; none is really run."""
    names = []

    def pretend(path, base):
        names.append(path.name)
        return NotebookRun(path, 0.0, (), nbformat.read(path, as_version=4))

    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(executed, "run", pretend)
    return names


def test_a_second_build_runs_nothing(runs, capsys):
    first = executed.outputs("tiny")
    assert runs == [path.name for path in course()]
    assert "14 notebooks were run on tiny, 0 taken from the cache" in capsys.readouterr().out
    assert executed.outputs("tiny") == first
    assert len(runs) == len(course())
    assert "0 notebooks were run on tiny, 14 taken from the cache" in capsys.readouterr().out
    assert {notebook.metadata["base"] for notebook in first.values()} == {"tiny"}


def test_what_changed_is_run_again_and_replaces_what_was_kept(runs, monkeypatch, tmp_path):
    changed = tmp_path / course()[0].name
    changed.write_bytes(course()[0].read_bytes())
    monkeypatch.setattr(executed, "course", lambda: [changed, *course()[1:]])
    executed.outputs("tiny")
    runs.clear()
    changed.write_bytes(changed.read_bytes() + b"\n")
    executed.outputs("tiny")
    assert runs == [changed.name]
    assert len(list(executed.kept("tiny").iterdir())) == len(course())


def test_a_change_of_the_package_runs_all_again(runs, monkeypatch, tmp_path):
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(executed.stage, "PACKAGE", tmp_path / "package")
    executed.outputs("tiny")
    runs.clear()
    (tmp_path / "package" / "new.py").write_text("", encoding="utf-8")
    executed.outputs("tiny")
    assert runs == [path.name for path in course()]


def test_a_notebook_that_shows_an_error_stops_the_build(runs, monkeypatch):
    monkeypatch.setattr(executed, "run", lambda path, base: NotebookRun(path, 0.0, ("bad",), None))
    with pytest.raises(LabkitError, match=r"00_start_here.* on tiny: bad"):
        executed.outputs("tiny")


@pytest.mark.parametrize("command", [build.main, slides.main], ids=["site", "slides"])
def test_notebooks_are_run_unless_asked_not_to(command):
    (execute,) = (option for option in command.params if option.name == "execute")
    assert execute.default is True
    assert "--no-execute" in CliRunner().invoke(command, ["--help"]).output


def test_no_output_of_a_notebook_is_lost_on_its_page():
    path = course()[0]
    notebook = json.loads(path.read_text(encoding="utf-8"))
    data = {"image/png": "iVBORw0KGgo=", "text/html": "<p>table</p>", executed.stage.WIDGET: {}}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "display_data", "data": dict(data), "metadata": {}}]
    page, _ = executed.stage.notebook_page(notebook, path, f"course/{path.name}")
    shown = [cell["outputs"] for cell in json.loads(page)["cells"] if cell["cell_type"] == "code"]
    kept = {"image/png": "iVBORw0KGgo=", "text/html": "<p>table</p>"}
    assert shown
    assert all(output["data"] == kept for outputs in shown for output in outputs)
