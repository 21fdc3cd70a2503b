"""Confidence-based pruning (Cheng & Vlachos 2023): drop what is surely not the best.

"Faster Minimum Bayes Risk Decoding with Confidence-based Pruning": evidence is added in steps;
after each, the evidence seen is resampled with replacement many times, and a hypothesis that is as
good as the currently best one in too few of the resamples is dropped. It ends when one is left or
all evidence is seen, so whatever survives to the end is judged exactly.
"""

from __future__ import annotations

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.approximate.problem import Decision, Problem, answer

RESAMPLES = 500


def pruning(
    task: Problem, rng: np.random.Generator, confidence: float = 0.99, first: int = 8
) -> Decision:
    """Decide with ``first`` evidence items a hypothesis, then twice as many, and so on.

    A hypothesis stays while it is at least as good as the best in 1 - ``confidence`` of
    `RESAMPLES`. The defaults are the paper's. Raises `LabkitError` for a confidence outside 0..1
    or a ``first`` below 1.
    """
    if not 0 < confidence < 1:
        raise LabkitError(f"The confidence is {confidence}; it must be between 0 and 1.")
    if first < 1:
        raise LabkitError(f"first is {first}; it must be at least 1.")
    order = task.order(rng)
    left = np.arange(len(task.hypotheses))
    risk = np.full(len(left), np.nan)
    loss = np.empty((len(left), 0))  # of those left, against the evidence seen
    while loss.shape[1] < len(order) and len(left) > 1:
        seen = loss.shape[1]
        new = order[seen : max(first, 2 * seen)]
        loss = np.concatenate([loss, task.loss(left, new)], axis=1)
        weights = task.weights[order[: loss.shape[1]]]
        risk[left] = loss @ weights / weights.sum()
        stays = _winning(loss, weights, risk[left], rng) >= 1 - confidence
        left, loss = left[stays], loss[stays]
    return answer(task, risk, among=left)


def _winning(
    loss: np.ndarray, weights: np.ndarray, risk: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the share of evidence resamples where each hypothesis is at least as good as the best.

    The best, by the evidence as it is, has share 1.
    """
    much = len(weights)
    drawn = rng.integers(much, size=(RESAMPLES, much))
    times = np.stack([np.bincount(row, minlength=much) for row in drawn])  # (B, r)
    weighed = times * weights
    resampled = loss @ weighed.T  # (h, B); the common divisor does not change who wins
    return (resampled <= resampled[np.argmin(risk)] + 1e-12).mean(axis=1)
