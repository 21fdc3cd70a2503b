"""Checks of the exercises on minimum Bayes risk: weights, gains, shared n-grams, prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding
from labkit.checks.answers import NotUsable, exercise, number

Floats = NDArray[np.float64]

LOGPROBS = np.array([-1.2, -0.7, -3.0])
FAR = LOGPROBS - 2000.0
"""Log-probabilities of three texts, and of three long ones, whose probabilities are 0 as floats."""


@exercise
def model_weights(weigh: Callable[[Floats, float], Floats]) -> Finding:
    """Check a function from log-probabilities (R,) and a temperature to weights (R,).

    p^(1/T), renormalised: computed in logarithms, since probabilities of texts underflow.
    """
    temperature = 2.0
    answer = _numbers(weigh(LOGPROBS, temperature))
    if answer is None:
        return NOT_WRITTEN
    if answer.shape != LOGPROBS.shape:
        return Finding(False, f"give one weight for each text, {len(LOGPROBS)} here.")

    def softmax(logs: Floats) -> Floats:
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    right = softmax(LOGPROBS / temperature)
    for seen, says in (
        (right, ""),
        (np.exp(LOGPROBS / temperature), "the weights do not sum to 1: divide by their sum"),
        (softmax(LOGPROBS), "the temperature has no effect: divide the logarithms by it"),
        (softmax(LOGPROBS * temperature), "the temperature is upside down: a higher one makes the "
         "weights more equal, so divide by it"),
        (LOGPROBS / LOGPROBS.sum(), "these are the logarithms over their sum: the least probable "
         "text weighs the most; take exponentials first"),
        (np.exp((LOGPROBS - LOGPROBS.max()) / temperature), "the greatest weight is 1 here, so the "
         "weights do not sum to 1: divide by their sum after taking the greatest logarithm off"),
        (softmax(LOGPROBS) ** (1 / temperature), "the temperature comes after the weights were "
         "normalised, so they no longer sum to 1: divide the logarithms by it first"),
        (softmax(LOGPROBS) / temperature, "the weights are divided by the temperature: divide the "
         "logarithms by it, before the exponentials"),
        (softmax(-LOGPROBS / temperature), "the sign is turned: the least probable text weighs the "
         "most"),
        (np.full(len(LOGPROBS), 1 / len(LOGPROBS)), "all weigh the same: that is the weighting "
         "called unique"),
    ):  # fmt: skip
        if np.allclose(answer, seen, atol=1e-9):
            if says:
                return Finding(False, f"{says}.")
            break
    else:
        return Finding(False, f"it gives {_listed(answer)}, and the answer is {_listed(right)}.")
    with np.errstate(all="ignore"):
        far = _numbers(weigh(FAR, temperature))
    if far is None or not np.allclose(far, right, atol=1e-9):
        return Finding(
            False,
            "right for short texts, but with log-probabilities near -2,000, as long texts have, "
            f"it gives {'nothing' if far is None else _listed(far)}: exponentials of such numbers "
            "are 0, so take the greatest one off before them.",
        )
    return Finding(True, "renormalised in logarithms, so long texts can be weighed too.")


A = np.array([0.9, 0.2, 0.7, 0.4])
B = np.array([0.5, 0.1, 0.9, 0.4])
PICKS = np.array([[0, 0, 1, 3], [2, 2, 2, 1], [3, 1, 0, 2]])
"""Two systems' scores on four sentences, and three test sets drawn from these sentences."""


@exercise
def paired_gains(gains: Callable[[Floats, Floats, NDArray[np.int64]], Floats]) -> Finding:
    """Check a function from scores a, b (n,) and drawn numbers (B, n) to a's gains over b (B,).

    In each resampled test set the mean of a less the mean of b, on the same sentences.
    """
    answer = _numbers(gains(A, B, PICKS))
    if answer is None:
        return NOT_WRITTEN
    right = A[PICKS].mean(axis=1) - B[PICKS].mean(axis=1)
    for seen, says in (
        (right, ""),
        (-right, "the sign is turned: a's mean less b's"),
        (right * A.size, "these are sums: take the mean of each test set"),
        (A[PICKS].mean(axis=1) - B.mean(), "only a is resampled: draw both on the same sentences, "
         "or the sentences' own difficulty does not cancel"),
        (A.mean() - B[PICKS].mean(axis=1), "only b is resampled: draw both on the same sentences, "
         "or the sentences' own difficulty does not cancel"),
        (np.full(len(PICKS), A.mean() - B.mean()), "this is the gain on the whole test set every "
         "time: use the drawn numbers"),
        (np.asarray((A - B)[PICKS].mean()), "this is one mean over all the drawn test sets: give "
         "one for each, the mean of its row"),
        (np.asarray(A.mean() - B.mean()), "this is one gain: give one for each drawn test set"),
        ((A - B)[PICKS].mean(axis=0), "the mean is over the drawn test sets: each of their rows is "
         "a test set, so average within the row"),
        ((A > B)[PICKS].mean(axis=1), "these are shares of sentences on which a wins: a gain says "
         "by how much, so average the differences"),
        (right > 0, "these say only whether a wins a test set: give by how much"),
        (np.asarray((right > 0).mean()), "this is the share of test sets that a wins: give the "
         "gain on each of them"),
        ((A - B)[PICKS], "these are the differences sentence by sentence: average each row"),
    ):  # fmt: skip
        if answer.shape == np.shape(seen) and np.allclose(answer, seen, atol=1e-9):
            good = "the same sentences for both, so what is hard for both cancels."
            return Finding(not says, f"{says}." if says else good)
    return Finding(False, f"it gives {_listed(answer)}, and the answer is {_listed(right)}.")


