"""The site from a plain folder in a browser: drawn, quiet, and without an axe violation."""

from __future__ import annotations

import pytest

from tests.website.building import built

SECONDS = 300
"""How long a page may take on a machine that has other things to do."""


@pytest.fixture
def open_site(chromium):
    """A function that opens a page of the site; fails if it complained or asked for anything."""
    contexts, complaints = [], []

    def opened(name: str, theme: str, width: int):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("pageerror", lambda error: complaints.append(f"{name}: {error}"))
        page.on(
            "console",
            lambda said: (
                complaints.append(f"{name}: {said.text}")
                if said.type in ("error", "warning")
                else None
            ),
        )
        page.on(
            "request",
            lambda asked: (
                complaints.append(f"{name} asks for {asked.url}")
                if not asked.url.startswith(("file:", "data:", "blob:"))
                else None
            ),
        )
        page.goto(f"{built().folder.as_uri()}/{name}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


@pytest.mark.parametrize(("theme", "width"), [("light", 1300), ("dark", 400)])
@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "course/index.html",
        "course/02_accept_or_reject.html",
        "gallery/tree-lab.html",
        "teaching.html",
    ],
)
def test_page_is_quiet_fits_and_offends_nobody(open_site, violations, name, theme, width):
    page = open_site(name, theme, width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
    assert violations(page, "html") == []


def test_widget_follows_the_theme_that_the_reader_chooses(open_site):
    page = open_site("gallery/race.html", "light", 1300)
    widget = page.locator(".labkit").first
    assert widget.get_attribute("data-theme") == "light"
    page.evaluate("document.body.dataset.theme = 'dark'")
    page.wait_for_function("document.querySelector('.labkit').dataset.theme === 'dark'")


def test_search_finds_a_notebook_without_a_server(open_site):
    page = open_site("search.html?q=lossless", "light", 1300)
    page.wait_for_selector("#search-results a[href*='02_accept_or_reject']")


def test_formulas_are_drawn(open_site):
    page = open_site("course/08_minimum_bayes_risk.html", "light", 1300)
    box = page.locator("math[display=block]").first.bounding_box()
    assert box["width"] > 100
    assert box["height"] > 20
