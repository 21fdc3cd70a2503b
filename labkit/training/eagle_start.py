"""EAGLE's layer as a copy of the base model's last one, so that a short training is enough.

The base model's last layer already turns the stream that enters it into the stream that its output
head reads. EAGLE's layer has the same parts, so they are copied. What is new is its input: it has
to guess that stream at the next place from z_t and the token at t + 1. This map is linear, and is
fitted by ridge regression on a few of the texts that the training reads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from labkit.errors import LabkitError
from labkit.kernels import not_llama_shaped
from labkit.models import LanguageModel
from labkit.speculative.eagle import Eagle
from labkit.training.features import last_hidden
from labkit.training.losses import Material

TEXTS = 64
"""Texts to fit the input on: about a minute of the base model `real` on one core."""
RIDGE = 0.05
"""The weight of the ridge for each place fitted; inputs and embeddings have unit variance."""


@torch.no_grad()
def start_from_base(eagle: Eagle, base: LanguageModel, material: Material) -> None:
    """Set the weights of ``eagle``: the base model's last layer, norm and head, the input fitted.

    Raises `LabkitError` if the base model's layers are of another shape.
    """
    shape, width = base.config, eagle.config.emb_dim
    strange = not_llama_shaped(shape)
    if not strange and shape.intermediate_size != eagle.config.inner_dim:
        strange = f"its layers have inner width {shape.intermediate_size}"
    if strange:
        raise LabkitError(f"EAGLE's layer cannot start from {base.name!r}: {strange}.")
    model: Any = base.module.base_model
    layer, norm = model.layers[-1], model.norm.weight
    shared = shape.num_attention_heads // shape.num_key_value_heads

    def repeated(weight: Tensor) -> Tensor:
        """Give each query head the keys or values that it shares: (h_kv d, D) to (h d, D)."""
        parts = weight.unflatten(0, (shape.num_key_value_heads, -1))
        return parts.repeat_interleave(shared, dim=0).flatten(0, 1)

    q, k, v = (getattr(layer.self_attn, f"{name}_proj").weight for name in "qkv")
    gate_up = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
    copies: dict[str, Tensor] = {
        "attention_norm": layer.input_layernorm.weight,
        "qkv": torch.cat([q, repeated(k), repeated(v)]),
        "mix": layer.self_attn.o_proj.weight,
        "inner_norm": layer.post_attention_layernorm.weight,
        "gate_up": gate_up,
        "down": layer.mlp.down_proj.weight,
        "output_norm": norm,
        "out": torch.eye(width),
    }
    if eagle.fuse is not None:  # the last state alone, without its norm's scale, like a stand-in
        copies["fuse"] = torch.zeros(width, eagle.config.z_dim)
        copies["fuse"][:, -width:] = torch.diag(1 / norm)
    for name, weight in copies.items():
        eagle.get_submodule(name).get_parameter("weight").copy_(weight)
    eagle.join.weight.copy_(_fitted_input(eagle, base, material))


def _fitted_input(eagle: Eagle, base: LanguageModel, material: Material) -> Tensor:
    """Return the ``join`` (D, 2 D) that best guesses the last layer's input over some texts."""
    layers = (base.config.num_hidden_layers - 1, *eagle.config.layers)
    width, runs = eagle.config.emb_dim, material.runs
    read, wanted = [], []
    for number in range(0, len(runs), -(-len(runs) // TEXTS)):
        begin, end = int(runs.origins[number]), int(runs.ends[number])
        tokens, first = material.tokens[begin:end], int(runs.starts[number]) - begin
        states = last_hidden(base.module, tokens[None].to(base.device), layers)[0].float().cpu()
        entering, hidden = states[:, :width], states[:, width:]  # (T, D), (T, Z)
        seen = eagle.input_norm(eagle.feature(hidden[first:-1]))
        embedded = eagle.table[tokens[first + 1 :]] / eagle.table_scale
        read.append(torch.cat([seen, embedded], dim=1))
        wanted.append(entering[first + 1 :])
    x, y = torch.cat(read), torch.cat(wanted)  # (N, 2 D), (N, D)
    ridge = RIDGE * len(x) * torch.eye(2 * width)
    return torch.linalg.solve(x.T @ x + ridge, x.T @ y).T
