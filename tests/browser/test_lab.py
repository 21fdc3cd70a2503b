"""The first notebook in JupyterLab itself, as a reader has it: run, drawn, and worked by keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from browser.lab import running_lab
from labkit.course.run import course

NOTEBOOK = "00_start_here.ipynb"
KNOWN_NOISE: tuple[str, ...] = ()
"""Console errors of JupyterLab's own that say nothing of the lab: none is known."""

OPEN_MS, RUN_MS = 300_000, 900_000
"""How long opening and running may take on a busy machine; nothing waits it out."""

WIDGETS = ("Race", "TokenStepper", "LossCurves", "RiskMatrix")
"""What the notebook shows, in its order."""


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    return []


@pytest.fixture(scope="module")
def page(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory, complaints: list[str]
) -> Iterator[Page]:
    """The notebook in a light JupyterLab, every cell run on `tiny`."""
    folder = tmp_path_factory.mktemp("lab")
    with running_lab(course(), folder, base="tiny", theme="light") as lab:
        context = chromium.new_context(viewport={"width": 1280, "height": 1000})
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
        page.on("console", lambda message: note(message, complaints))
        page.goto(lab.page(NOTEBOOK))
        page.get_by_text("| Idle").wait_for(timeout=OPEN_MS)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_function(EVERY_CELL_RAN, timeout=RUN_MS)
        yield page
        context.close()


def note(message, complaints: list[str]) -> None:
    if message.type == "error" and not any(known in message.text for known in KNOWN_NOISE):
        complaints.append(f"console: {message.text} ({message.location.get('url', '')})")


EVERY_CELL_RAN = """() => {
  const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
  return prompts.length > 0 && prompts.every((prompt) => /\\d/.test(prompt.textContent));
}"""


def widget(page: Page, name: str) -> Locator:
    """The drawn widget of that name, brought into view."""
    found = page.locator(".jp-OutputArea-output").get_by_role("group", name=name, exact=True)
    found.scroll_into_view_if_needed()
    expect(found).to_be_visible()
    return found


def scroll_to(page: Page, cell: str) -> None:
    """Bring the first cell whose source begins so into view."""
    page.locator(".jp-Cell", has_text=cell).first.scroll_into_view_if_needed()


def test_no_cell_shows_an_error_or_a_warning(page: Page):
    for kind in ("error", "stderr"):
        output = page.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']")
        assert output.all_inner_texts() == []


def test_the_widgets_are_drawn_in_their_order(page: Page, tmp_path: Path):
    groups = page.locator(".jp-OutputArea-output .labkit")
    assert [group.get_attribute("aria-label") for group in groups.all()] == [*WIDGETS]
    for name in WIDGETS:
        drawn = widget(page, name)
        assert drawn.locator(".lk-problem").count() == 0
        assert drawn.bounding_box()["height"] > 200
        drawn.screenshot(path=tmp_path / f"{name}.png")


def test_no_output_is_wider_than_its_place(page: Page):
    wide = page.evaluate(
        """() => [...document.querySelectorAll(".jp-OutputArea-output")]
          .filter((output) => output.scrollWidth > output.clientWidth + 1)
          .map((output) => output.textContent.slice(0, 80))"""
    )
    assert wide == []


def test_the_race_moves_to_its_end_by_a_key(page: Page):
    race = widget(page, "Race")
    clock = race.get_by_role("slider", name="Clock")
    clock.focus()
    before = clock.input_value()
    page.keyboard.press("End")
    expect(clock).not_to_have_value(before)
    expect(race.locator(".rc-outcome")).to_contain_text("texts are the same")


def test_the_stepper_goes_on_by_a_key(page: Page):
    stepper = widget(page, "TokenStepper")
    expect(stepper.get_by_text(re.compile("^Step 1 of"))).to_be_visible()
    stepper.get_by_role("slider", name="Step").focus()
    page.keyboard.press("ArrowRight")
    expect(stepper.get_by_text(re.compile("^Step 2 of"))).to_be_visible()


def test_the_curves_are_read_by_keys(page: Page):
    plot = widget(page, "LossCurves").locator("[role=slider].lk-ch-plot")
    plot.focus()
    last = plot.get_attribute("aria-valuenow")
    page.keyboard.press("Home")
    expect(plot).not_to_have_attribute("aria-valuenow", last)
    first = plot.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowRight")
    expect(plot).not_to_have_attribute("aria-valuenow", first)


def test_the_matrix_is_walked_by_keys(page: Page):
    grid = widget(page, "RiskMatrix").get_by_role("grid", name="Losses")
    cell = grid.locator("[role=gridcell]")
    grid.focus()
    before = cell.get_attribute("aria-label")
    page.keyboard.press("ArrowDown")
    expect(cell).not_to_have_attribute("aria-label", before)


def test_keys_for_a_widget_are_not_the_notebooks_own(page: Page):
    cells = page.locator(".jp-Notebook .jp-Cell")
    before = cells.count()
    widget(page, "TokenStepper").get_by_role("slider", name="Step").focus()
    for key in ("b", "a", "d", "d"):  # the notebook would add two cells and delete one
        page.keyboard.press(key)
    assert cells.count() == before


def test_a_prediction_is_kept_and_compared(page: Page):
    scroll_to(page, "Predict. How many tokens")
    cell = page.locator(".jp-CodeCell", has_text='predict("tokens in the best step"')
    cell.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type('predict("tokens in the best step", 1)')
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-OutputArea-output")).to_contain_text("Kept")
    answer = page.locator(".jp-CodeCell", has_text="best = max(")
    answer.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    # The result of the run before was known, so the guess stands as a late one.
    expect(answer.locator(".jp-OutputArea-output")).to_contain_text("it was")


def test_the_theme_of_the_page_is_followed(page: Page, tmp_path: Path):
    shades = {}
    for theme in ("Light", "Dark", "Light"):
        choose_theme(page, theme)
        for name in WIDGETS:
            drawn = widget(page, name)
            expect(drawn).to_have_attribute("data-theme", theme.lower())
            drawn.screenshot(path=tmp_path / f"{name}-{theme}.png")
            pictures = drawn.locator("canvas").evaluate_all("all => all.map((c) => c.toDataURL())")
            assert shades.setdefault((name, theme), pictures) == pictures
    assert shades["RiskMatrix", "Light"] != shades["RiskMatrix", "Dark"]


def choose_theme(page: Page, theme: str) -> None:
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).hover()
    page.locator(".lm-Menu-itemLabel").get_by_text(f"JupyterLab {theme}", exact=True).click()
    is_light = "true" if theme == "Light" else "false"
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", is_light)


def test_the_console_has_no_error(page: Page, complaints: list[str]):
    # Last, so that it has seen everything above.
    assert page.locator(".jp-Notebook").count() == 1
    assert complaints == []
