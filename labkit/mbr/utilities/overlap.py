"""Precision, recall and F1 of n-grams of one order: the plainest lexical utilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from labkit.mbr.utilities.bleu import tokens
from labkit.mbr.utilities.ngrams import characters, pairwise, words

Measure = Literal["precision", "recall", "f1"]
Unit = Literal["word", "char"]


def overlap(
    hypotheses: Sequence[str],
    evidence: Sequence[str],
    measure: Measure = "f1",
    unit: Unit = "word",
    order: int = 1,
) -> np.ndarray:
    """Compute the share of n-grams in common, repetitions clipped, of every pair: (H, R) on 0..1.

    Precision divides by the hypothesis's n-grams, recall by the evidence's, F1 is their harmonic
    mean. Words are 13a tokens, characters leave whitespace out. Texts with no n-gram in common,
    the empty text among them, score 0.

    >>> overlap(["a cat sat"], ["a cat"], measure="precision").round(3)
    array([[0.667]])
    """
    texts = [*hypotheses, *evidence]
    if unit == "word":
        split = words([tokens(text) for text in texts])
    else:
        split = characters(["".join(text.split()) for text in texts])

    def score(matches: np.ndarray, hypothesis: np.ndarray, evidence: np.ndarray) -> np.ndarray:
        total = {
            "precision": hypothesis[-1][:, None],
            "recall": evidence[-1][None, :],
            "f1": (hypothesis[-1][:, None] + evidence[-1][None, :]) / 2,
        }[measure]
        return matches[-1] / np.maximum(total, 1)

    return pairwise([(split, order)], len(hypotheses), score)
