"""What speculation should gain: acceptance and cost in, tokens per step and speedup out.

Three pieces, each measured or simple arithmetic. *Acceptance*: how often a head's r-th choice is
the base model's own token, read off the base model's own text. *Cost*: how much longer a pass over
n tokens takes than over one, from `labkit.speculative.calibrate`. *Gain*: a tree of drafts is worth
the tokens that it is expected to commit, over what the step costs. The first two are put together
in a `TreeStudy`, which knows the best tree; the roofline says why the cost is what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labkit.errors import LabkitError
from labkit.records import TreeStudy, VerifyCost
from labkit.records.base import Part
from labkit.speculative.drafters.mlp import Heads
from labkit.speculative.drafters.remembering import looking_back

RANKS = 8
"""How many of a head's choices are followed."""


def chain_tokens(acceptance: float, drafted: int) -> float:
    """Return the expected tokens per step of a chain whose drafts are accepted independently.

    (1 - a^(n+1)) / (1 - a), Leviathan et al. (2023), equation 1. Raises `LabkitError` for an
    acceptance outside 0..1 or a negative length.

    >>> chain_tokens(0.5, 3)
    1.875
    >>> chain_tokens(1.0, 3)
    4.0
    """
    if not 0 <= acceptance <= 1 or drafted < 0:
        raise LabkitError(
            f"Acceptance lies in 0..1 and a length is not negative; got {acceptance} and {drafted}."
        )
    return float(sum(acceptance**i for i in range(drafted + 1)))


def chain_speedup(acceptance: float, drafted: int, draft_cost: float, check_cost: float) -> float:
    """Predict a chain's speedup, costs in plain steps: ``draft_cost`` for one drafted token.

    Leviathan et al. (2023), theorem 3.8, with a check that need not cost what a plain step costs.

    >>> round(chain_speedup(0.8, 4, draft_cost=0.05, check_cost=1.1), 2)
    2.59
    """
    return chain_tokens(acceptance, drafted) / (check_cost + drafted * draft_cost)


@dataclass(frozen=True)
class Acceptance:
    """``shares[h][r]``: how often head h + 1's choice of rank r was right, among ``places``."""

    shares: tuple[tuple[float, ...], ...]
    places: int


def rank_acceptance(
    heads: Heads, texts: Sequence[tuple[np.ndarray, np.ndarray]], ranks: int = RANKS
) -> Acceptance:
    """Measure acceptance by rank, with the base model's own text as the tokens drafted before.

    Each text is (hidden (T, D), tokens (T + K,)): hidden[t] is Z at a place, tokens[t] the base
    model's token after it, and the heads are to name tokens[t + 1] up to tokens[t + K]. Raises
    `LabkitError` where there is no place to look at.
    """
    many = heads.config.n_predict
    hits = np.zeros((many, ranks))
    places = 0
    for hidden, tokens in texts:
        count = min(len(hidden), len(tokens) - many)
        if count < 1:
            continue
        known = looking_back(heads, hidden[:count], tokens)
        first = state = np.concatenate([heads.start(z) for z in known])  # (T, D)
        for head in range(many):
            source = state if heads.config.hierarchical else first
            state, _, ids, _ = heads.step(head, source, tokens[head : head + count], ranks)
            hits[head] += (ids == tokens[head + 1 : head + 1 + count, None]).sum(0)
        places += count
    if not places:
        raise LabkitError(f"The texts are too short: give some of more than {many} tokens.")
    return Acceptance(tuple(tuple((row / places).tolist()) for row in hits), places)


def tree_study(
    name: str,
    base: str,
    acceptance: Acceptance,
    verify_cost: Mapping[int, float],
    head_s: Sequence[float],
    token_s: float,
) -> TreeStudy:
    """Return acceptance and one machine's costs as a record.

    ``verify_cost`` maps the tokens of a pass (the root among them) to its time in passes over one
    token, which take ``token_s`` seconds; ``head_s`` are the seconds of each head. A measured cost
    that falls as tokens are added is noise: the study takes the larger one before it.
    """
    tokens = sorted(verify_cost)
    ratios = np.maximum.accumulate([verify_cost[n] for n in tokens]).tolist()
    return TreeStudy(
        name=name,
        base=base,
        accept=acceptance.shares,
        places=acceptance.places,
        verify=tuple(VerifyCost(nodes=n - 1, ratio=r) for n, r in zip(tokens, ratios, strict=True)),
        draft_head=tuple(seconds / token_s for seconds in head_s),
        token_s=token_s,
    )


class Prediction(Part):
    """A tree's size, and what it is predicted to gain and cost (in plain steps)."""

    nodes: int
    depth: int
    tokens_per_step: float
    cost: float
    speedup: float


def best_tree(study: TreeStudy) -> Prediction:
    """Predict the gain of the study's fastest tree; 0 nodes where nothing pays."""
    tree = study.best_tree()
    return Prediction(
        nodes=len(tree),
        depth=max((len(path) for path in tree), default=0),
        tokens_per_step=study.tokens_per_step(tree),
        cost=study.cost(tree),
        speedup=study.speedup(tree),
    )


@dataclass(frozen=True)
class Roofline:
    """The two limits of a pass (Williams et al. 2009): reading weights and multiplying by them.

    ``pass_bytes`` are read once however many tokens there are; each token multiplies by
    ``parameters`` numbers, two operations for each. ``bandwidth`` in bytes, ``speed`` in operations
    a second.

    >>> roof = Roofline(pass_bytes=4e8, parameters=1e8, bandwidth=4e10, speed=2e11)
    >>> roof.seconds(1), roof.seconds(20), roof.ridge
    (0.01, 0.02, 10.0)
    """

    pass_bytes: float
    parameters: float
    bandwidth: float
    speed: float

    def seconds(self, tokens: int) -> float:
        """Return the least time that a pass over ``tokens`` tokens can take."""
        reading = self.pass_bytes / self.bandwidth
        return max(reading, 2 * self.parameters * tokens / self.speed)

    @property
    def ridge(self) -> float:
        """Tokens at which arithmetic takes as long as reading: so many are checked for free."""
        return self.pass_bytes / self.bandwidth * self.speed / (2 * self.parameters)
