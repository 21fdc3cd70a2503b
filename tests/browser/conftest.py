"""One Chromium for all browser tests: the system's own where there is one, else playwright's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from labkit.paths import find_chromium

AXE = "axe_playwright_python"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, tmp_path: Path):
    """A function that opens HTML text from a plain folder and watches what the page complains of.

    The page's ``complaints`` lists console errors, uncaught errors, and every request that left
    the folder; a test that opened a page fails if any are left at its end.
    """
    pages: list[Page] = []

    def open_html(
        html: str,
        *,
        theme: str = "light",
        width: int = 1200,
        height: int = 900,
        motion: str = "no-preference",
    ) -> Page:
        file = tmp_path / f"page{len(pages)}.html"
        file.write_text(html, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion=motion,
        )
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: (
                page.complaints.append(f"console: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                page.complaints.append(f"request: {request.url}")
                if not request.url.startswith(("file:", "data:", "blob:"))
                else None
            ),
        )
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_html
    complaints = [complaint for page in pages for complaint in page.complaints]
    for page in pages:
        page.context.close()
    assert not complaints, complaints


@pytest.fixture(scope="session")
def axe_script() -> str:
    """The text of axe-core, from the package that carries it."""
    import importlib.resources

    return (importlib.resources.files(AXE) / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def violations(axe_script: str):
    """A function that runs axe-core over the widgets of a page: one line per violation."""

    def run(page: Page, within: str = ".labkit") -> list[str]:
        if not page.evaluate("typeof window.axe === 'object'"):
            page.evaluate(axe_script)
        result = page.evaluate(
            # Without preload, for which axe would fetch the style sheets, as no file may.
            "within => axe.run(within, {preload: false, resultTypes: ['violations']})",
            within,
        )
        return [
            f"{rule['id']}: {node['target']} {node['html'][:160]} {node['failureSummary'][:300]}"
            for rule in result["violations"]
            for node in rule["nodes"]
        ]

    return run
