"""Every page of the gallery in a browser: drawn, quiet, and without an axe violation."""

from __future__ import annotations

import pytest

from labkit import gallery


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    return {path.stem: path.read_text(encoding="utf-8") for path in gallery.build(folder)}


@pytest.mark.parametrize("name", [exhibit.name for exhibit in gallery.EXHIBITS])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_draws_its_widget_and_offends_nobody(pages, open_page, violations, name, theme):
    page = open_page(pages[name], theme=theme, width=400 if theme == "dark" else 1200)
    page.wait_for_selector(".labkit")
    assert page.locator(".labkit").inner_text().strip()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
    assert violations(page, "html") == []


def test_index_is_readable_in_both_themes(pages, open_page, violations):
    for theme in ("light", "dark"):
        page = open_page(pages["index"], theme=theme)
        assert page.locator("h2").count() == len(gallery.EXHIBITS)
        assert violations(page, "html") == []
