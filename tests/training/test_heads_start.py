"""EAGLE's layer copied from the base model's last: what it computes, and where it cannot be."""

from __future__ import annotations

import pytest
import torch

from labkit.errors import LabkitError
from labkit.models import load
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.training.batches import cut_runs, from_rows
from labkit.training.features import computed_features, last_hidden
from labkit.training.heads import embedding_table, start_from_base
from labkit.training.losses import Material


def drafter(base, inner: int = 32) -> Eagle:
    """An EAGLE of one layer's shape over a toy base model's table, with random weights."""
    table = embedding_table(base)
    config = EagleConfig(
        base="toy", vocab_size=300, emb_dim=32, inner_dim=inner, n_predict=2, heads=2, layers=(1,)
    )
    return Eagle(config, table)


@pytest.fixture
def base(base_folder):
    return load(str(base_folder))


@pytest.fixture
def texts() -> Material:
    rows = torch.randint(0, 300, (40, 30), generator=torch.Generator().manual_seed(5)).tolist()
    sequences = from_rows(rows, [1] * 40)
    return Material(sequences.tokens, cut_runs(sequences, 12), computed_features(None, sequences))


@torch.no_grad()
def test_it_is_the_base_models_last_layer_and_its_input_is_fitted(base, texts):
    eagle = drafter(base)
    start_from_base(eagle, base, texts)
    tokens = texts.tokens[:30]
    entering, last = last_hidden(base.module, tokens[None], (0,))[0].chunk(2, dim=-1)  # (T, D)
    q, k, v = eagle.project(entering, torch.arange(30))
    scores = torch.einsum("thd,shd->hts", q, k)
    hidden = torch.ones(30, 30, dtype=torch.bool).triu(1)
    mixed = torch.einsum("hts,shd->thd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)
    logits = eagle.logits(0, eagle.leave(entering, mixed))
    expected = base.module.get_output_embeddings()(last)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)

    states = torch.cat([last, last], dim=-1)[:-1]
    guess = eagle.enter(eagle.feature(states), tokens[1:])
    # What enters the only layer is the token's embedding, which the input can read as it is.
    assert (guess - entering[1:]).norm() < 0.2 * entering[1:].norm()


def test_a_layer_of_another_width_cannot_be_copied(base, texts):
    with pytest.raises(LabkitError, match="inner width 32"):
        start_from_base(drafter(base, inner=48), base, texts)
