"""A made-up but plausible study of candidate trees, for tests to look at TreeLab with."""

from __future__ import annotations

import random

from labkit.records import TreeStudy, VerifyCost

COSTS = {0: 1.0, 1: 1.05, 2: 1.08, 4: 1.15, 8: 1.3, 16: 1.62, 32: 2.4, 64: 4.1}


def make_study(*, heads: int = 4, ranks: int = 6, seed: int = 0, most: int = 64) -> TreeStudy:
    """Acceptance that falls with head and rank, and a check that costs more with every node."""
    rng = random.Random(seed)
    accept = []
    for head in range(heads):
        left, shares = 1.0, []
        for rank in range(ranks):
            share = left * (0.68 - 0.11 * head if rank == 0 else 0.3) * rng.uniform(0.9, 1.05)
            shares.append(share)
            left -= share
        accept.append(tuple(shares))
    return TreeStudy(
        name="mlp speculator",
        base="a made-up model",
        accept=tuple(accept),
        places=4096,
        verify=tuple(VerifyCost(nodes=n, ratio=r) for n, r in COSTS.items() if n <= most),
        draft_head=(0.055,) * heads,
        draft_node=0.002,
        token_s=0.0183,
    )
