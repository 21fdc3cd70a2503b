"""A toy base model with heads of random weights, ready to decode by every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
