"""The gallery: six widgets over shipped records, as plain files."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from labkit import gallery
from labkit.cli import main
from labkit.errors import LabkitError

TITLES = ("LossCurves", "Race", "RiskMatrix", "ServingCurves", "TokenStepper", "TreeLab")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    return folder, gallery.build(folder)


def test_index_names_all_six_and_links_to_their_pages(site):
    folder, paths = site
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert all(title in index for title in TITLES)
    for name in re.findall(r'href="([^"]+)"', index):
        assert (folder / name) in paths


def test_playground_comes_first_on_the_index_and_carries_all_it_needs(site):
    folder, paths = site
    page = folder / "playground" / "index.html"
    assert page in paths
    assert page.stat().st_size < 6_000_000
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert re.search(r'href="([^"]+)"', index)[1] == "playground/index.html"


def test_a_missing_model_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    with pytest.raises(LabkitError, match=r"The Playground cannot be built: .*tiny"):
        gallery.playground()


def test_site_is_small_and_loads_nothing_from_elsewhere(site):
    _, paths = site
    assert sum(path.stat().st_size for path in paths) < 9_000_000
    for path in paths:
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'(?:src|href)="(https?:[^"]+)"|url\((https?:[^)]+)\)', text)
        assert not loaded, (path.name, loaded)


def test_every_page_has_its_paragraph_its_python_line_and_where_the_record_is_from(site):
    folder, _ = site
    for exhibit in gallery.EXHIBITS:
        text = (folder / f"{exhibit.name}.html").read_text(encoding="utf-8")
        assert "In Python" in text
        assert exhibit.title in text
        assert "Recorded by" in text


def test_a_missing_record_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path / "data"))
    with pytest.raises(LabkitError, match=r"Race cannot be shown: .*race-vanilla"):
        gallery.build(tmp_path / "out")


def test_command_says_what_it_wrote(tmp_path):
    result = CliRunner().invoke(main, ["gallery", "--out", str(tmp_path / "site"), "--json"])
    assert result.exit_code == 0, result.output
    assert '"index.html"' in result.stdout
