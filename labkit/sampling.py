"""The distribution that the next token is drawn from: temperature, and filters that cut it.

The functions take logits (N, V) to logits (N, V); a token that must not be drawn gets minus
infinity, and at least one token always stays. `Sampling` applies them in the order of this file,
as transformers does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from labkit.errors import LabkitError

NEVER = float("-inf")
COLDEST = 1e-6
"""The lowest temperature above 0: logits divided by less may overflow."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The rule that chooses the next token.

    ``temperature`` 0 is greedy; the filters then do nothing. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0
    and ``epsilon`` 0 keep every token. ``typical`` replaces speculative sampling by Medusa's
    typical acceptance, which is not lossless. Raises `LabkitError` naming the value that is wrong.

    >>> Sampling(temperature=0.5).probabilities(torch.tensor([[0.8, 0.2]]).log()).round(decimals=2)
    tensor([[0.9400, 0.0600]], dtype=torch.float64)
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    epsilon: float = 0.0
    typical: bool = False

    def __post_init__(self) -> None:
        tempered = self.temperature == 0 or COLDEST <= self.temperature < math.inf
        for name, allowed, right in (
            ("temperature", tempered, f"0, or at least {COLDEST} and finite"),
            ("top_k", self.top_k >= 0 and self.top_k == int(self.top_k), "a whole number from 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p < 1, "at least 0 and below 1"),
            ("epsilon", 0 <= self.epsilon < 1, "at least 0 and below 1"),
        ):
            if not allowed:
                raise LabkitError(f"{name} is {getattr(self, name)}; it must be {right}.")

    @property
    def greedy(self) -> bool:
        """True if the most probable token is always taken."""
        return self.temperature == 0

    def filtered(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, V) of the distribution to draw from, in the type they came in."""
        if self.greedy:
            best = logits.argmax(dim=-1, keepdim=True)
            return torch.full_like(logits, NEVER).scatter(-1, best, 0.0)
        logits = temperature(logits, self.temperature)
        if self.top_k:
            logits = top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = top_p(logits, self.top_p)
        if self.min_p:
            logits = min_p(logits, self.min_p)
        if self.epsilon:
            logits = epsilon(logits, self.epsilon)
        return logits

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the distribution to draw from, (N, V) in float64, for logits (N, V)."""
        return self.filtered(logits.double()).softmax(-1)


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
