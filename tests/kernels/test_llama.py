"""Weights that are not what the config says are refused; names without a prefix are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from labkit.errors import LabkitError
from labkit.kernels.llama import LlamaWeights
from tests.kernels.shapes import arrays, llama, small_model


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
def test_joined_weights_are_the_models(kind: str) -> None:
    model = small_model(kind, **({"head_dim": 16} if kind == "Qwen3" else {}))
    loaded = llama(model)
    for ours, theirs in zip(loaded.layers(), model.model.layers, strict=True):
        attention = theirs.self_attn
        joined = torch.cat([getattr(attention, f"{part}_proj").weight for part in "qkv"])
        np.testing.assert_array_equal(ours.qkv, joined.numpy())
        if kind == "Qwen2":
            joined = torch.cat([getattr(attention, f"{part}_proj").bias for part in "qkv"])
            np.testing.assert_array_equal(ours.bias, joined.numpy())
        else:
            assert not ours.bias.any()
        if kind == "Qwen3":
            assert ours.head_norms is not None
            np.testing.assert_array_equal(ours.head_norms[0], attention.q_norm.weight)
            np.testing.assert_array_equal(ours.head_norms[1], attention.k_norm.weight)
        else:
            assert ours.head_norms is None
    assert loaded.head is loaded.embedding


@pytest.mark.parametrize("tied", [True, False])
def test_names_without_the_prefix_are_read(tied: bool) -> None:
    model = small_model("Llama", tie_word_embeddings=tied)
    bare = {name.removeprefix("model."): weight for name, weight in arrays(model).items()}
    found, expected = LlamaWeights(model.config, bare), llama(model)
    np.testing.assert_array_equal(found.head, expected.head)
    for ours, theirs in zip(found.layers(), expected.layers(), strict=True):
        np.testing.assert_array_equal(ours.down, theirs.down)


@pytest.mark.parametrize(
    "setting",
    [
        {"vocab_size": 90},
        {"hidden_size": 32},
        {"intermediate_size": 95},
        {"num_key_value_heads": 4},
        {"head_dim": 8},
        {"num_hidden_layers": 3},
    ],
)
def test_config_unlike_the_weights_is_one_sentence(setting: dict[str, Any]) -> None:
    model = small_model("Llama")
    weights = arrays(model)
    for name, value in setting.items():
        setattr(model.config, name, value)
    with pytest.raises(LabkitError, match=r"config says|lacks the weight"):
        LlamaWeights(model.config, weights)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.up_proj.weight"])
def test_missing_weight_is_named(name: str) -> None:
    model = small_model("Llama")
    weights = arrays(model)
    del weights[name]
    with pytest.raises(LabkitError, match=name):
        LlamaWeights(model.config, weights)


def test_missing_head_of_an_untied_model_is_named() -> None:
    model = small_model("Llama", tie_word_embeddings=False)
    weights = arrays(model)
    del weights["lm_head.weight"]
    with pytest.raises(LabkitError, match="lm_head"):
        LlamaWeights(model.config, weights)
