"""How little editing turns one text into another: edit distance and TER, as utilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import TER

from labkit.mbr.utilities.bleu import tokens
from labkit.mbr.utilities.ngrams import words


def edit(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute 1 - (edit distance in words) / (words of the longer text) of every pair: (H, R).

    The distance counts insertions, deletions and substitutions (Levenshtein 1966); words are 13a
    tokens. Two empty texts are equal, so 1.

    >>> edit(["a cat sat"], ["a cat sat", "a dog sat down", ""])
    array([[1. , 0.5, 0. ]])
    """
    split = words([tokens(text) for text in (*hypotheses, *evidence)])
    lists = np.split(split.symbols, split.starts[1:-1])
    lengths = np.diff(split.starts)
    of_evidence = lengths[len(hypotheses) :]
    padded = np.full((len(evidence), int(of_evidence.max())), -1)  # (R, W)
    for row, symbols in zip(padded, lists[len(hypotheses) :], strict=True):
        row[: len(symbols)] = symbols
    distances = np.stack(
        [_distances(lists[h], padded, of_evidence) for h in range(len(hypotheses))]
    )
    longer = np.maximum(lengths[: len(hypotheses), None], of_evidence[None, :])
    return 1 - distances / np.maximum(longer, 1)


def _distances(hypothesis: np.ndarray, evidence: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Compute the edit distance from one hypothesis to all evidence (R, W) of ``lengths``: (R,).

    Row by row of Wagner & Fischer's (1974) table, for all evidence at once. Within a row insertions
    run from left to right: the least of table[k] + (j - k) over k <= j is a running minimum of
    table[k] - k, plus j.
    """
    columns = np.arange(evidence.shape[1] + 1)
    table = np.broadcast_to(columns, (len(evidence), len(columns)))  # to j words from nothing
    for place, word in enumerate(hypothesis, start=1):
        changed = table[:, :-1] + (evidence != word)
        best = np.minimum(changed, table[:, 1:] + 1)
        best = np.concatenate([np.full((len(evidence), 1), place), best], axis=1)
        table = np.minimum.accumulate(best - columns, axis=1) + columns
    return np.take_along_axis(table, lengths[:, None], axis=1)[:, 0]


def ter(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute 1 - translation edit rate (Snover et al. 2006), at least 0, of every pair: (H, R).

    The edits are those of `edit` and shifts of word sequences, divided by the evidence's words, as
    sacrebleu counts them. Its search for shifts is greedy and goes pair by pair, about a thousand
    times slower than the other utilities here.

    >>> ter(["sat down a cat"], ["a cat sat down"])
    array([[0.75]])
    """
    metric = TER()
    rates = [
        [metric.sentence_score(one, [other]).score for other in evidence] for one in hypotheses
    ]
    return 1 - np.minimum(np.array(rates) / 100, 1)
