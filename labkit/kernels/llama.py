"""The weights of a Llama-shaped model, checked against its config and joined where they can be.

A layer, for a residual stream x of width D, h heads of width d and k key-value heads::

    q, k, v = W_qkv norm(x) (+ bias)        the three matrices share their input: one product
    q, k = norm(q), norm(k)                 head by head, in Qwen3 only
    x += W_out attention(rotate(q), rotate(k), v)
    x += W_down (silu(W_gate norm(x)) * W_up norm(x))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Engine
from labkit.positions import context_of


@dataclass(frozen=True)
class LlamaLayer:
    """One layer's weights in float32: matrices (out, in), norms' gains and the bias as vectors."""

    before: np.ndarray
    qkv: np.ndarray
    bias: np.ndarray
    """Of q, k and v; zeros where the model has none."""
    out: np.ndarray
    between: np.ndarray
    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray
    head_norms: np.ndarray | None = None
    """The gains (2, d) of the norms on each head's queries and keys; None where there are none."""


class LlamaWeights:
    """The sizes, weights and rotary tables of a Llama-shaped model.

    ``weights`` maps transformers' names to float32 arrays; names without the prefix ``model.`` are
    read too, as transformers does. Raises `LabkitError` where a weight is missing, or not of the
    shape that transformers' ``config`` says.
    """

    def __init__(self, config: Any, weights: Mapping[str, np.ndarray]) -> None:
        bare = "embed_tokens.weight" in weights
        self._weights = {f"model.{name}": w for name, w in weights.items()} if bare else weights
        self.kind = config.model_type
        self.vocabulary, self.width = config.vocab_size, config.hidden_size
        self.inner = config.intermediate_size
        self.layer_count = config.num_hidden_layers
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or self.width // self.heads
        self.epsilon = config.rms_norm_eps
        self.cosines, self.sines = rotary_tables(config, self.size)
        self.norm = self._named("model.norm.weight", self.width)
        self.embedding = self._named("model.embed_tokens.weight", self.vocabulary, self.width)
        own = "model.lm_head.weight" if bare else "lm_head.weight"
        if own in self._weights:
            self.head = self._named(own, self.vocabulary, self.width)
        elif config.tie_word_embeddings:
            self.head = self.embedding
        else:
            raise LabkitError(f"The model lacks the weight {own}.")
        for layer in self.layers():  # a fault is found now, not after minutes of packing
            del layer

    def _named(self, name: str, *shape: int) -> np.ndarray:
        if name not in self._weights:
            raise LabkitError(f"The model lacks the weight {name}.")
        found = self._weights[name]
        if found.shape != shape:
            raise LabkitError(
                f"The weight {name} has the shape {found.shape}; the model's config says {shape}."
            )
        return np.asarray(found, np.float32)

    def layers(self) -> Iterator[LlamaLayer]:
        """Yield the layers in order, each joined anew."""
        width, inner, attended = self.width, self.inner, self.heads * self.size
        widths = {"q": attended, "k": self.kv_heads * self.size, "v": self.kv_heads * self.size}
        biased = "model.layers.0.self_attn.q_proj.bias" in self._weights
        normed = "model.layers.0.self_attn.q_norm.weight" in self._weights
        for layer in range(self.layer_count):
            at = f"model.layers.{layer}."
            qkv = {part: f"{at}self_attn.{part}_proj" for part in widths}
            bias = [
                self._named(f"{name}.bias", widths[part]) if biased else np.zeros(widths[part], "f")
                for part, name in qkv.items()
            ]
            yield LlamaLayer(
                before=self._named(f"{at}input_layernorm.weight", width),
                qkv=np.concatenate(
                    [self._named(f"{qkv[part]}.weight", out, width) for part, out in widths.items()]
                ),
                bias=np.concatenate(bias),
                out=self._named(f"{at}self_attn.o_proj.weight", width, attended),
                between=self._named(f"{at}post_attention_layernorm.weight", width),
                gate=self._named(f"{at}mlp.gate_proj.weight", inner, width),
                up=self._named(f"{at}mlp.up_proj.weight", inner, width),
                down=self._named(f"{at}mlp.down_proj.weight", width, inner),
                head_norms=np.stack(
                    [self._named(f"{at}self_attn.{part}_norm.weight", self.size) for part in "qk"]
                )
                if normed
                else None,
            )


class LlamaEngine(Engine):
    """What every engine of a Llama-shaped model takes from its weights."""

    def __init__(self, llama: LlamaWeights, device: torch.device) -> None:
        self.device = device
        self.vocabulary, self.width, self.inner = llama.vocabulary, llama.width, llama.inner
        self.layer_count, self.context = llama.layer_count, len(llama.cosines)
        self.heads, self.kv_heads, self.size = llama.heads, llama.kv_heads, llama.size
        self.epsilon = llama.epsilon


def rotary_tables(config: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and sines (context, size / 2) by position, scaled as the config says."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config)
    places = torch.arange(context_of(config) or 0)[None]
    cosines, sines = rotary(torch.empty(0, dtype=torch.float32), places)
    half = size // 2
    return cosines[0, :, :half].contiguous().numpy(), sines[0, :, :half].contiguous().numpy()
