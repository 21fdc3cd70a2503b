"""Small random models of several architectures and shapes, made in a moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from labkit.kernels.llama import LlamaWeights

SIZES: dict[str, dict[str, Any]] = {
    "even, tied": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 96,
        "tie_word_embeddings": True,
    },
    "odd widths, heads of 16": {
        "hidden_size": 52,
        "intermediate_size": 71,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 101,
        "tie_word_embeddings": False,
    },
    "heads of 32": {
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "tie_word_embeddings": False,
    },
    "heads of 64": {
        "hidden_size": 128,
        "intermediate_size": 80,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 64,
        "tie_word_embeddings": True,
    },
}
"""Llama's settings by what is special about them."""


def small_model(kind: str, seed: int = 0, **settings: Any) -> torch.nn.Module:
    """A causal LM of random weights, in float32, large enough in spread to have opinions.

    ``kind`` is Llama, Mistral, Qwen2, Qwen3, GPTNeoX or GPT2.
    """
    if kind == "GPT2":
        sizes = {"n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": 256, "vocab_size": 80}
        extra = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        sizes = {**SIZES["even, tied"], "num_hidden_layers": 2, "max_position_embeddings": 256}
        if kind == "GPTNeoX":
            del sizes["num_key_value_heads"]
        extra = {}
    ends = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **extra, **ends, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(std=0.3)
            elif weight.ndim == 2:
                weight.normal_(std=0.2)
            else:
                weight.uniform_(0.5, 1.5)
    return model


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The model's weights as a file would hold them: a tied weight stands there once."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return weights


def llama(model: torch.nn.Module) -> LlamaWeights:
    """The model's weights as the fast engines take them."""
    return LlamaWeights(model.config, arrays(model))
