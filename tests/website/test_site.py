"""The site as files: built without a warning or a network, whole, and sufficient to itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from docs import stage
from labkit.cli import main
from labkit.course.run import course
from labkit.facade import HOMES
from labkit.gallery import EXHIBITS
from tests.grading.made import lecturers_words

LOADED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "image": ("href",),
    "use": ("href",),
    "link": ("href",),
}
"""What a browser fetches by itself as it shows a page."""


class Page(HTMLParser):
    """What a page loads, where it links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self.loads += [given[name] for name in LOADED.get(tag, ()) if given.get(name)]


@pytest.fixture(scope="module")
def pages(site) -> dict[str, Page]:
    return {
        path.relative_to(site.folder).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in site.folder.rglob("*.html")
    }


def elsewhere(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme in ("http", "https", "ftp", "ws")


def test_it_builds_without_a_warning_and_without_a_network(site):
    assert site.status == 0, site.said[-4000:]
    assert "WARNING" not in site.said
    assert (site.folder / "index.html").is_file()


def test_every_notebook_is_there_in_reading_order(site):
    index = site.text("course/index.html")
    table = index[index.index("<table") : index.index("</table>")]
    linked = re.findall(r'href="(\w+)\.html"', table)
    assert linked == [path.stem for path in course()]
    for path in course():
        page = site.text(f"course/{path.stem}.html")
        assert stage.says(path, "It takes").split(";")[0] in page
        assert "What you have seen" in page


def test_every_widget_is_live_on_a_page_of_its_own(site):
    for exhibit in EXHIBITS:
        page = site.text(f"gallery/{exhibit.name}.html")
        assert f'id="labkit-{exhibit.name}"' in page
        assert "new PageModel(" in page
        assert "Recorded by" in page
    assert 'id="labkit-front"' in site.text("index.html")


def test_every_public_module_is_described_with_its_docstring(site):
    for path in stage.modules():
        room = ".".join(stage.dotted(path).split(".")[:2])
        page = site.text(f"api/{room}.html")
        assert f'id="module-{stage.dotted(path)}"' in page
        said = " ".join(re.sub(r"<[^>]+>", "", page).split())
        most = max(re.findall(r"[\w ,]+", stage.summary(path)), key=len).strip()
        assert len(most) > 3 and most in said, path


def test_every_public_name_leads_to_where_it_is_described(pages):
    links = " ".join(pages["api/index.html"].links)
    for name, home in HOMES["labkit"].items():
        page = re.escape(".".join(home.split(".")[:2]))  # a room's modules share its page
        assert re.search(rf"{page}\.html#{re.escape(home)}[\w.]*\.{name}\b", links), name


def test_every_command_says_how_it_is_used(site):
    def usages(group: click.Group, path: str) -> Iterator[str]:
        for name, command in group.commands.items():
            yield f"Usage: {path} {name} "
            if isinstance(command, click.Group):
                yield from usages(command, f"{path} {name}")

    page, expected = site.text("commands.html"), list(usages(main, "labkit"))
    assert len(expected) > 25
    assert [usage for usage in expected if usage not in page] == []


def test_no_page_loads_anything_from_elsewhere(site, pages):
    found = {(name, load) for name, page in pages.items() for load in page.loads if elsewhere(load)}
    assert found == set()
    for sheet in [*site.folder.rglob("*.css"), *site.folder.rglob("*.html")]:
        text = sheet.read_text(encoding="utf-8")
        loads = re.findall(r"url\(\s*['\"]?(?:https?:)?//|@import\s+(?:url\()?['\"]?https?:", text)
        assert not loads, (sheet.name, loads)


def test_every_link_within_the_site_leads_to_a_page_and_a_place_on_it(site, pages):
    dead = set()
    for name, page in pages.items():
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            path = unquote(parts.path)
            goal = (site.folder / name).parent / path if path else site.folder / name
            there = goal.resolve()
            known = pages.get(_name(there, site.folder))
            if not there.exists() or (
                parts.fragment and known and unquote(parts.fragment) not in known.places
            ):
                dead.add((name, link))
    assert dead == set()


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder.resolve()).as_posix() if path.is_relative_to(folder) else ""


def test_formulas_are_mathml_and_need_no_script(site):
    page = site.text("course/08_minimum_bayes_risk.html")
    assert "<math " in page
    assert "$$" not in page
    assert not list(site.folder.rglob("*athjax*"))


def test_the_notebooks_can_be_downloaded_as_they_are(site, pages):
    for path in course():
        links = [link for link in pages[f"course/{path.stem}.html"].links if "_downloads/" in link]
        given = [(site.folder / "course" / link).resolve().read_bytes() for link in links]
        assert path.read_bytes() in given


def test_no_solution_of_an_assignment_is_given_away(site):
    for path in site.folder.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".js"):
            text = path.read_text(encoding="utf-8")
            assert "### BEGIN SOLUTION" not in text, path
            assert "### BEGIN HIDDEN TESTS" not in text, path


def test_nothing_written_for_lecturers_alone_is_shown(site):
    secret = lecturers_words()
    assert len(secret) > 100
    for path in site.folder.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".js", ".md", ".txt"):
            text = path.read_text(encoding="utf-8")
            assert not [words for words in secret if words in text], path


def test_the_teachers_page_says_the_minutes_of_each_notebook_in_its_plans(site):
    page = site.text("teaching.html")
    for path in course():
        assert f"({stage.minutes(path)} min)" in page


@pytest.mark.parametrize("hours", [4, 8, 12])
def test_a_plan_fits_its_hours_and_fills_them(hours):
    text = (stage.ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    plan = re.search(rf"^### {hours} hours\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)[1]
    rows = [line for line in plan.splitlines() if line.startswith("|")]
    names = re.findall(r"\(\.\./notebooks/(\w+\.ipynb)\)", "\n".join(rows))
    work = sum(stage.minutes(stage.ROOT / "notebooks" / name) for name in names)
    work += 120 * sum(row.count("the assignment |") for row in rows)  # two hours each
    assert len(names) == len(set(names))
    assert 0.75 * 60 * hours <= work <= 60 * hours, f"{work} minutes"
