"""Checks of the exercises on samples: weights, gains, shared n-grams, prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.checks import Finding
from labkit.checks.answers import Floats, exercise, listed, number, numbers, refuse, verdict

LOGPROBS = np.array([-1.2, -0.7, -3.0])
"""Log-probabilities of three texts."""
FAR = -2000.0
"""Added to them for long texts, whose probabilities are 0 as floats."""


@exercise
def model_weights(weigh: Callable[[Floats, float], Floats]) -> Iterator[Finding]:
    """Check a function from log-probabilities (R,) and a temperature to weights (R,).

    p^(1/T), renormalised: computed with logarithms, since probabilities of texts underflow.
    """
    logs, temperature = LOGPROBS, 2.0
    found = numbers(weigh(logs, temperature), logs.shape, "a weight for each text")

    def softmax(logs: Floats) -> Floats:
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    right = softmax(logs / temperature)
    yield verdict(
        found, right, "",
        [
            (np.exp(logs / temperature), "the weights do not sum to 1: divide by their sum"),
            (softmax(logs), "the temperature has no effect: divide the logarithms by it"),
            (softmax(logs * temperature), "the temperature is upside down: a higher one makes the "
             "weights more equal, so divide by it"),
            (logs / logs.sum(), "these are the logarithms over their sum: the least probable text "
             "weighs the most; take exponentials first"),
            (np.exp((logs - logs.max()) / temperature), "the greatest weight is 1 here, so the "
             "weights do not sum to 1: divide by their sum after subtracting the greatest "
             "logarithm"),
            (softmax(logs) ** (1 / temperature), "the temperature comes after the weights were "
             "normalised, so they no longer sum to 1: divide the logarithms by it first"),
            (softmax(logs) / temperature, "the weights are divided by the temperature: divide the "
             "logarithms by it, before the exponentials"),
            (softmax(-logs / temperature), "the sign is turned: the least probable text weighs the "
             "most"),
            (np.full(len(logs), 1 / len(logs)), "all weigh the same: that is the weighting called "
             "unique"),
        ],
        f"it gives {listed(found, 3)}, and the answer is {listed(right, 3)}",
    )  # fmt: skip
    with np.errstate(all="ignore"):
        far = np.asarray(weigh(logs + FAR, temperature), np.float64)
    gives = f"it gives {listed(far, 3)}: exponentials of such numbers are 0, so subtract the"
    yield verdict(
        far, right, "renormalised in logarithms, so long texts can be weighted too", [],
        "right for short texts, but with log-probabilities near -2,000, as long texts have, "
        f"{gives} greatest one first",
    )  # fmt: skip


A = np.array([0.9, 0.2, 0.7, 0.4])
B = np.array([0.5, 0.1, 0.9, 0.4])
PICKS = np.array([[0, 0, 1, 3], [2, 2, 2, 1], [3, 1, 0, 2]])
"""Two systems' scores on four sentences, and three test sets drawn from these sentences."""


@exercise
def paired_gains(gains: Callable[[Floats, Floats, NDArray[np.int64]], Floats]) -> Finding:
    """Check a function from scores a, b (n,) and drawn numbers (B, n) to a's gains over b (B,).

    In each resampled test set the mean of a less the mean of b, on the same sentences.
    """
    found = numbers(gains(A, B, PICKS))
    a, b, each = A[PICKS].mean(axis=1), B[PICKS].mean(axis=1), (A - B)[PICKS]
    right, all_ = a - b, A.mean() - B.mean()
    one_only = (
        "is resampled: draw both on the same sentences, or the sentences' own difficulty does not "
        "cancel"
    )
    return verdict(
        found, right, "the same sentences for both, so what is hard for both cancels",
        [
            (-right, "the sign is turned: a's mean less b's"),
            (right * A.size, "these are sums: take the mean of each test set"),
            (a - B.mean(), f"only a {one_only}"),
            (A.mean() - b, f"only b {one_only}"),
            (np.full(len(PICKS), all_), "this is the gain on the whole test set every time: use "
             "the drawn numbers"),
            (each.mean(), "this is one mean over all the drawn test sets: give one for each, the "
             "mean of its row"),
            (all_, "this is one gain: give one for each drawn test set"),
            (each.mean(axis=0), "the mean is over the drawn test sets: each of their rows is a "
             "test set, so average within the row"),
            ((A > B)[PICKS].mean(axis=1), "these are shares of sentences on which a wins: a gain "
             "says by how much, so average the differences"),
            (right > 0, "these say only whether a wins a test set: give by how much"),
            ((right > 0).mean(), "this is the share of test sets that a wins: give the gain on "
             "each of them"),
            (each, "these are the differences sentence by sentence: average each row"),
        ],
        f"it gives {listed(found, 3)}, and the answer is {listed(right, 3)}",
    )  # fmt: skip