HYPOTHESIS, EVIDENCE = "and hanna banana", "an hanna hanna"
"""Texts in which n-grams repeat, so that every way to count gives another number."""


@exercise
def shared_ngrams(shared: Callable[[str, str, int], int]) -> Finding:
    """Check a function from two texts and n to how many character n-grams they share, clipped.

    The sum over n-grams of the lesser of the two counts.
    """
    order = 2
    answer = _count(shared(HYPOTHESIS, EVIDENCE, order), "how many they share")

    def counts(text: str, n: int, ends: int = 1) -> Counter[str]:
        return Counter(text[i : i + n] for i in range(len(text) - n + ends))

    def together(n: int = order, ends: int = 1, space: str = " ") -> int:
        """The right count with one thing changed: the length, where it ends, the spaces."""
        texts = (text.replace(" ", space) for text in (HYPOTHESIS, EVIDENCE))
        ours, theirs = (counts(text, n, ends) for text in texts)
        return sum((ours & theirs).values())

    ours, theirs = counts(HYPOTHESIS, order), counts(EVIDENCE, order)
    right = together()
    for seen, says in (
        (right, ""),
        (len(ours.keys() & theirs.keys()), "every n-gram counts once here: one that stands twice "
         "in both texts is shared twice"),
        (sum(ours[gram] * theirs[gram] for gram in ours), "counts are multiplied: an n-gram that "
         "stands twice in one text and three times in the other is shared twice, not six times"),
        (sum(ours[gram] for gram in ours if gram in theirs), "every occurrence in the hypothesis "
         "counts, even if the evidence has fewer: take the lesser of the two counts"),
        (sum(theirs[gram] for gram in ours), "every occurrence in the evidence counts, even if the "
         "hypothesis has fewer: take the lesser of the two counts"),
        (together(order + 1), "the n-grams are one character too long"),
        (together(order - 1), "the n-grams are one character too short"),
        (together(space=""), "the spaces are left out: a space is a character here like any "
         "other"),
        (together(ends=0), "the last n-gram of each text is missing: it begins n characters "
         "before the end"),
        (together(ends=order), "what is left at the end counts as an n-gram here, though it has "
         "fewer than n characters"),
    ):  # fmt: skip
        if answer == seen:
            good = "the lesser of the two counts of each n-gram, summed."
            return Finding(not says, f"{says}." if says else good)
    return Finding(
        False,
        f"for {HYPOTHESIS!r}, {EVIDENCE!r} and n = {order} it gives {answer:g}, and the answer "
        f"is {right}.",
    )


SEQUENCES = [[5, 1, 2], [5, 1, 3, 4], [5, 1, 2], [6, 1, 5, 1, 2]]
"""Four samples as tokens: two equal ones, and beginnings in common."""


@exercise
def prefix_nodes(count: Callable[[Sequence[Sequence[int]]], int]) -> Finding:
    """Check a function from samples' tokens to how many rows a model computes for all of them.

    One for each distinct beginning of one token or more; equal beginnings are computed once.
    """
    answer = _count(count(SEQUENCES), "how many distinct beginnings there are")
    prefixes = {tuple(s[: n + 1]) for s in SEQUENCES for n in range(len(s))}
    different = {tuple(tokens) for tokens in SEQUENCES}
    for seen, says in (
        (len(prefixes), ""),
        (sum(map(len, SEQUENCES)), "every token of every sample is counted: equal beginnings are "
         "computed once"),
        (sum(map(len, different)), "equal samples are counted once, but different samples that "
         "begin alike share that beginning too"),
        (len(different), "these are the distinct samples: every beginning is a row of its own"),
        (len(prefixes) + 1, "the empty beginning is counted: it is the source, computed for any "
         "decoder"),
        (len({tuple(s[:n]) for s in SEQUENCES for n in range(1, len(s))}), "the longest beginning "
         "of each sample is missing: the whole sample is a beginning too"),
        (len({tuple(s[:n]) for s in SEQUENCES for n in range(len(s))}), "the empty beginning is "
         "counted, and the longest of each sample, the whole of it, is missing"),
        (len({(n, s[n]) for s in SEQUENCES for n in range(len(s))}), "a token at the same place "
         "counts once, whatever stands before it: beginnings are equal only as a whole"),
        (len({token for s in SEQUENCES for token in s}), "these are the distinct tokens: a row is "
         "a whole beginning"),
    ):  # fmt: skip
        if answer == seen:
            good = "one row for each distinct beginning, however many samples stand on it."
            return Finding(not says, f"{says}." if says else good)
    return Finding(
        False, f"it gives {answer:g}, and there are {len(prefixes)} distinct beginnings."
    )


def _count(answer: object, what: str) -> float:
    """The answer as one number; `NotUsable`, saying ``what`` it is to tell, for a collection."""
    if isinstance(answer, (Mapping, Set, list, tuple)):
        kind = type(answer).__name__
        raise NotUsable(f"it gives a {kind}, and one number is needed: {what}.")
    return number(answer)


def _numbers(answer: Any) -> Floats | None:
    """The answer as numbers, or None where there is none yet; what is none is NaN."""
    if answer is None or isinstance(answer, EllipsisType):
        return None
    try:
        return np.asarray(answer, np.float64)
    except (TypeError, ValueError):
        return np.asarray(np.nan)


def _listed(values: Floats) -> str:
    return ", ".join(f"{value:.3f}" for value in np.atleast_1d(values).flatten())
