"""Sentence BLEU (Papineni et al. 2002), equal to sacrebleu's, for whole matrices.

sacrebleu's settings for sentences: 13a tokens, n-grams of order 1 to 4, orders longer than the
hypothesis left out (effective order), the k-th order in a row without a match counted as
1 / (2^k total) (exponential smoothing, Chen & Cherry 2014).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from labkit.mbr.utilities.ngrams import pairwise, words

ORDER = 4


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


def bleu(hypotheses: Sequence[str], evidence: Sequence[str]) -> np.ndarray:
    """Compute sentence BLEU of every hypothesis against every evidence sample: (H, R) on 0..1.

    >>> bleu(["the cat sat down"], ["the cat sat down", "a cat sat down", ""]).round(3)
    array([[1.   , 0.595, 0.   ]])
    """
    split = words([tokens(text) for text in (*hypotheses, *evidence)])
    return pairwise([(split, ORDER)], len(hypotheses), score)


def score(matches: np.ndarray, hypothesis: np.ndarray, evidence: np.ndarray) -> np.ndarray:
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
