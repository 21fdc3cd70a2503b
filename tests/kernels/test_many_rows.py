"""The pass for writing a great many texts: the model that it says it is, within bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from labkit.kernels.engine import Rows
from labkit.kernels.many_rows import ManyRows
from labkit.speculative.tree import Draft
from tests.kernels.shapes import SIZES, llama, small_model

MODELS = {
    **{f"Llama, {name}": ("Llama", size) for name, size in SIZES.items()},
    "Qwen2, biased q k v": ("Qwen2", {}),
    "Qwen3, norms on queries and keys": ("Qwen3", {"head_dim": 16}),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, ManyRows]:
    """transformers' model and the same weights, halved."""
    kind, sizes = MODELS[request.param]
    model = small_model(kind, **sizes)
    return model, ManyRows(llama(model))


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for bfloat16's eight bits."""
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < 0.06


@torch.no_grad()
def whole(model: Any, tokens: list[int]) -> Any:
    """What transformers makes of a text in one pass."""
    return model(torch.tensor([tokens]), output_hidden_states=True)


def test_texts_of_unequal_length_go_on_side_by_side(pair: tuple[Any, ManyRows]) -> None:
    model, engine = pair
    rng = np.random.default_rng(0)
    texts = [rng.integers(engine.vocabulary, size=size).tolist() for size in (5, 12, 1, 30)]
    cache = engine.new_cache(40, len(texts))
    begun = engine.forward([Rows(text[:-1], s) for s, text in enumerate(texts) if text[1:]], cache)
    assert len(begun.logits) == 4 + 11 + 29
    for slot, text in enumerate(texts):
        cache.commit(range(len(text) - 1), slot)
    out = engine.forward([Rows(text[-1:], slot) for slot, text in enumerate(texts)], cache, "last")
    for text, logits, hidden in zip(texts, out.logits, out.hidden, strict=True):
        expected = whole(model, text)
        near(logits, expected.logits[0, -1])
        near(hidden, expected.hidden_states[-1][0, -1])


def test_states_of_other_layers_stand_before_the_last_ones(pair: tuple[Any, ManyRows]) -> None:
    model, engine = pair
    tokens = [3, 9, 4, 1]
    out = engine.forward([Rows(tokens)], engine.new_cache(4), "last", (1,))
    first, last = out.hidden.split(engine.width, dim=1)
    near(first, whole(model, tokens).hidden_states[1][0])
    assert torch.equal(last, engine.forward([Rows(tokens)], engine.new_cache(4)).hidden)


def test_a_trees_branches_are_kept_apart(pair: tuple[Any, ManyRows]) -> None:
    model, engine = pair
    draft = Draft((1, 2, 3, 4), (-1, -1, 1, 2), (None,) * 4, ("",) * 4)
    cache = engine.new_cache(12)
    engine.forward([Rows([5, 6, 7])], cache)
    cache.commit(range(3))
    found = engine.forward([draft.rows(9)], cache).logits
    near(found[[0, 2, 3, 4]], whole(model, [5, 6, 7, 9, 2, 3, 4]).logits[0, 3:])
    near(found[[0, 1]], whole(model, [5, 6, 7, 9, 1]).logits[0, 3:])


def test_half_the_bytes_of_float32(pair: tuple[Any, ManyRows]) -> None:
    model, engine = pair
    config = model.config
    layer = sum(w.numel() for w in model.model.layers[0].parameters() if w.ndim == 2)
    head = config.vocab_size * config.hidden_size
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    bias = heads * model.model.layers[0].self_attn.head_dim  # zeros where the model has none
    assert engine.bytes_per_pass == 2 * ((layer + bias) * config.num_hidden_layers + head)
