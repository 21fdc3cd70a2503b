"""Exact match: the utility whose minimum-Bayes-risk decision is the most probable text (MAP)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exact(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Return 1 where a hypothesis equals the evidence sample, letter for letter, else 0: (H, R).

    >>> exact(["yes", "no"], ["no", "No", "yes"])
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    number: dict[str, int] = {}
    ids = np.array([number.setdefault(text, len(number)) for text in (*hypotheses, *evidence)])
    return (ids[: len(hypotheses), None] == ids[None, len(hypotheses) :]).astype(np.float64)
