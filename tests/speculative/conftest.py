"""A toy base model with heads of random weights, ready to decode by every method."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from labkit import threads
from labkit.models import load
from labkit.speculative.checkpoint import save_heads
from labkit.speculative.decoder import Decoder
from labkit.speculative.speculator import Speculator, SpeculatorConfig


@pytest.fixture(scope="session")
def toy_heads(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Path:
    """A folder with hierarchical heads for the toy model."""
    folder = tmp_path_factory.mktemp("heads")
    table = torch.from_numpy(load(str(toy_folder)).weights()["model.embed_tokens.weight"].copy())
    config = SpeculatorConfig(
        base="toy", vocab_size=len(table), emb_dim=table.shape[1], inner_dim=24, n_predict=3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_heads(folder, Speculator(config, table), torch.arange(256))
    return folder


@pytest.fixture
def decoder(toy_folder: Path, toy_heads: Path) -> Decoder:
    """The toy model with its heads, and itself as a draft model."""
    base = load(str(toy_folder), "cpu")
    return Decoder(base, toy_heads, max_nodes=6, draft=base)


class FakeLlama:
    """The interface of `llama_cpp.Llama` over the lab's own vanilla decoding; never stops itself.

    With a draft model a pass gives two tokens, without one a single token.
    """

    decoder: Decoder
    made: list[FakeLlama]

    def __init__(self, path: str, **settings: Any) -> None:
        self.path, self.settings, self.cached = path, settings, False
        self.made.append(self)

    def reset(self) -> None:
        self.cached = False

    def eval(self, tokens: list[int]) -> None:
        assert tokens

    def generate(self, ids: list[int], **settings: Any) -> Iterator[int]:
        assert settings == {"temp": 0.0, "repeat_penalty": 1.0}
        assert not self.cached, "the last run's cache would be reused"
        self.cached = True
        answer = list(self.decoder.generate(ids, 20).tokens)
        each = 2 if self.settings["draft_model"] else 1
        for place, token in enumerate([*answer, *range(100)]):
            if place % each == 0:
                self.eval([token])
            yield token


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that does nothing else, and a cache folder of its own."""
    monkeypatch.setattr(threads, "contention", lambda: 0.02)
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def llama_cpp(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> type[FakeLlama]:
    monkeypatch.setattr(FakeLlama, "decoder", decoder, raising=False)
    monkeypatch.setattr(FakeLlama, "made", [], raising=False)
    lookup = SimpleNamespace(LlamaPromptLookupDecoding=lambda **settings: settings)
    monkeypatch.setitem(sys.modules, "llama_cpp", SimpleNamespace(Llama=FakeLlama))
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_speculative", lookup)
    return FakeLlama


def with_gguf(decoder: Decoder, folder: Path, **settings: Any) -> Decoder:
    """The decoder's model in a folder of its own that also holds a GGUF file."""
    shutil.copytree(decoder.base.folder, folder, dirs_exist_ok=True)
    (folder / "toy.gguf").write_bytes(b"GGUF")
    return Decoder(load(str(folder), "cpu"), decoder.folder, max_nodes=6, **settings)
