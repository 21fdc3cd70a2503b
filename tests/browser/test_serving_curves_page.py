from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page
from widgets.made import serving_log

from labkit.records import ServingLog
from labkit.widgets import ServingCurves
from labkit.widgets.base import page as page_of

MODEL = "document.querySelector('[id^=labkit-]').model"


def get(page: Page, trait: str):
    return page.evaluate(f"{MODEL}.get({json.dumps(trait)})")


def show(open_page, log: ServingLog | None = None, *, theme="light", width=1200, **state) -> Page:
    widget = ServingCurves(log or serving_log(), **state)
    return open_page(page_of([widget], "Serving"), theme=theme, width=width)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_no_axe_violation_and_nothing_wider_than_the_page(open_page, violations, theme, width):
    page = show(open_page, theme=theme, width=width)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_read_out_moves_from_load_to_load_by_keys(open_page):
    page = show(open_page)
    plot = page.get_by_role("slider", name="Concurrent users")
    plot.focus()
    page.keyboard.press("ArrowRight")
    assert get(page, "users") == 2
    page.keyboard.press("End")
    assert get(page, "users") == 64
    assert plot.get_attribute("aria-valuetext").startswith("64 users: vanilla, simulated")
    page.keyboard.press("Home")
    assert "2.00×" in page.locator(".lk-ch-table").inner_text()


def test_read_out_follows_the_pointer_in_both_panels(open_page):
    page = show(open_page)
    box = page.locator(".lk-ch-plot").bounding_box()
    for share in (0.46, 0.98):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + 100)
        assert get(page, "users") == 64
        page.mouse.move(box["x"] + box["width"] * (share - 0.4), box["y"] + 100)
        assert get(page, "users") == 1


def test_users_are_written_on_the_points(open_page):
    page = show(open_page)
    written = set(page.locator(".lk-sc-users").all_text_contents())
    assert written == {"1", "2", "4", "8", "16", "32", "64"}


def test_simulated_series_are_dashed(open_page):
    page = show(open_page)
    assert page.locator(".lk-sc-line").count() == 8
    assert page.locator(".lk-sc-line[stroke-dasharray]").count() == 4


def test_switches_turn_by_keyboard(open_page):
    page = show(open_page)
    page.locator("input[type=radio]:checked").focus()
    page.keyboard.press("ArrowRight")
    assert get(page, "gap") == "itl"
    assert "ITL" in page.locator(".lk-ch-heading").nth(1).text_content()
    page.keyboard.press("ArrowRight")
    assert get(page, "gap") == "gain"
    assert page.locator(".lk-sc-even").count() == 1
    page.get_by_role("combobox", name="Bands").select_option("none")
    assert page.locator(".lk-sc-band").count() == 0
    page.get_by_role("combobox", name="Lines").select_option("p99")
    assert get(page, "line") == "p99"
    page.get_by_role("checkbox", name="log scale").focus()
    page.keyboard.press("Space")
    assert get(page, "log_scale") is True
    page.get_by_role("button", name="vanilla, measured").focus()
    page.keyboard.press("Enter")
    assert page.locator(".lk-sc-line").count() == 6
    assert page.locator(".lk-ch-table tbody tr").count() == 3


def test_one_load_and_no_load_are_drawn(open_page, violations):
    log = serving_log()
    one = log.model_copy(update={"rows": log.rows[:1]})
    assert "1 user" in show(open_page, one).locator(".lk-ch-table").inner_text()
    none = show(open_page, log.model_copy(update={"rows": ()}))
    assert "No rows" in none.locator(".lk-ch-table").inner_text()
    assert violations(none) == []


def test_a_wrong_record_leaves_one_sentence(open_page):
    page = open_page(page_of([ServingCurves('{"kind": "trace"}')], "Serving"))
    assert "'trace'" in page.get_by_role("alert").inner_text()
