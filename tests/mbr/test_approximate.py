"""Approximations make fewer calls, count them rightly, and become exact where they should."""

import numpy as np
import pytest
import scipy.sparse

from labkit.errors import LabkitError
from labkit.mbr import approximate
from labkit.mbr.approximate import Problem, complete, k_means
from labkit.mbr.utilities import UTILITIES, learned
from labkit.records import Sample

COMMON = "the a cat dog sat ran on under mat house big small very quickly today"
WORDS = COMMON.split()


def texts(seed, many, words=8):
    """Samples of one translation: a sentence with some words exchanged."""
    rng = np.random.default_rng(seed)
    base = list(rng.choice(WORDS, words))
    made = []
    for _ in range(many):
        changed = [str(rng.choice(WORDS)) if rng.random() < 0.3 else str(word) for word in base]
        made.append(" ".join(changed))
    return made


def task(seed=0, many=32, utility="chrf"):
    samples = [Sample(text=text) for text in texts(seed, many)]
    return approximate.problem(samples, utility=utility)


def risks(problem):
    return approximate.exact(problem).risk


def test_exact_scores_every_pair():
    problem = task(many=20)
    found = approximate.exact(problem)
    assert found.calls == found.of == len(problem.hypotheses) * 20
    assert found.best == int(np.argmin(found.risk))


@pytest.mark.parametrize("name", approximate.METHODS)
@pytest.mark.parametrize("many", [1, 2, 3, 33])
def test_every_method_decides_and_counts_its_calls(name, many):
    problem, scored = task(many=many), []
    chrf = UTILITIES["chrf"]

    def counting(hypotheses, evidence):
        scored.append((hypotheses, evidence))
        return chrf(hypotheses, evidence)

    if name not in ("aggregation", "centroids"):
        problem.utility = counting
    found = approximate.METHODS[name](problem, np.random.default_rng(0))
    assert 0 <= found.best < len(problem.hypotheses)
    assert found.risk.shape == (len(problem.hypotheses),)
    assert found.calls <= found.of == len(problem.hypotheses) * many
    # Equal texts are scored once, so the function sees at most the calls that are counted.
    assert sum(len(h) * len(r) for h, r in scored) <= found.calls
    if name in ("aggregation", "centroids"):
        assert found.calls == 0
        assert found.cheap > 0


@pytest.mark.parametrize("name", sorted(set(approximate.METHODS) - {"exact"}))
def test_cheaper_methods_choose_well(name):
    """Over 8 problems the choice's risk lies nearer to the least than to the average risk."""
    problems = [task(seed) for seed in range(8)]
    [row] = approximate.compare_methods(problems, {name: approximate.METHODS[name]})
    exact = [risks(problem) for problem in problems]
    typical = np.mean([risk.mean() - risk.min() for risk in exact])
    assert row.calls < 0.7
    assert row.regret < typical / 3


def test_compare_finds_the_exact_method_exact():
    [row] = approximate.compare_methods([task(1), task(2)], {"exact": approximate.METHODS["exact"]})
    assert (row.calls, row.found, row.regret) == (1, 1, 0)


def test_compare_notices_a_method_that_chooses_badly():
    def worst(problem, rng):
        found = approximate.exact(problem)
        return approximate.Decision(int(np.argmax(found.risk)), found.risk, 0, found.of)

    [row] = approximate.compare_methods([task(1), task(2)], {"worst": worst})
    assert row.found == 0
    assert row.regret > 0.1


def test_pruning_drops_the_hopeless_early():
    samples = [Sample(text=text) for text in texts(0, 40)]
    hypotheses = [*samples, *(Sample(text=f"utterly unlike {i}") for i in range(40))]
    problem = approximate.problem(hypotheses, samples)
    found = approximate.pruning(problem, np.random.default_rng(0))
    exact = approximate.exact(approximate.problem(hypotheses, samples))
    assert found.best == exact.best
    assert found.calls < 0.6 * found.of


def test_what_pruning_cannot_tell_apart_it_judges_exactly():
    order_does_not_matter = ["the cat sat", "sat the cat", "unlike"]
    evidence = texts(0, 24)
    problem = Problem(order_does_not_matter, evidence, np.full(24, 1 / 24), "f1")
    found = approximate.pruning(problem, np.random.default_rng(0))
    np.testing.assert_allclose(found.risk[:2], risks(problem)[:2])
    assert found.best == 0
    assert found.calls < found.of


def test_halving_ends_with_one_and_keeps_its_budget():
    problem = task(many=64)
    found = approximate.halving(problem, np.random.default_rng(0), budget=0.25)
    assert found.calls <= 0.25 * found.of + len(problem.hypotheses)


def test_halving_with_evidence_that_agrees_is_exact():
    same = Problem(texts(0, 16), ["the cat sat"] * 9, np.full(9, 1 / 9))
    found = approximate.halving(same, np.random.default_rng(0))
    assert found.best == approximate.exact(same).best


def test_coarse_to_fine_judges_the_best_of_the_proxy_exactly():
    problem = task(many=30)
    found = approximate.coarse_to_fine(problem, proxy="f1", keep=0.5)
    kept = ~np.isnan(found.risk)
    assert kept.sum() == len(problem.hypotheses) // 2
    np.testing.assert_allclose(found.risk[kept], risks(task(many=30))[kept])


