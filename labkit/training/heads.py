"""Heads before their training: new ones, ones that start from other weights, two sets joined.

**EAGLE's start** is a copy of the base model's last layer, so that a short training is enough. That
layer already turns the stream that enters it into the stream that the output head reads, and
EAGLE's layer has the same parts. What is new is its input: it has to guess that stream at the next
place from z_t and the token at t + 1. This map is linear, and is fitted by ridge regression on a
few of the texts that the training reads.

**Joined heads** draft as an ensemble, in one go. Heads that were trained apart, on other answers or
with another loss, err in different places. The mean of their logits is right more often than either
(Hansen and Salamon 1990, "Neural network ensembles"). Since a head's logits are linear in its
state, the mean of two is one head with both states side by side::

    (E Q_a^T s_a + E Q_b^T s_b) / 2  =  E [Q_a / 2, Q_b / 2]^T (s_a, s_b)

So the joined heads are a `Speculator` of two groups: the table E, most of what a head reads, is
multiplied once for both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labkit.errors import LabkitError
from labkit.kernels import not_llama_shaped
from labkit.models import LanguageModel
from labkit.speculative.checkpoint import load_heads, new_heads, save_heads
from labkit.speculative.context import ROTARY_BASE, ContextConfig
from labkit.speculative.eagle import Eagle, EagleConfig
from labkit.speculative.speculator import Speculator, SpeculatorConfig
from labkit.training.features import last_hidden
from labkit.training.loop import digest_of
from labkit.training.losses import Material
from labkit.training.recipe import Recipe

TEXTS = 64
"""Texts to fit EAGLE's input on: about a minute of the base model `real` on one core."""
RIDGE = 0.05
"""The weight of the ridge for each place fitted; inputs and embeddings have unit variance."""


def embedding_table(base: LanguageModel) -> Tensor:
    """Return the base model's embedding table: (V, D) float32."""
    embeddings: Any = base.module.get_input_embeddings()
    return embeddings.weight.detach().float()


def new_speculator(recipe: Recipe, base: LanguageModel) -> Speculator | Eagle:
    """Make untrained heads of the recipe's shape on the base's embedding; the seed decides them."""
    table, shape = embedding_table(base), recipe.heads
    common: dict[str, Any] = {
        "base": recipe.base,
        "vocab_size": table.shape[0],
        "emb_dim": table.shape[1],
        "inner_dim": shape.inner_width,
        "n_predict": shape.count,
        "layers": shape.layers,
    }
    config: SpeculatorConfig | EagleConfig
    if shape.kind == "eagle":
        config = EagleConfig(**common, heads=base.config.num_attention_heads)
    else:
        shared = shape.model_dump(include={"hierarchical", "scale_input", "tied", "groups"})
        context = _context(base, table.shape[1]) if shape.context else None
        config = SpeculatorConfig(**common, **shared, context=context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return new_heads(config, table)


def _context(base: LanguageModel, width: int) -> ContextConfig:
    """Return the shape of a context layer like one of the base model's layers."""
    inner = getattr(base.config, "intermediate_size", None) or 4 * width
    rotary = (getattr(base.config, "rope_parameters", None) or {}).get("rope_theta", ROTARY_BASE)
    return ContextConfig(heads=base.config.num_attention_heads, inner_dim=inner, rotary_base=rotary)


def take_weights(heads: Speculator | Eagle, folder: Path) -> str:
    """Copy the weights of the heads in ``folder`` and return their digest.

    Independent heads may start from hierarchical ones of their shape: each from the first, since
    that one alone reads Z. Raises `LabkitError` for heads of another shape.
    """
    found, _ = load_heads(folder, heads.table)
    weights = found.state_dict()
    if found.config != heads.config:
        if found.config.model_copy(update={"hierarchical": False}) != heads.config:
            raise LabkitError(f"The heads in {folder} are not of the recipe's shape.")
        weights = {name: weights[re.sub(r"\.\d+\.", ".0.", name)] for name in weights}
    heads.load_state_dict(weights)
    return digest_of(heads.state_dict())


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


def join_folders(base: LanguageModel, first: Path, second: Path, out: Path) -> dict[str, int]:
    """Write the join of the heads in two folders to ``out``, in 4 bits.

    They draft the tokens that both may draft. Returns ``weights`` and ``draft_tokens``, how many.
    Raises `LabkitError` for heads that cannot be joined (see `joined_heads`), and where ``out``
    holds heads already.
    """
    if (out / "config.json").exists():
        raise LabkitError(f"{out} holds heads already: give another folder.")
    table = embedding_table(base)
    (one, its), (other, others) = load_heads(first, table), load_heads(second, table)
    draft_ids = np.intersect1d(its, others)
    if not isinstance(one, Speculator) or not isinstance(other, Speculator):
        raise LabkitError("EAGLE has one layer for all tokens: it cannot be joined.")
    if not len(draft_ids):
        raise LabkitError(f"The heads in {first} and {second} draft no token in common.")
    made = joined_heads(one, other)
    save_heads(out, made, torch.from_numpy(draft_ids), rounded=True)
    weights = sum(parameter.numel() for parameter in made.parameters())
    return {"weights": weights, "draft_tokens": len(draft_ids)}


def joined_heads(first: Speculator, second: Speculator) -> Speculator:
    """Return heads whose logits are the mean of two sets', each by its share of the groups.

    Both must have the same number of heads, the same layers and groups of one width; one of them
    may have a context layer, which the other then passes over. Raises `LabkitError` otherwise.
    """
    if first.config.context:
        first, second = second, first
    one, other = first.config, second.config
    alike = ("base", "vocab_size", "emb_dim", "n_predict", "layers", "hierarchical", "scale_input")
    odd = [name for name in alike if getattr(one, name) != getattr(other, name)]
    if one.inner_dim * other.groups != other.inner_dim * one.groups:
        odd.append("inner_dim")
    if odd:
        raise LabkitError(f"Heads that differ in {', '.join(odd)} cannot be joined.")
    if one.context or one.tied or other.tied or not one.hierarchical or not one.scale_input:
        raise LabkitError(
            "Only hierarchical heads with a normed input can be joined, at most one of them with a "
            "context layer, and none of them tied."
        )
    inner = one.inner_dim + other.inner_dim
    changed = {"inner_dim": inner, "groups": one.groups + other.groups}
    config = SpeculatorConfig.model_validate({**other.model_dump(), **changed})
    made = Speculator(config, second.table)
    shares = one.inner_dim / inner, other.inner_dim / inner
    # The axis to join along, and the power of the share that scales a weight: b grows with the root
    # of the inner width, so what it multiplies shrinks.
    joins = {"token": (0, 0.5), "out": (1, 1), "norm": (0, 0), "proj": (0, 0)}
    weights = second.state_dict()
    for name, value in weights.items():
        if not name.startswith("context."):
            axis, power = joins[name.partition(".")[0]]
            own = first.state_dict()[name]
            if name == "proj.0.weight":  # the first set does not read the context layer
                own = functional.pad(own, (config.z_dim - one.z_dim, 0))
            weights[name] = torch.cat([own * shares[0] ** power, value * shares[1] ** power], axis)
    made.load_state_dict(weights)
    return made.eval()
