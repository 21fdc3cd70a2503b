"""What a decoder may do to the next token's distribution before drawing from it.

Pure functions from logits (N, V) to logits (N, V); a token that may not be drawn gets minus
infinity. Each leaves at least one token. They are applied in the order of this file, as in
transformers.
"""

from __future__ import annotations

import torch

NEVER = float("-inf")


def temperature(logits: torch.Tensor, value: float) -> torch.Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution: p(token)^(1/value), renormalised."""
    return logits / value


def top_k(logits: torch.Tensor, many: int) -> torch.Tensor:
    """Keep the ``many`` most probable tokens, and those as probable as the last (Fan et al. 2018).

    >>> top_k(torch.tensor([[3.0, 1.0, 2.0]]), 2)
    tensor([[3., -inf, 2.]])
    """
    least = logits.topk(min(many, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < least, NEVER)


def top_p(logits: torch.Tensor, mass: float) -> torch.Tensor:
    """Keep the fewest most probable tokens that hold ``mass`` together (Holtzman et al. 2020).

    >>> top_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.7).exp().round(decimals=1)
    tensor([[0.5000, 0.3000, 0.0000]])
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability  # mass of the tokens more probable than it
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= mass)
    dropped.scatter_(-1, order[:, :1], False)
    return logits.masked_fill(dropped, NEVER)


def min_p(logits: torch.Tensor, share: float) -> torch.Tensor:
    """Keep tokens at least ``share`` as probable as the most probable one (Nguyen et al. 2024).

    >>> min_p(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.5).exp().round(decimals=1)
    tensor([[0.5000, 0.3000, 0.0000]])
    """
    probability = logits.softmax(dim=-1)
    return logits.masked_fill(probability < share * probability.amax(-1, keepdim=True), NEVER)


def epsilon(logits: torch.Tensor, least: float) -> torch.Tensor:
    """Keep tokens of probability ``least`` or more, and the most probable (Hewitt et al. 2022).

    >>> epsilon(torch.tensor([[0.5, 0.48, 0.02]]).log(), 0.05).exp().round(decimals=2)
    tensor([[0.5000, 0.4800, 0.0000]])
    """
    dropped = logits.softmax(dim=-1) < least
    dropped.scatter_(-1, logits.argmax(dim=-1, keepdim=True), False)
    return logits.masked_fill(dropped, NEVER)
