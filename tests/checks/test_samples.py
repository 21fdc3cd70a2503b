"""The checks of the exercises on minimum Bayes risk: right passes, each mistake is named."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from labkit import checks as exercises
from labkit.mbr.weights import weigh
from labkit.records import Sample


def softmax(logs):
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def labs_own(logprobs, temperature):
    samples = [Sample(text=str(i), logprob=value) for i, value in enumerate(logprobs)]
    return weigh(samples, "model", temperature)[1]


def unshifted(logprobs, temperature):
    weights = np.exp(logprobs / temperature)
    return weights / weights.sum()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (labs_own, "Right"),
        (lambda logs, t: softmax(logs / t).tolist(), "Right"),
        (unshifted, "near -2,000"),
        (lambda logs, t: np.exp(logs / t), "do not sum to 1"),
        (lambda logs, t: softmax(logs), "no effect"),
        (lambda logs, t: softmax(logs * t), "upside down"),
        (lambda logs, t: logs / logs.sum(), "take exponentials first"),
        (lambda logs, t: np.exp((logs - logs.max()) / t), "greatest weight is 1 here"),
        (lambda logs, t: softmax(logs) ** (1 / t), "after the weights were normalised"),
        (lambda logs, t: softmax(logs) / t, "weights are divided by the temperature"),
        (lambda logs, t: softmax(-logs / t), "sign is turned"),
        (lambda logs, t: np.full(3, 1 / 3), "called unique"),
        (lambda logs, t: 1.0, "a weight for each text"),
        (lambda logs, t: "heavy", "an array of numbers is needed"),
        (lambda logs, t: np.array([1.0, 0, 0]), "the answer is"),
        (lambda logs, t: ..., "returns nothing"),
    ],
)
def test_model_weights(answer, says):
    found = exercises.model_weights(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda a, b, picks: (a - b)[picks].mean(axis=1), "Right"),
        (lambda a, b, picks: [a[p].mean() - b[p].mean() for p in picks], "Right"),
        (lambda a, b, picks: (b - a)[picks].mean(axis=1), "sign is turned"),
        (lambda a, b, picks: (a - b)[picks].sum(axis=1), "these are sums"),
        (lambda a, b, picks: a[picks].mean(axis=1) - b.mean(), "only a is resampled"),
        (lambda a, b, picks: a.mean() - b[picks].mean(axis=1), "only b is resampled"),
        (lambda a, b, picks: [(a - b).mean() for _ in picks], "use the drawn numbers"),
        (lambda a, b, picks: (a - b).mean(), "this is one gain"),
        (lambda a, b, picks: a[picks].mean() - b[picks].mean(), "one mean over all"),
        (lambda a, b, picks: (a > b)[picks].mean(axis=1), "shares of sentences"),
        (lambda a, b, picks: (a - b)[picks].mean(axis=1) > 0, "only whether a wins"),
        (lambda a, b, picks: ((a - b)[picks].mean(axis=1) > 0).mean(), "share of test sets"),
        (lambda a, b, picks: (a - b)[picks].mean(axis=0), "average within the row"),
        (lambda a, b, picks: (a - b)[picks], "sentence by sentence"),
        (lambda a, b, picks: np.zeros(3), "the answer is"),
        (lambda a, b, picks: None, "returns nothing"),
    ],
)
def test_paired_gains(answer, says):
    found = exercises.paired_gains(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


def grams(text, n):
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def clipped(h, r, n):
    return sum((Counter(grams(h, n)) & Counter(grams(r, n))).values())


def within_words(h, r, n):
    ours, theirs = (Counter(g for w in text.split() for g in grams(w, n)) for text in (h, r))
    return sum((ours & theirs).values())


def too_many(h, r, n):
    ours, theirs = (Counter(text[i : i + n] for i in range(len(text))) for text in (h, r))
    return sum((ours & theirs).values())


def features(text, n):
    seen = Counter()
    found = set()
    for gram in grams(text, n):
        seen[gram] += 1
        found.add((gram, seen[gram]))
    return found


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (clipped, "Right"),
        (lambda h, r, n: len(features(h, n) & features(r, n)), "Right"),
        (lambda h, r, n: len(set(grams(h, n)) & set(grams(r, n))), "counts once here"),
        (lambda h, r, n: sum(grams(r, n).count(g) for g in grams(h, n)), "are multiplied"),
        (lambda h, r, n: sum(g in grams(r, n) for g in grams(h, n)), "in the hypothesis counts"),
        (lambda h, r, n: sum(g in grams(h, n) for g in grams(r, n)), "in the evidence counts"),
        (lambda h, r, n: clipped(h, r, n + 1), "too long"),
        (lambda h, r, n: clipped(h, r, n - 1), "too short"),
        (lambda h, r, n: clipped(h.replace(" ", ""), r.replace(" ", ""), n), "spaces are left out"),
        (within_words, "spaces are left out"),
        (lambda h, r, n: clipped(h[:-1], r[:-1], n), "last n-gram of each text is missing"),
        (too_many, "left at the end"),
        (lambda h, r, n: Counter(grams(h, n)) & Counter(grams(r, n)), "a Counter, and one number"),
        (lambda h, r, n: features(h, n) & features(r, n), "a set, and one number"),
        (lambda h, r, n: [1, 2], "a list, and one number is needed: how many they share"),
        (lambda h, r, n: "many", "a str, and a number"),
        (lambda h, r, n: -1, "the answer is"),
        (lambda h, r, n: ..., "returns nothing"),
    ],
)
def test_shared_ngrams(answer, says):
    found = exercises.shared_ngrams(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")


def shorter(samples, least):
    return {tuple(tokens[:n]) for tokens in samples for n in range(least, len(tokens))}


def prefixes(samples):
    return {tuple(tokens[: n + 1]) for tokens in samples for n in range(len(tokens))}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda samples: len(prefixes(samples)), "Right"),
        (lambda samples: sum(map(len, samples)), "every token of every sample"),
        (lambda samples: sum(map(len, {tuple(s) for s in samples})), "begin alike"),
        (lambda samples: len({tuple(s) for s in samples}), "distinct samples"),
        (lambda samples: len(prefixes(samples) | {()}), "empty beginning"),
        (lambda samples: len({(n, t) for s in samples for n, t in enumerate(s)}), "as a whole"),
        (lambda samples: len({t for s in samples for t in s}), "distinct tokens"),
        (lambda samples: len(shorter(samples, 1)), "longest beginning of each sample is missing"),
        (lambda samples: len(shorter(samples, 0)), "empty beginning is counted, and the longest"),
        (prefixes, "a set, and one number is needed: how many distinct beginnings there are"),
        (lambda samples: Counter(map(tuple, samples)), "a Counter, and one number"),
        (lambda samples: [1], "a list, and one number"),
        (lambda samples: 100, "there are 10 distinct"),
        (lambda samples: None, "returns nothing"),
    ],
)
def test_prefix_nodes(answer, says):
    found = exercises.prefix_nodes(answer)
    assert says in repr(found)
    assert found.right == (says == "Right")
