from __future__ import annotations

import contextlib
from collections import Counter

import numpy as np
import pytest

from labkit.checks import approximate
from labkit.checks.approximate import pair_f1, pairs_of, spread_evenly


def features(texts):
    """Each occurrence of a pair a feature of its own: (texts, features) of 0 and 1."""
    index, rows = {}, []
    for text in texts:
        row = [(pair, c) for pair, many in pairs_of(text).items() for c in range(many)]
        rows.append([index.setdefault(feature, len(index)) for feature in row])
    table = np.zeros((len(texts), len(index)), np.float32)
    for row, places in enumerate(rows):
        table[row, places] = 1
    return table


def fast(hypotheses, evidence, clip=True, measure="f1"):
    table = features([*hypotheses, *evidence])
    ours, theirs = table[: len(hypotheses)], table[len(hypotheses) :]
    rows, columns = ours.sum(1)[:, None], theirs.sum(1)[None, :]
    shared = ours @ theirs.T
    below = {"f1": (rows + columns) / 2, "precision": rows, "recall": columns}[measure]
    return shared / np.maximum(below, 0.5)


def pair_by_pair(hypotheses, evidence, score=pair_f1):
    return np.array([[score(h, r) for r in evidence] for h in hypotheses])


def unclipped(h, r):
    ours, theirs = pairs_of(h), pairs_of(r)
    return 2 * sum(ours[k] * theirs[k] for k in ours) / max(ours.total() + theirs.total(), 1)


def sets(h, r):
    ours, theirs = set(pairs_of(h)), set(pairs_of(r))
    return 2 * len(ours & theirs) / max(len(ours) + len(theirs), 1)


def half_sets(h, r):
    shared = len(set(pairs_of(h)) & set(pairs_of(r)))
    return 2 * shared / max(pairs_of(h).total() + pairs_of(r).total(), 1)


def nothing_for_nothing(h, r):
    return pair_f1(h, r) if h else float("nan")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda h, r: pair_by_pair(h, r, unclipped), "repetitions are not clipped"),
        (lambda h, r: pair_by_pair(h, r, sets), "repetitions are lost: "),
        (lambda h, r: pair_by_pair(h, r, half_sets), "in what is in common"),
        (lambda h, r: fast(h, r, measure="precision"), "this is precision"),
        (lambda h, r: fast(h, r, measure="recall"), "this is recall"),
        (lambda h, r: fast(h, r) / 2, "F1 is twice that"),
        (lambda h, r: pair_by_pair(h, r, lambda a, b: (pairs_of(a) & pairs_of(b)).total()),
         "numbers of pairs in common"),
        (lambda h, r: fast(h, r) + 0.1, "against"),
        (lambda h, r: pair_by_pair(h, r, nothing_for_nothing), "nan at (0, 0)"),
        (lambda h, r: fast(r, h), "hypotheses, evidence, is needed"),
        (lambda h, r: ..., "returns nothing"),
    ],
)  # fmt: skip
def test_each_wrong_matrix_is_named(wrong, says):
    finding = approximate.fast_utility(wrong, many=20)
    assert not finding.right
    assert says in finding.text


def test_a_fast_utility_is_right_and_a_slow_one_is_told():
    assert approximate.fast_utility(fast, seed=2).right
    twice = approximate.fast_utility(
        lambda h, r: pair_by_pair(h, r) + 0 * pair_by_pair(h, r), many=40
    )
    assert not twice.right
    assert "the values are right, but 40 x 40 texts take" in twice.text


def aggregate(hypotheses, evidence, weights):
    mean = Counter()
    for text, weight in zip(evidence, weights, strict=True):
        for pair, count in pairs_of(text).items():
            mean[pair] += weight * count
    total = sum(mean.values())
    return [
        2 * sum(min(count, mean[pair]) for pair, count in pairs_of(h).items())
        / (pairs_of(h).total() + total)
        for h in hypotheses
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda h, r, w: aggregate(h, r, np.full(len(w), 1 / len(w))), "weights are left out"),
        (lambda h, r, w: aggregate(h, r, np.ones(len(w))), "added up and not averaged"),
        (lambda h, r, w: pair_by_pair(h, r) @ w, "exact expected utility"),
        (lambda h, r, w: 1 - np.array(aggregate(h, r, w)), "these are losses"),
        (lambda h, r, w: np.zeros(len(h)), "average the counts"),
        (lambda h, r, w: np.zeros(3), "one for each hypothesis"),
    ],
)
def test_each_wrong_aggregation_is_named(wrong, says):
    assert approximate.aggregated(aggregate, seed=4, many=4, much=11).right
    finding = approximate.aggregated(wrong)
    assert not finding.right
    assert says in finding.text


def problems(seed=0, count=12):
    """Hypotheses that differ in worth, evidence that differs in what it likes."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        worth = rng.normal(0.5, 0.06, size=(32, 1))
        made.append(np.clip(worth + rng.normal(0, 0.12, size=(32, 48)), 0, 1))
    return made


def halving(many, much, score, budget, rng):
    order = rng.permutation(much)
    rounds, seen = int(np.ceil(np.log2(many))), 0
    left, total = np.arange(many), np.zeros(many)
    for _ in range(rounds):
        new = order[seen : seen + max(1, budget // (rounds * len(left)))]
        total[left] += np.asarray(score(left.tolist(), new.tolist())).sum(axis=1)
        seen += len(new)
        left = left[np.argsort(-total[left], kind="stable")][: (len(left) + 1) // 2]
    return int(left[0])


def greedy_spender(many, much, score, budget, rng):
    with contextlib.suppress(ValueError):
        score(range(many), range(much))
    return 0


def test_a_strategy_that_spends_on_those_in_front_beats_spending_evenly():
    assert approximate.within_budget(halving, problems(), least=0.05).right
    assert approximate.within_budget(spread_evenly, problems(), least=-0.1).right


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (lambda h, r, s, b, g: int(g.integers(h)), "clearly behind"),
        (greedy_spender, "and its budget is 192"),
        (lambda h, r, s, b, g: s(range(h), range(r)).mean(1).argmax(), "its budget is 192"),
        (lambda h, r, s, b, g: 99, "hypotheses are 0 to 31"),
        (lambda h, r, s, b, g: None, "returns nothing"),
    ],
)
def test_each_wrong_strategy_is_named(strategy, says):
    finding = approximate.within_budget(strategy, problems(count=4))
    assert not finding.right
    assert says in finding.text


def test_an_error_of_the_students_own_is_not_taken_for_the_meters():
    with pytest.raises(ValueError, match="my own"):
        approximate.within_budget(own_error, problems(count=1))


def own_error(many, much, score, budget, rng):
    raise ValueError("my own")


def test_a_meter_answers_no_more_than_was_paid_for():
    meter = approximate.Meter(np.eye(3), budget=4)
    assert meter([0, 1], [0, 1]).tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="5 utilities were asked for, of 4"):
        meter([0], [0])
    with pytest.raises(ValueError, match="there are 3 hypotheses"):
        approximate.Meter(np.eye(3), budget=4)([-1], [0])
