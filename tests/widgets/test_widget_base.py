from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import labkit.widgets
from labkit.records import RecordError, Token, Trace
from labkit.widgets import Race, TokenStepper
from labkit.widgets.base import HERE, fragment, page, png, read, script, style, table_html
from widgets.node import node, run_tests
from widgets.traces import hostile_trace, make_trace

FOLDERS = sorted(place.name for place in HERE.iterdir() if (place / "widget.js").exists())


def test_shared_functions_under_node():
    run_tests("shared")


def test_all_six_widgets_are_exported():
    assert sorted(labkit.widgets.__all__) == dir(labkit.widgets)
    for name in labkit.widgets.__all__:
        assert getattr(labkit.widgets, name).__name__ == name
    with pytest.raises(AttributeError, match="Nothing"):
        labkit.widgets.Nothing  # noqa: B018


def test_naming_one_widget_imports_neither_torch_nor_matplotlib_nor_the_others():
    program = (
        "import sys; from labkit.widgets import TokenStepper; "
        "print([name for name in ('torch', 'matplotlib', 'labkit.widgets.race', "
        "'labkit.speculative') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_widget_is_one_module_that_loads_nothing(folder, tmp_path: Path):
    text = script(folder)
    assert text.count("export default ") == 1
    for line in text.splitlines():
        assert not line.startswith("import ")
    for word in (
        "import(",
        "innerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "http://",
    ):
        assert word not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "url(" not in style(folder)
    assert "@import" not in style(folder)
    file = tmp_path / "widget.mjs"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [node(), "--check", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_record_text_and_path_show_the_same(tmp_path: Path):
    trace = make_trace(steps=3)
    path = trace.save(tmp_path / "trace.json")
    for given in (trace, trace.to_json(), trace.to_json().encode(), path, str(path)):
        widget = TokenStepper(given)
        assert widget.record == trace
        assert widget.problem == ""
        assert widget.records_json == f"[{trace.to_json()}]"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "needs a record of kind 'trace'"),
        ((make_trace(steps=1), make_trace(steps=1)), "at most 1 record, not 2"),
        (('{"kind": "losslog", "version": 1}',), "this is a 'losslog'"),
        (('{"kind": "trace", "version": 7}',), "version 1 of 'trace' records, this is version 7"),
        (("{",), "its text is no JSON"),
        (("[1]",), "no JSON object"),
        (('{"kind": "trace", "version": 1}',), "Not a trace record: method"),
        (("nowhere.json",), "Cannot read the trace record nowhere.json"),
        ((3,), "this is a Python int"),
    ],
)
def test_what_cannot_be_shown_leaves_one_sentence(given, words):
    widget = TokenStepper(*given)
    assert words in widget.problem
    assert widget.problem.endswith(".")
    assert "\n" not in widget.problem
    assert widget.record is None
    assert widget.records_json == "[]"
    data, _ = widget._repr_mimebundle_()
    assert words in data["text/plain"]


def test_a_damaged_file_is_named(tmp_path: Path):
    path = tmp_path / "trace.json"
    path.write_bytes(make_trace(steps=2).to_json().encode()[:100])
    assert "no JSON" in TokenStepper(path).problem
    path.write_bytes(b"\xff\xfe\x00")
    assert "Cannot read" in TokenStepper(path).problem


def test_read_refuses_another_kind():
    with pytest.raises(RecordError, match="this is a 'trace'"):
        read(labkit.records.LossLog, make_trace(steps=1))


def test_a_good_record_ends_the_problem():
    widget = TokenStepper(3)
    widget.record = make_trace(steps=2)
    assert widget.problem == ""
    assert len(widget.record.steps) == 2
    widget.record = "{}"
    assert widget.problem
    assert widget.step == 0


@pytest.mark.parametrize("make", [TokenStepper, Race])
def test_a_picture_and_a_table_stand_in_without_a_manager(make):
    widget = make(hostile_trace())
    data, _ = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == widget.summary()
    assert "<table>" in data["text/html"]
    assert data["image/png"] in data["text/html"]
    assert "<img src=x" not in data["text/html"]
    assert "<script" not in data["text/html"]


def test_pictures_are_small_and_keep_their_colours():
    widget = TokenStepper(make_trace(steps=100))
    picture = base64.b64decode(png(widget.figure()))
    assert len(picture) < 60_000
    whole = io.BytesIO()
    widget.figure().savefig(whole, format="png", dpi=110)
    one, other = (
        np.asarray(Image.open(each).convert("RGB"), int) for each in (io.BytesIO(picture), whole)
    )
    assert abs(one - other).max() <= 12


def test_cells_of_a_table_are_text():
    assert table_html(["<a>"], [["<b>&", 1]]) == (
        "<table><thead><tr><th scope='col'>&lt;a&gt;</th></tr></thead>"
        "<tbody><tr><td>&lt;b&gt;&amp;</td><td>1</td></tr></tbody></table>"
    )


def test_long_tables_are_folded_away():
    html = table_html(["n"], [[n] for n in range(40)])
    assert html.startswith("<details><summary>Table of 40 rows</summary><table>")
    assert html.count("<tr>") == 41


def test_no_text_of_a_record_ends_the_script_of_a_page():
    bad = "</script><script>alert(1)</script><!--"
    trace = Trace(
        method=bad,
        base=bad,
        prompt=bad,
        prompt_tokens=1,
        first=Token(id=1, text=bad),
        steps=(),
        text=bad,
        prefill_s=0.1,
    )
    html = fragment(TokenStepper(trace))
    assert html.count("</script") == 1
    assert "alert(1)" in html
    assert "<!--" not in html


def test_a_page_escapes_its_title():
    assert "<title>a &lt;b&gt;</title>" in page([], "a <b>")
