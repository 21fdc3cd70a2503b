"""Two sets of heads joined into one: an ensemble that drafts in one go.

Heads that were trained apart, on other answers or with another loss, err in different places. The
mean of their logits is right more often than either (Hansen and Salamon 1990, "Neural network
ensembles"). Since a head's logits are linear in its state, the mean of two is one head with both
states side by side::

    (E Q_a^T s_a + E Q_b^T s_b) / 2  =  E [Q_a / 2, Q_b / 2]^T (s_a, s_b)

So the joined heads are a `Speculator` of two groups: the table E, most of what a head reads, is
multiplied once for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labkit.errors import LabkitError
from labkit.models import LanguageModel
from labkit.speculative.checkpoint import load_heads, save_heads
from labkit.speculative.speculator import Speculator, SpeculatorConfig


def join_folders(base: LanguageModel, first: Path, second: Path, out: Path) -> dict[str, int]:
    """Write the join of the heads in two folders to ``out``, in 4 bits.

    They draft the tokens that both may draft. Returns ``weights`` and ``draft_tokens``, how many.
    Raises `LabkitError` for heads that cannot be joined (see `joined_heads`), and where ``out``
    holds heads already.
    """
    if (out / "config.json").exists():
        raise LabkitError(f"{out} holds heads already: give another folder.")
    embeddings: Any = base.module.get_input_embeddings()
    table = embeddings.weight.detach().float()
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

    def side_by_side(name: str, axis: int, power: float = 0) -> Tensor:
        """Join a weight of both, each times its share to a power."""
        pair = (heads.get_parameter(name).detach() for heads in (first, second))
        scaled = [weight * share**power for weight, share in zip(pair, shares, strict=True)]
        return torch.cat(scaled, dim=axis)

    weights = {
        name: value for name, value in second.state_dict().items() if name.startswith("context.")
    }
    for head in range(config.n_predict):
        # b grows with the root of the inner width, so what it multiplies shrinks.
        weights[f"token.{head}.weight"] = side_by_side(f"token.{head}.weight", 0, 0.5)
        weights[f"out.{head}.weight"] = side_by_side(f"out.{head}.weight", 1, 1)
        for name in ("weight", "bias"):
            weights[f"norm.{head}.{name}"] = side_by_side(f"norm.{head}.{name}", 0)
        if head:
            weights[f"proj.{head}.weight"] = side_by_side(f"proj.{head}.weight", 0)
    seeing = first.get_parameter("proj.0.weight"), second.get_parameter("proj.0.weight")
    unread = config.z_dim - one.z_dim  # the first set does not read the context layer
    weights["proj.0.weight"] = torch.cat([functional.pad(seeing[0], (unread, 0)), seeing[1]])
    made.load_state_dict(weights)
    return made.eval()