HYPOTHESIS, EVIDENCE = "and hanna banana", "an hanna hanna"
"""Texts in which n-grams repeat, so that every way to count gives another number."""


@exercise
def shared_ngrams(shared: Callable[[str, str, int], int]) -> Finding:
    """Check a function from two texts and n to how many character n-grams they share, clipped.

    The sum over n-grams of the lesser of the two counts.
    """
    order = 2
    found = _count(shared(HYPOTHESIS, EVIDENCE, order), "how many they share")

    def counts(text: str, n: int = order, ends: int = 1) -> Counter[str]:
        return Counter(text[i : i + n] for i in range(len(text) - n + ends))

    def together(n: int = order, ends: int = 1, space: str = " ") -> int:
        """Return the right count with one thing changed: the length, where it ends, the spaces."""
        texts = (text.replace(" ", space) for text in (HYPOTHESIS, EVIDENCE))
        ours, theirs = (counts(text, n, ends) for text in texts)
        return (ours & theirs).total()

    ours, theirs = counts(HYPOTHESIS), counts(EVIDENCE)
    return verdict(
        found, together(), "the lesser of the two counts of each n-gram, summed",
        [
            (len(ours.keys() & theirs.keys()), "every n-gram counts once here: one that is twice "
             "in both texts is shared twice"),
            (sum(ours[gram] * theirs[gram] for gram in ours), "counts are multiplied: an n-gram "
             "that is twice in one text and three times in the other is shared twice, not six "
             "times"),
            (sum(ours[gram] for gram in ours if gram in theirs), "every occurrence in the "
             "hypothesis counts, even if the evidence has fewer: take the lesser of the two "
             "counts"),
            (sum(theirs[gram] for gram in ours), "every occurrence in the evidence counts, even if "
             "the hypothesis has fewer: take the lesser of the two counts"),
            (together(order + 1), "the n-grams are one character too long"),
            (together(order - 1), "the n-grams are one character too short"),
            (together(space=""), "the spaces are left out: a space is a character here like any "
             "other"),
            (together(ends=0), "the last n-gram of each text is missing: it begins n characters "
             "before the end"),
            (together(ends=order), "what is left at the end counts as an n-gram here, although it "
             "has fewer than n characters"),
        ],
        f"for {HYPOTHESIS!r}, {EVIDENCE!r} and n = {order} it gives {found:g}, and the answer is "
        f"{together()}",
    )  # fmt: skip


SEQUENCES = [[5, 1, 2], [5, 1, 3, 4], [5, 1, 2], [6, 1, 5, 1, 2]]
"""Four samples as tokens: two equal ones, and beginnings in common."""


@exercise
def prefix_nodes(count: Callable[[Sequence[Sequence[int]]], int]) -> Finding:
    """Check a function from samples' tokens to how many rows a model computes for all of them.

    One for each distinct beginning of one token or more; equal beginnings are computed once.
    """
    found = _count(count(SEQUENCES), "how many distinct beginnings there are")
    different = {tuple(tokens) for tokens in SEQUENCES}

    def beginnings(first: int, last: int) -> int:
        """Count the distinct beginnings of at least ``first`` tokens, ``last`` short of all."""
        ends = [(s, n) for s in SEQUENCES for n in range(first, len(s) + 1 - last)]
        return len({tuple(s[:n]) for s, n in ends})

    right = beginnings(1, 0)
    return verdict(
        found, right, "one row for each distinct beginning, however many samples share it",
        [
            (sum(map(len, SEQUENCES)), "every token of every sample is counted: equal beginnings "
             "are computed once"),
            (sum(map(len, different)), "equal samples are counted once, but different samples that "
             "begin alike share that beginning too"),
            (len(different), "these are the distinct samples: every beginning is a row of its own"),
            (right + 1, "the empty beginning is counted: it is the source, computed for any "
             "decoder"),
            (beginnings(1, 1), "the longest beginning of each sample is missing: the whole sample "
             "is a beginning too"),
            (beginnings(0, 1), "the empty beginning is counted, and the longest of each sample, "
             "the whole of it, is missing"),
            (len({(n, s[n]) for s in SEQUENCES for n in range(len(s))}), "a token at the same "
             "place counts once, whatever comes before it: beginnings are equal only as a whole"),
            (len({token for s in SEQUENCES for token in s}), "these are the distinct tokens: a row "
             "is a whole beginning"),
        ],
        f"it gives {found:g}, and there are {right} distinct beginnings",
    )  # fmt: skip


def _count(answer: Any, what: str) -> float:
    """Return the answer as one number; of a collection `NotUsable` says ``what`` is needed."""
    collection = isinstance(answer, (Mapping, Set, list, tuple))
    kind = type(answer).__name__
    refuse((collection, f"it gives a {kind}, and one number is needed: {what}"))
    return number(answer)
