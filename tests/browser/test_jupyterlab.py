"""All six widgets in JupyterLab itself: shown, followed, and steered from Python."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect
from widgets.made import loss_log, risk_table, serving_log
from widgets.studies import make_study
from widgets.traces import make_trace

import labkit

TRACE = make_trace(temperature=0.8, seed=2, steps=40)
WAIT = 120_000
CELLS = (
    "from labkit.widgets import *",
    "stepper = TokenStepper('trace.json'); stepper",
    "race = Race('vanilla.json', 'trace.json'); race",
    "tree = TreeLab('study.json'); tree",
    "LossCurves('loss.json')",
    "ServingCurves('serving.json')",
    "RiskMatrix('risk.json')",
    "TokenStepper('study.json')",
    "stepper.step = 12",
    "",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves one notebook and knows no one's settings."""
    folder = tmp_path_factory.mktemp("lab")
    records = {
        "trace": TRACE,
        "vanilla": make_trace(steps=60, widths=()),
        "study": make_study(),
        "loss": loss_log(),
        "serving": serving_log(),
        "risk": risk_table(),
    }
    for name, record in records.items():
        record.save(folder / f"{name}.json")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "widgets.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR")
    own += ("JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")
    environment = os.environ | {name: str(folder / "own" / name) for name in own}
    environment["PYTHONPATH"] = str(Path(labkit.__path__[0]).parent)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None"]
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/api", server, folder / "server.log")
            yield address
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Return once the server answers; fail with its log where it ended or took two minutes."""
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
        else:
            return
    pytest.fail(log.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def notebook(lab: str, chromium: Browser) -> Iterator[Page]:
    """The notebook, all cells run."""
    context = chromium.new_context(viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: page.complaints.append(message.text) if message.type == "error" else None,
    )
    page.goto(f"{lab}/lab/tree/widgets.ipynb?reset", timeout=WAIT)
    page.locator(".jp-Notebook .jp-CodeCell").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(cell(page, "stepper.step = 12").locator(".jp-InputPrompt")).to_contain_text(
        "9", timeout=WAIT
    )
    yield page
    context.close()


def cell(page: Page, code: str):
    """The cell with that code; scrolled to, since JupyterLab draws only what is near."""
    found = page.locator(".jp-Notebook .jp-CodeCell").nth(CELLS.index(code))
    found.scroll_into_view_if_needed()
    return found


def run_last(page: Page, code: str) -> str:
    """Run code in the last cell; what it printed."""
    last = cell(page, "")
    last.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type(code)
    before = last.locator(".jp-InputPrompt").inner_text()
    page.keyboard.press("ControlOrMeta+Enter")
    expect(last.locator(".jp-InputPrompt")).not_to_have_text(before, timeout=WAIT)
    expect(last.locator(".jp-InputPrompt")).not_to_contain_text("*", timeout=WAIT)
    output = last.locator(".jp-OutputArea-output")
    return output.inner_text().strip() if output.count() else ""


@pytest.mark.parametrize("code", CELLS[1:7])
def test_each_widget_is_shown(notebook: Page, code):
    widget = cell(notebook, code).locator(".labkit")
    expect(widget).to_be_visible(timeout=WAIT)
    assert widget.locator(".lk-problem").count() == 0
    assert widget.bounding_box()["height"] > 150


def test_a_wrong_record_leaves_its_sentence(notebook: Page):
    panel = cell(notebook, CELLS[7]).locator(".lk-problem")
    expect(panel).to_contain_text("this is a 'treestudy'")


def test_python_moves_the_view(notebook: Page):
    told = cell(notebook, CELLS[1]).locator(".ts-told")
    expect(told).to_contain_text("Step 13 of 40")
    run_last(notebook, "stepper.step = 3")
    expect(told).to_contain_text("Step 4 of 40")


def test_the_view_moves_python(notebook: Page):
    stepper = cell(notebook, CELLS[1])
    stepper.locator(".ts-strip").focus()
    notebook.keyboard.press("End")
    expect(stepper.locator(".ts-told")).to_contain_text("Step 40 of 40")
    assert run_last(notebook, "print(stepper.step)") == "39"
    lab = cell(notebook, CELLS[3])
    lab.get_by_role("button", name="Clear").click()
    lab.get_by_role("button", name="Add the best node").click()
    assert run_last(notebook, "print(tree.nodes)") == "[[0]]"


def test_keys_in_a_widget_leave_the_notebook_alone(notebook: Page):
    cells = notebook.locator(".jp-Notebook .jp-Cell")
    before = cells.count()
    cell(notebook, CELLS[1]).locator(".ts-strip").focus()
    for key in ("a", "b", "d", "d", "x", "m", "Enter", "j"):
        notebook.keyboard.press(key)
    assert cells.count() == before
    focused = notebook.evaluate("document.activeElement.className")
    assert focused == "ts-strip"


def test_the_theme_of_the_notebook_is_followed(notebook: Page):
    stepper = cell(notebook, CELLS[1]).locator(".labkit")
    expect(stepper).to_have_attribute("data-theme", "light")
    notebook.get_by_role("menuitem", name="Settings", exact=True).click()
    notebook.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).hover()
    notebook.locator(".lm-Menu-itemLabel").get_by_text("JupyterLab Dark", exact=True).click()
    expect(stepper).to_have_attribute("data-theme", "dark", timeout=WAIT)


def test_the_console_stays_free_of_errors(notebook: Page):
    assert notebook.complaints == []