def test_coarse_to_fine_with_the_utility_as_its_own_proxy_is_exact():
    found = approximate.coarse_to_fine(task(), proxy="chrf", keep=0.05)
    assert found.best == approximate.exact(task()).best


def test_low_rank_with_the_whole_budget_is_exact():
    found = approximate.low_rank(task(), np.random.default_rng(0), budget=1.0)
    np.testing.assert_allclose(found.risk, risks(task()))


def test_low_rank_is_better_than_averaging_the_pairs_it_scored():
    """Regret over 12 problems, against the mean of as many scored pairs of each row."""
    ours, averaged = [], []
    for seed in range(12):
        problem, rng = task(seed, many=48), np.random.default_rng(seed)
        risk = risks(problem)
        loss = problem.loss(range(len(problem.hypotheses)), range(48))
        means = [row[rng.permutation(48)[:12]].mean() for row in loss]
        ours.append(risk[approximate.low_rank(problem, rng).best] - risk.min())
        averaged.append(risk[np.argmin(means)] - risk.min())
    assert np.mean(ours) < np.mean(averaged)


def test_completion_recovers_a_matrix_of_low_rank():
    rng = np.random.default_rng(0)
    left, right = rng.random((40, 2)), rng.random((50, 2)) / 2
    whole = left @ right.T
    known = rng.random(whole.shape) < 0.4
    guess = complete(np.where(known, whole, 0), known, rng, 3, 1e-4, 60)
    assert np.abs(guess - whole)[~known].max() < 0.02


@pytest.mark.parametrize("utility", ["chrf", "chrf++"])
def test_averaging_equal_evidence_is_exact(utility):
    same = Problem(texts(0, 9), ["the big cat."] * 4, np.full(4, 0.25), utility)
    np.testing.assert_allclose(approximate.aggregation(same).risk, risks(same), atol=1e-12)


@pytest.mark.parametrize("utility", ["chrf", "chrf++"])
def test_as_many_centroids_as_evidence_are_exact(utility):
    samples = sorted(set(texts(3, 12)))
    weights = np.arange(1, len(samples) + 1) / sum(range(1, len(samples) + 1))
    problem = Problem(texts(0, 9), samples, weights, utility)
    found = approximate.centroids(problem, np.random.default_rng(0), clusters=len(samples))
    np.testing.assert_allclose(found.risk, risks(problem), atol=1e-12)


def test_one_centroid_is_reference_aggregation():
    one = approximate.centroids(task(), np.random.default_rng(0), clusters=1)
    np.testing.assert_allclose(one.risk, approximate.aggregation(task()).risk, atol=1e-12)


def test_averaged_counts_are_those_of_the_paper():
    """Half "ab", half "abab": on average 1.5 a, 1.5 b, 1.5 ab, .5 ba, ..., against "ab"."""
    problem = Problem(["ab"], ["ab", "abab"], np.array([0.5, 0.5]))
    # order 1: matches 2 of 2 and 3; order 2: 1 of 1 and 2; longer ones the hypothesis has not.
    precision, recall = (1 + 1) / 2, (2 / 3 + 1 / 2) / 2
    expected = 5 * precision * recall / (4 * precision + recall)
    assert approximate.aggregation(problem).risk[0] == pytest.approx(1 - expected)


def test_averaging_embeddings_is_exact(monkeypatch):
    def letters(batch):
        return np.array([[one.count(letter) for letter in "abcdt"] for one in batch], float)

    monkeypatch.setattr(learned, "minilm", lambda: letters)
    problem = task(utility="embedding")
    np.testing.assert_allclose(approximate.aggregation(problem).risk, risks(problem), atol=1e-12)


def test_clusters_keep_apart_what_differs():
    near_axes = np.array([[1, 0.1], [1, 0], [0.1, 1], [0, 2], [3, 0.2], [0, 1]])
    of = k_means(scipy.sparse.csr_array(near_axes), 2, np.random.default_rng(0))
    assert of[0] == of[1] == of[4] != of[2] == of[3] == of[5]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: approximate.halving(task(), None, budget=0), "budget is 0"),
        (lambda: approximate.low_rank(task(), None, budget=2), "budget is 2"),
        (lambda: approximate.pruning(task(), None, confidence=1), "confidence is 1"),
        (lambda: approximate.pruning(task(), None, first=0), "first is 0"),
        (lambda: approximate.coarse_to_fine(task(), keep=0), "share to keep is 0"),
        (lambda: approximate.centroids(task(), None, clusters=0), "0 clusters"),
        (lambda: approximate.aggregation(task(utility="bleu")), "'bleu' cannot be averaged"),
        (lambda: Problem([], ["a"], np.ones(1)), "at least one"),
        (lambda: Problem(["a"], ["a"], np.ones(2) / 2), "2 weights were given for 1"),
        (lambda: approximate.compare_methods([]), "at least one"),
    ],
)
def test_what_cannot_be_decided_is_said_in_one_sentence(call, says):
    with pytest.raises(LabkitError, match=says):
        call()
