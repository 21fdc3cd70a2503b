from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page
from widgets.made import loss_log

from labkit.records import LossLog
from labkit.widgets import LossCurves
from labkit.widgets.base import page as page_of

MODEL = "document.querySelector('[id^=labkit-]').model"


def get(page: Page, trait: str):
    return page.evaluate(f"{MODEL}.get({json.dumps(trait)})")


def show(open_page, *logs: LossLog, theme: str = "light", width: int = 1200, **state) -> Page:
    return open_page(page_of([LossCurves(*logs, **state)], "Losses"), theme=theme, width=width)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_no_axe_violation_and_nothing_wider_than_the_page(open_page, violations, theme, width):
    page = show(open_page, loss_log("one"), loss_log("other"), theme=theme, width=width)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_read_out_stands_at_the_end_and_moves_by_keys(open_page):
    log = loss_log()
    page = show(open_page, log)
    plot = page.get_by_role("slider", name="Place of the read-out")
    last = log.points[-1]
    assert f"phase 2, step {last.step}" in plot.get_attribute("aria-valuetext")
    plot.focus()
    page.keyboard.press("ArrowLeft")
    assert get(page, "at") == last.step - 1
    page.keyboard.press("Home")
    assert get(page, "at") == 0
    assert "phase 1, step 0" in page.locator(".lk-ch-table caption").inner_text()
    page.keyboard.press("PageUp")
    assert get(page, "at") == len(log.points) / 20
    page.keyboard.press("End")
    cells = page.locator(".lk-ch-table tbody tr").first.locator("td").all_inner_texts()
    assert cells[1] == f"{last.loss[0]:.3g}"
    assert cells[2] == f"{log.validation[-1].loss[0]:.3g}"
    assert cells[3] == f"{log.validation[-1].accept[0]:.2f}"


def test_read_out_follows_the_pointer(open_page):
    page = show(open_page, loss_log())
    box = page.locator(".lk-ch-plot").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 80)
    early = get(page, "at")
    page.mouse.move(box["x"] + box["width"] - 120, box["y"] + 80)
    assert get(page, "at") > early + 50


def test_phases_are_drawn_apart(open_page):
    page = show(open_page, loss_log())
    assert page.locator(".lk-lc-edge").count() == 1
    assert page.locator(".lk-lc-phase").all_text_contents() == ["phase 1", "phase 2"]
    assert page.locator(".lk-lc-raw").count() == 2 * 3  # phases x heads


def test_two_runs_are_compared(open_page):
    page = show(open_page, loss_log("one"), loss_log("other", offset=1.0))
    assert page.locator(".lk-ch-table").count() == 2
    assert page.locator(".lk-ch-runs").inner_text().split() == ["one", "other"]
    assert page.locator(".lk-lc-smooth[stroke-dasharray]").count() > 0


def test_switches_turn_by_keyboard(open_page):
    page = show(open_page, loss_log())
    raw = page.get_by_role("checkbox", name="raw")
    raw.focus()
    page.keyboard.press("Space")
    assert get(page, "raw") is False
    assert page.locator(".lk-lc-raw").count() == 0
    page.locator("input[type=radio]:checked").focus()
    page.keyboard.press("ArrowRight")
    assert get(page, "along") == "tokens"
    assert get(page, "at") == -1
    page.get_by_role("checkbox", name="log scale").focus()
    page.keyboard.press("Space")
    assert get(page, "log_scale") is True
    start = page.get_by_role("checkbox", name="without the start")
    start.focus()
    page.keyboard.press("Space")
    assert get(page, "skip_start") is True
    page.get_by_role("slider", name="Place of the read-out").focus()
    page.keyboard.press("Home")
    assert get(page, "at") == 1000 * 6  # tokens after the first five of a hundred steps
    page.get_by_role("slider", name="Smoothed over").focus()
    page.keyboard.press("Home")
    assert get(page, "span") == 1
    head = page.get_by_role("button", name="head 2")
    head.focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-pressed") == "false"
    assert page.locator(".lk-ch-table tbody tr").count() == 2


def test_new_steps_appear_while_the_read_out_stays_at_the_end(open_page):
    log = loss_log()
    page = show(open_page, log.model_copy(update={"points": log.points[:20], "validation": ()}))
    assert page.locator(".lk-ch-heading").count() == 1
    page.evaluate(f"text => {MODEL}.set('records_json', text)", "[" + log.to_json() + "]")
    plot = page.get_by_role("slider", name="Place of the read-out")
    assert f"step {log.points[-1].step}" in plot.get_attribute("aria-valuetext")
    assert page.locator(".lk-ch-heading").count() == 2


def test_a_run_without_a_step_says_so(open_page, violations):
    page = show(open_page)
    assert "no step yet" in page.locator(".lk-ch-head").inner_text()
    assert violations(page) == []


def test_a_hostile_name_is_only_a_name(open_page):
    page = show(open_page, loss_log("<img src=x onerror=\"document.title='stolen'\">"))
    assert page.title() == "Losses"
    assert page.locator(".labkit img").count() == 0


def test_a_wrong_record_leaves_one_sentence(open_page):
    page = open_page(page_of([LossCurves('{"kind": "losslog", "version": 7}')], "Losses"))
    assert "version 7" in page.get_by_role("alert").inner_text()
