"""chrF and chrF++ (Popović 2015, 2017), equal to sacrebleu's sentence scores, for whole matrices.

Precision and recall of character n-grams (order 1 to 6, whitespace left out), and for chrF++ of
word n-grams (order 1 and 2) as well, each averaged over the orders that both texts have; then
the F-score that holds recall beta = 2 times as important.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from labkit.mbr.utilities.ngrams import Texts, characters, pairwise, words

CHAR_ORDER = 6
WORD_ORDER = 2
BETA = 2.0


def chrf(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute sentence chrF of every hypothesis against every evidence sample: (H, R) on 0..1.

    >>> chrf(["a cat sat"], ["a cat sat", "a dog ran", ""]).round(3)
    array([[1.   , 0.048, 0.   ]])
    """
    texts = [*hypotheses, *evidence]
    return pairwise([character_part(texts)], len(hypotheses), f_score)


def chrf_plus_plus(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute sentence chrF++ of every hypothesis against every evidence: (H, R) on 0..1."""
    texts = [*hypotheses, *evidence]
    return pairwise([character_part(texts), word_part(texts)], len(hypotheses), f_score)


def character_part(texts: Sequence[str]) -> tuple[Texts, int]:
    """Return the texts' characters, whitespace left out, and the highest order taken from them."""
    return characters(["".join(text.split()) for text in texts]), CHAR_ORDER


def word_part(texts: Sequence[str]) -> tuple[Texts, int]:
    """Return the texts' words, punctuation apart, and the highest order taken from them."""
    return words([separate_punctuation(text) for text in texts]), WORD_ORDER


def separate_punctuation(text: str) -> list[str]:
    """Split into words, and off each one ASCII punctuation mark: the last character or the first.

    >>> separate_punctuation("(so) it ended.")
    ['(so', ')', 'it', 'ended', '.']
    """
    pieces: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            pieces += word[:-1], word[-1]
        elif len(word) > 1 and word[0] in string.punctuation:
            pieces += word[0], word[1:]
        else:
            pieces.append(word)
    return pieces


def f_score(matches: np.ndarray, hypothesis: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Return the F-score of averaged precision and recall.

    ``matches`` (N, H, R) are clipped match counts, ``hypothesis`` (N, H) and ``evidence`` (N, R)
    n-gram totals. Texts without an n-gram in common, the empty text among them, score 0.
    """
    per_hypothesis = 1 / np.maximum(hypothesis, 1)  # (N, H)
    per_evidence = 1 / np.maximum(evidence, 1)  # (N, R)
    precision = np.zeros(matches.shape[1:])  # (H, R)
    recall = np.zeros(matches.shape[1:])
    orders = np.zeros(matches.shape[1:], dtype=np.int8)
    for n, matched in enumerate(matches):
        precision += matched * per_hypothesis[n][:, None]
        recall += matched * per_evidence[n][None, :]
        orders += (hypothesis[n] > 0)[:, None] & (evidence[n] > 0)[None, :]
    # Both sums still lack the division by the number of orders; it can be done once, at the end.
    below = (BETA**2 * precision + recall) * orders
    above = (1 + BETA**2) * precision * recall
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
