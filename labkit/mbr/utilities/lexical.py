"""Utilities that need nothing but the letters and words of two texts, for whole matrices at once.

Precision, recall and F1 of n-grams; BLEU, chrF and chrF++, equal to sacrebleu's sentence scores;
edit distance and TER; exact match.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from typing import Literal

import numpy as np
from sacrebleu.metrics import TER

from labkit.mbr.utilities.learned import pairwise as pair_by_pair
from labkit.mbr.utilities.ngrams import Texts, characters, pairwise, words

APART = {ord(mark): f" {mark} " for mark in '!"#$%&()*+/:;<=>?@[\\]^_`{|}~'}
"""Marks that 13a always splits off; the apostrophe, the full stop, comma and dash are not."""


def tokens(text: str) -> list[str]:
    """Return the text's 13a tokens, those of sacrebleu's tokenizer of that name.

    >>> tokens("It cost 3.50, then.")
    ['It', 'cost', '3.50', ',', 'then', '.']
    """
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in line:
        line = line.replace("&quot;", '"').replace("&amp;", "&")
        line = line.replace("&lt;", "<").replace("&gt;", ">")
    line = f" {line} ".translate(APART)
    if "." in line or "," in line:  # apart unless a digit stands on that side
        line = re.sub(r"([^0-9])([.,])", r"\1 \2 ", line)
        line = re.sub(r"([.,])([^0-9])", r" \1 \2", line)
    if "-" in line:  # apart after a digit
        line = re.sub(r"([0-9])(-)", r"\1 \2 ", line)
    return line.split()


def token_words(texts: Sequence[str]) -> Texts:
    """Return every text as its 13a tokens."""
    return words([tokens(text) for text in texts])


def overlap(
    hypotheses: Sequence[str],
    evidence: Sequence[str],
    measure: Literal["precision", "recall", "f1"] = "f1",
) -> np.ndarray:
    """Compute the share of words in common, repetitions clipped, of every pair: (H, R) on 0..1.

    Precision divides by the hypothesis's words, recall by the evidence's, F1 is their harmonic
    mean. Words are 13a tokens. Texts with no word in common, the empty text among them, score 0.

    >>> overlap(["a cat sat"], ["a cat"], measure="precision").round(3)
    array([[0.667]])
    """

    def score(matches: np.ndarray, hypothesis: np.ndarray, evidence: np.ndarray) -> np.ndarray:
        ours, theirs = hypothesis[0][:, None], evidence[0][None, :]
        total = {"precision": ours, "recall": theirs, "f1": (ours + theirs) / 2}[measure]
        return matches[0] / np.maximum(total, 1)

    return pairwise([(token_words([*hypotheses, *evidence]), 1)], len(hypotheses), score)


def bleu(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute sentence BLEU of every hypothesis against every evidence sample: (H, R) on 0..1.

    sacrebleu's settings for sentences (Papineni et al. 2002): 13a tokens, n-grams of order 1 to 4,
    orders longer than the hypothesis left out (effective order), the k-th order in a row without a
    match counted as 1 / (2^k total) (exponential smoothing, Chen & Cherry 2014).

    >>> bleu(["the cat sat down"], ["the cat sat down", "a cat sat down", ""]).round(3)
    array([[1.   , 0.595, 0.   ]])
    """
    split = token_words([*hypotheses, *evidence])
    return pairwise([(split, 4)], len(hypotheses), bleu_score)


def bleu_score(matches: np.ndarray, hypothesis: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Compute BLEU from clipped match counts (N, H, R) and n-gram totals (N, H), (N, R)."""
    logarithm = np.log(np.maximum(np.arange(int(hypothesis.max(initial=0)) + 1), 1))
    sum_of_logs = np.zeros(matches.shape[1:])  # (H, R)
    without = np.zeros(matches.shape[1:], dtype=np.int8)  # orders so far that had no match
    for n, matched in enumerate(matches):
        total = hypothesis[n][:, None]
        missing = (matched == 0) & (total > 0)
        without += missing
        sum_of_logs += logarithm[matched] - logarithm[total] - math.log(2) * (without * missing)
    orders = np.maximum((hypothesis > 0).sum(0), 1)[:, None]
    length = np.maximum(hypothesis[0], 1)[:, None]
    brevity = np.minimum(1 - evidence[0][None, :] / length, 0)
    result = np.exp(brevity + sum_of_logs / orders)
    return np.where(matches[0] > 0, np.minimum(result, 1), 0)


def chrf(
    hypotheses: Sequence[str], evidence: Sequence[str], with_words: bool = False
) -> np.ndarray:
    """Compute sentence chrF of every hypothesis against every evidence sample: (H, R) on 0..1.

    Precision and recall of character n-grams, order 1 to 6, whitespace left out (Popović 2015), and
    ``with_words``, which is chrF++, of word n-grams, order 1 and 2 (Popović 2017), each averaged
    over the orders that both texts have; then the F-score that holds recall beta = 2 times as
    important.

    >>> chrf(["a cat sat"], ["a cat sat", "a dog ran", ""]).round(3)
    array([[1.   , 0.048, 0.   ]])
    """
    parts = chrf_parts([*hypotheses, *evidence], with_words)
    return pairwise(parts, len(hypotheses), f_score)


def chrf_parts(texts: Sequence[str], with_words: bool) -> list[tuple[Texts, int]]:
    """Return the texts as what chrF counts, letters and perhaps words, with the highest orders."""
    parts = [(characters(["".join(text.split()) for text in texts]), 6)]
    if with_words:
        parts.append((words([separate_punctuation(text) for text in texts]), 2))
    return parts


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


BETA = 2.0


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


def edit(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute 1 - (edit distance in words) / (words of the longer text) of every pair: (H, R).

    The distance counts insertions, deletions and substitutions (Levenshtein 1966); words are 13a
    tokens. Two empty texts are equal, so 1.

    >>> edit(["a cat sat"], ["a cat sat", "a dog sat down", ""])
    array([[1. , 0.5, 0. ]])
    """
    split = token_words([*hypotheses, *evidence])
    lists = np.split(split.symbols, split.starts[1:-1])
    lengths = np.diff(split.starts)
    of_evidence = lengths[len(hypotheses) :]
    padded = np.full((len(evidence), int(of_evidence.max())), -1)  # (R, W)
    for row, symbols in zip(padded, lists[len(hypotheses) :], strict=True):
        row[: len(symbols)] = symbols
    ours = lists[: len(hypotheses)]
    distances = np.stack([_distances(one, padded, of_evidence) for one in ours])
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
    rate = TER().sentence_score
    one_by_one = pair_by_pair(lambda one, other: 1 - min(rate(one, [other]).score / 100, 1))
    return one_by_one(hypotheses, evidence)


def exact(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Return 1 where a hypothesis equals the evidence sample, letter for letter, else 0: (H, R).

    Its minimum-Bayes-risk decision is the most probable text (MAP).

    >>> exact(["yes", "no"], ["no", "No", "yes"])
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    number = words([[*hypotheses, *evidence]]).symbols  # equal texts have equal numbers
    ours, theirs = np.split(number, [len(hypotheses)])
    return (ours[:, None] == theirs[None, :]).astype(np.float64)
