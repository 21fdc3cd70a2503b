"""Checks of the exercises on comparing many texts fast, and deciding with few comparisons."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from labkit.checks import Finding
from labkit.checks.answers import Answer, Floats, exercise, number, numbers, refuse, verdict, whole
from labkit.checks.risk import random_texts
from labkit.paths import data_dir

if TYPE_CHECKING:
    from labkit.models import LanguageModel


def pairs_of(text: str) -> Counter[str]:
    """Count each pair of neighbouring characters of a text."""
    return _ngrams(text, 2)


def _ngrams(text: str, n: int, ends: int = 1) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + ends))


def pair_f1(hypothesis: str, evidence: str) -> float:
    """Return clipped pairs in common over the mean number of pairs of characters; 0 if none.

    >>> pair_f1("abab", "ab")
    0.5
    """
    ours, theirs = pairs_of(hypothesis), pairs_of(evidence)
    return 2 * (ours & theirs).total() / max(ours.total() + theirs.total(), 1)


@exercise
def fast_utility(fast: Answer, seed: int = 0, many: int = 240) -> Iterator[Finding]:
    """Check a matrix of `pair_f1`, (H, R), computed at once: its values, then its speed, which has
    to be three times that of pair by pair; good ones are far faster."""
    rng = np.random.default_rng(seed)
    ours = ["", "abababab", "aaa", *random_texts(rng, 6)]
    theirs = ["ab", "a", *random_texts(rng, 5), ours[3]]
    with np.errstate(all="ignore"):
        found = numbers(fast(ours, theirs), (len(ours), len(theirs)), "hypotheses, evidence")
    yield _values(found, ours, theirs)
    lines = random_texts(rng, 2 * many, longest=14)
    began = time.perf_counter()
    numbers(fast(lines[:many], lines[many:]), (many, many))
    ours_s = time.perf_counter() - began
    few = max(many // 12, 5)
    began = time.perf_counter()
    for h, r in product(lines[:few], lines[many : many + few]):
        pair_f1(h, r)
    slow_s = (time.perf_counter() - began) * (many / few) ** 2
    refuse((3 * ours_s > slow_s, f"the values are right, but {many} x {many} texts take "
            f"{ours_s / slow_s:.1f} times as long as one pair after the other: count each text "
            "once, and compare all of them with one matrix product"))  # fmt: skip
    yield Finding(True, f"the same to six places, and far faster for {many} x {many} texts.")


def _values(found: Floats, ours: list[str], theirs: list[str]) -> Finding:
    """Compare a matrix with `pair_f1`, and with what each mistake makes of these texts."""

    def of(value: Callable[[Counter[str], Counter[str]], float]) -> Floats:
        return np.array([[value(pairs_of(h), pairs_of(r)) for r in theirs] for h in ours], float)

    shared = of(lambda h, r: (h & r).total())
    dot = of(lambda h, r: sum(h[pair] * r[pair] for pair in h))
    alike = of(lambda h, r: len(h.keys() & r.keys()))
    rows, columns = of(lambda h, r: max(h.total(), 1)), of(lambda h, r: max(r.total(), 1))
    both, kinds = of(lambda h, r: max(h.total() + r.total(), 1)), of(lambda h, r: len(h) + len(r))
    right = 2 * shared / both
    h, r = np.unravel_index(np.abs(found - right).argmax(), found.shape)
    return verdict(
        found, right, "the values are right",
        (2 * dot / both, "repetitions are not clipped: a pair found 4 times in one text and once "
         "in the other is in common once, and the product of the counts says 4"),
        (2 * alike / np.maximum(kinds, 1), "repetitions are lost: count the c-th occurrence of a "
         "pair as a feature of its own"),
        (2 * alike / both, "repetitions are lost in what is in common: count the c-th occurrence "
         "of a pair as a feature of its own"),
        (shared / rows, "this is precision: divide by the mean of both numbers of pairs"),
        (shared / columns, "this is recall: divide by the mean of both numbers of pairs"),
        (shared / both, "divided by the sum of both numbers of pairs: F1 is twice that"),
        (shared, "these are numbers of pairs in common: divide by the mean number of pairs"),
        otherwise=f"for {ours[h]!r} against {theirs[r]!r} it gives {found[h, r]:.4f}, and the "
                  f"answer is {right[h, r]:.4f}", tolerance=1e-6,
    )  # fmt: skip


@exercise
def aggregated(aggregate: Answer, seed: int = 0, many: int = 6, much: int = 9) -> Finding:
    """Check reference aggregation: the utility (H,) against the average of weighted evidence.

    The average text has each pair of characters as often as the evidence has it on average, by
    weight; the pairs in common are the smaller of both numbers, and F1 is as in `pair_f1`.
    """
    rng = np.random.default_rng(seed)
    lines = random_texts(rng, many + much)
    ours, theirs = lines[:many], lines[many:]
    weights = rng.dirichlet(np.full(much, 0.8))
    found = numbers(aggregate(ours, theirs, weights), (many,), "one for each hypothesis")
    right = _against_mean(ours, theirs, weights)
    exact = np.array([[pair_f1(h, r) for r in theirs] for h in ours]) @ weights
    return verdict(
        found, right, "one comparison for each hypothesis, however much evidence there is",
        (_against_mean(ours, theirs, np.full(much, 1 / much)), "the weights are left out of the "
         "average"),
        (_against_mean(ours, theirs, np.ones(much)), "the counts are added up and not averaged: a "
         "text as long as all evidence together"),
        (exact, "this is the exact expected utility: right, but it costs what aggregation saves"),
        (1 - right, "these are losses: give the utility against the average"),
        otherwise="average the counts by weight, take the smaller of both numbers for each pair, "
                  "and divide twice their sum by the sum of all pairs", tolerance=1e-6,
    )  # fmt: skip


def _against_mean(ours: list[str], theirs: list[str], weights: Floats) -> Floats:
    average: Counter[str] = Counter()
    for text, weight in zip(theirs, weights, strict=True):
        for pair, count in pairs_of(text).items():
            average[pair] += weight * count
    total = sum(average.values())
    counts = [pairs_of(text) for text in ours]
    shared = [sum(min(many, average[pair]) for pair, many in own.items()) for own in counts]
    return 2 * np.array(shared) / [max(own.total() + total, 1e-12) for own in counts]


Score = Callable[[Sequence[int], Sequence[int]], Floats]
"""Utilities (h, r) of some hypotheses against some evidence, by number; each pair costs one."""


@exercise
def within_budget(
    strategy: Answer, problems: Sequence[Any], least: float = 0.0, seed: int = 0
) -> Finding:
    """Check a strategy by the hypothesis that it finds with an eighth of all utility calls.

    ``strategy`` gets the numbers of hypotheses and evidence, a `Score`, a budget and a generator.
    ``problems`` are utility matrices (H, R). Its quality is the mean, over problems and three
    repeats of each, of how far it comes from a blind choice (0) to the best hypothesis (1). It has
    to beat spending the budget evenly by ``least``.
    """
    rng = np.random.default_rng(seed)
    ours, evenly = [], []
    for matrix in (np.array(problem, np.float64) for problem in problems):
        quality = matrix.mean(axis=1)
        worth = (quality - quality.mean()) / max(quality.max() - quality.mean(), 1e-12)
        many, much = matrix.shape
        budget = many * much // 8
        for _ in range(3):
            meter = Meter(matrix, budget)
            try:
                answer = strategy(many, much, meter, budget, rng)
            except ValueError:  # the meter's, or one of the student's own
                if meter.spent <= budget:
                    raise
                answer = 0
            refuse(
                (meter.spent > budget, f"it asks for {meter.spent} utilities, and its budget is "
                 f"{budget}: a call with h hypotheses and r pieces of evidence costs h * r"),
            )  # fmt: skip
            chosen = whole(answer)
            refuse((not 0 <= chosen < many, f"it chooses number {chosen}, and hypotheses are 0 to "
                    f"{many - 1}"))  # fmt: skip
            ours.append(worth[chosen])
        for _ in range(20):
            meter = Meter(matrix, budget)
            evenly.append(worth[spread_evenly(many, much, meter, budget, rng)])
    reached, bar = float(np.mean(ours)), float(np.mean(evenly)) + least
    reach = f"it comes {reached:.1%} of the way from a blind choice to the best hypothesis"
    refuse((reached < bar, f"{reach}, and {bar:.1%} are needed: spend little on hypotheses that "
            "are clearly behind, and what that saves on those in front"))  # fmt: skip
    return Finding(True, f"{reach}; spending evenly comes {float(np.mean(evenly)):.1%}.")


PRACTICE, OTHERS = slice(0, 6), slice(6, 12)
"""Which of the held-out sentences are for practice, and which for judging."""


def drawn_problems(base: LanguageModel, which: slice = PRACTICE, seed: int = 0) -> list[Floats]:
    """Return utility matrices (H, R) by chrF of answers to held-out sentences, by ``base``: half of
    a sentence's samples are hypotheses, equal ones listed once; half are evidence."""
    from labkit.mbr.conditional import conditional
    from labkit.mbr.draws import Draws, draw
    from labkit.mbr.utilities import matrix

    path = data_dir() / "sentences" / "held_out.txt"
    sentences = path.read_text(encoding="utf-8").splitlines()[which]
    how = Draws(samples=64, max_new_tokens=24, seed=seed)
    problems = []
    for answers in draw(conditional(base), sentences, how):
        drawn = [answer.text for answer in answers for _ in range(answer.count)]
        mixed = [drawn[i] for i in np.random.default_rng(seed).permutation(len(drawn))]
        half, rest = mixed[: len(drawn) // 2], mixed[len(drawn) // 2 :]
        problems.append(matrix("chrf", list(dict.fromkeys(half)), rest))
    return problems


class Meter:
    """A `Score` that counts the utilities it returns, up to its budget."""

    def __init__(self, matrix: Floats, budget: int) -> None:
        self.matrix = matrix
        self.budget = budget
        self.spent = 0

    def __call__(self, hypotheses: Sequence[int], evidence: Sequence[int]) -> Floats:
        """Return utilities (h, r); `ValueError` beyond the budget or for an unknown number."""
        rows, columns = np.asarray(hypotheses, int), np.asarray(evidence, int)
        self.spent += rows.size * columns.size
        if self.spent > self.budget:
            raise ValueError(f"{self.spent} utilities were asked for, of {self.budget} allowed")
        many, much = self.matrix.shape
        if not (np.isin(rows, range(many)).all() and np.isin(columns, range(much)).all()):
            raise ValueError(f"there are {many} hypotheses and {much} pieces of evidence")
        return self.matrix[np.ix_(rows, columns)].copy()


def spread_evenly(many: int, much: int, score: Score, budget: int, rng: np.random.Generator) -> int:
    """Choose as the plainest strategy: all hypotheses, as much evidence as the budget allows."""
    seen = rng.choice(much, size=max(1, min(much, budget // many)), replace=False)
    return int(score(range(many), seen.tolist()).mean(axis=1).argmax())


@exercise
def shared_ngrams(shared: Answer) -> Finding:
    """Check how many character n-grams two texts share: the sum of the lesser of the two counts."""
    texts, order = ("and hanna banana", "an hanna hanna"), 2  # n-grams repeat in them
    found = _count(shared(*texts, order), "how many they share")

    def together(n: int = order, ends: int = 1, space: str = " ") -> int:
        """Return the right count with one thing changed: the length, where it ends, the spaces."""
        ours, theirs = (_ngrams(text.replace(" ", space), n, ends) for text in texts)
        return (ours & theirs).total()

    ours, theirs = (_ngrams(text, order) for text in texts)
    return verdict(
        found, together(), "the lesser of the two counts of each n-gram, summed",
        (len(ours.keys() & theirs.keys()), "every n-gram counts once here: one that is twice in "
         "both texts is shared twice"),
        (sum(ours[gram] * theirs[gram] for gram in ours), "counts are multiplied: an n-gram that "
         "is twice in one text and three times in the other is shared twice, not six times"),
        (sum(ours[gram] for gram in ours if gram in theirs), "every occurrence in the hypothesis "
         "counts, even if the evidence has fewer: take the lesser of the two counts"),
        (sum(theirs[gram] for gram in ours), "every occurrence in the evidence counts, even if the "
         "hypothesis has fewer: take the lesser of the two counts"),
        (together(order + 1), "the n-grams are one character too long"),
        (together(order - 1), "the n-grams are one character too short"),
        (together(space=""), "the spaces are left out: a space is a character here like any other"),
        (together(ends=0), "the last n-gram of each text is missing: it begins n characters before "
         "the end"),
        (together(ends=order), "what is left at the end counts as an n-gram here, although it has "
         "fewer than n characters"),
        otherwise=f"for {texts[0]!r}, {texts[1]!r} and n = {order} it gives {found:g}, and the "
                  f"answer is {together()}",
    )  # fmt: skip


@exercise
def prefix_nodes(count: Answer) -> Finding:
    """Check how many rows a model computes for some samples' tokens: one for each distinct
    beginning of one token or more."""
    samples = [[5, 1, 2], [5, 1, 3, 4], [5, 1, 2], [6, 1, 5, 1, 2]]
    found = _count(count(samples), "how many distinct beginnings there are")
    different = {tuple(tokens) for tokens in samples}

    def beginnings(first: int, last: int) -> int:
        """Count the distinct beginnings of at least ``first`` tokens, ``last`` short of all."""
        ends = [(s, n) for s in samples for n in range(first, len(s) + 1 - last)]
        return len({tuple(s[:n]) for s, n in ends})

    right = beginnings(1, 0)
    return verdict(
        found, right, "one row for each distinct beginning, however many samples share it",
        (sum(map(len, samples)), "every token of every sample is counted: equal beginnings are "
         "computed once"),
        (sum(map(len, different)), "equal samples are counted once, but different samples that "
         "begin alike share that beginning too"),
        (len(different), "these are the distinct samples: every beginning is a row of its own"),
        (right + 1, "the empty beginning is counted: it is the source, computed for any decoder"),
        (beginnings(1, 1), "the longest beginning of each sample is missing: the whole sample is a "
         "beginning too"),
        (beginnings(0, 1), "the empty beginning is counted, and the longest of each sample, the "
         "whole of it, is missing"),
        (len({(n, s[n]) for s in samples for n in range(len(s))}), "a token at the same place "
         "counts once, whatever comes before it: beginnings are equal only as a whole"),
        (len({token for s in samples for token in s}), "these are the distinct tokens: a row is a "
         "whole beginning"),
        otherwise=f"it gives {found:g}, and there are {right} distinct beginnings",
    )  # fmt: skip


def _count(answer: Any, what: str) -> float:
    """Return the answer as one number; of a collection `NotUsable` says ``what`` is needed."""
    says = f"it gives a {type(answer).__name__}, and one number is needed: {what}"
    refuse((isinstance(answer, (Mapping, Set, list, tuple)), says))
    return number(answer)
