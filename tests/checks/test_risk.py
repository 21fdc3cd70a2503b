from __future__ import annotations

import numpy as np
import pytest

from labkit.checks import risk
from labkit.checks.risk import bayes_action, merged


def counted(drawn):
    texts = list(dict.fromkeys(drawn))
    return texts, [drawn.count(text) / len(drawn) for text in texts]


def test_the_right_answers_are_right():
    assert bayes_action(lambda loss, p: (loss @ p).argmin()).right
    assert merged(counted).right


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (lambda loss, p: loss @ p, "whole array"),
        (lambda loss, p: (loss @ p).argmax(), "greatest risk"),
        (lambda loss, p: (loss.T @ p).argmin(), "rows of the loss are actions"),
        (lambda loss, p: loss[:, p.argmax()].argmin(), "most probable state alone"),
        (lambda loss, p: loss.sum(axis=1).argmin(), "weight each by its probability"),
        (lambda loss, p: loss.max(axis=1).argmin(), "minimax"),
        (lambda loss, p: 7, "no action has that index"),
        (lambda loss, p: ..., "returns nothing"),
    ],
)
def test_each_wrong_choice_is_named(choose, says):
    finding = bayes_action(choose)
    assert not finding.right
    assert says in finding.text


@pytest.mark.parametrize(
    ("merge", "says"),
    [
        (lambda drawn: None, "returns nothing"),
        (lambda drawn: drawn, "two things of equal length"),
        (lambda drawn: (drawn, [1 / 6] * 6), "more than once"),
        (lambda drawn: (["rain"], [1.0]), "not those drawn"),
        (lambda drawn: (counted(drawn)[0], [3, 2, 1]), "divide them by the number of draws"),
        (lambda drawn: (counted(drawn)[0], [1 / 3] * 3), "are lost"),
        (lambda drawn: (counted(drawn)[0], [1, 2 / 3, 1 / 3]), "number of distinct texts"),
        (lambda drawn: (counted(drawn)[0], [0.1, 0.2, 0.7]), "should be"),
    ],
)
def test_each_wrong_merge_is_named(merge, says):
    finding = merged(merge)
    assert not finding.right
    assert says in finding.text


def losses(hypotheses, evidence, utility):
    return [[1 - utility(h, r) for r in evidence] for h in hypotheses]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda h, r, u: 1 - np.array(losses(h, r, u)), "these are utilities: a loss"),
        (lambda h, r, u: np.array(losses(h, r, u)).T, "exchanged: hypotheses are rows"),
        (lambda h, r, u: 1 - np.array(losses(h, r, u)).T, "exchanged, and these are"),
        (lambda h, r, u: np.array(losses(r, h, u)).T, "arguments are exchanged"),
        (lambda h, r, u: losses(h, h, u), "compared with each other"),
        (lambda h, r, u: np.array(losses(h, r, u))[:, :2], "it has shape (4, 2)"),
        (lambda h, r, u: np.zeros((4, 6)), "some losses differ"),
        (lambda h, r, u: ..., "returns nothing"),
    ],
)
def test_each_wrong_loss_matrix_is_named(build, says):
    assert risk.losses(losses, seed=3, many=3, much=3).right
    finding = risk.losses(build)
    assert not finding.right
    assert says in finding.text


@pytest.mark.parametrize(
    ("weigh", "says"),
    [
        (lambda loss, w: loss.mean(1), "the weights are left out"),
        (lambda loss, w: loss.sum(1), "added without weights"),
        (lambda loss, w: loss.mean(0), "the mean is over hypotheses"),
        (lambda loss, w: loss[:, :5].T @ w[:5], "exchanged"),
        (lambda loss, w: (loss * w).mean(1), "averaged too"),
        (lambda loss, w: 1 - loss @ w, "these are utilities"),
        (lambda loss, w: loss.max(1), "the worst loss"),
        (lambda loss, w: loss[:, 0], "the sum over r"),
        (lambda loss, w: loss, "one risk for each hypothesis, is needed"),
    ],
)
def test_each_wrong_risk_is_named(weigh, says):
    assert risk.risks(lambda loss, w: loss @ w, seed=2, many=7).right
    finding = risk.risks(weigh)
    assert not finding.right
    assert says in finding.text


def model_weights(drawn, logprobs, shift=True):
    logs = dict(zip(drawn, logprobs, strict=True))
    p = np.array(list(logs.values()))
    p = np.exp(p - p.max()) if shift else np.exp(p)
    with np.errstate(invalid="ignore"):
        return list(logs), p / p.sum()


def twice(drawn, logprobs):
    names, weights = model_weights(drawn, logprobs)
    weights = weights * [drawn.count(name) for name in names]
    return names, weights / weights.sum()


def over_all_draws(drawn, logprobs):
    logs = dict(zip(drawn, logprobs, strict=True))
    return list(logs), np.exp(list(logs.values())) / np.exp(logprobs).sum()


def of(weights):
    return lambda drawn, logprobs: (
        list(dict.fromkeys(drawn)),
        weights(dict(zip(drawn, logprobs, strict=True)), drawn),
    )


WEIGHTS = {
    "counted twice": twice,
    "these are the counts": of(lambda logs, drawn: [drawn.count(t) / len(drawn) for t in logs]),
    "all weigh the same": of(lambda logs, drawn: [1 / len(logs)] * len(logs)),
    "do not sum to 1": of(lambda logs, drawn: np.exp(list(logs.values()))),
    "take exp first": of(lambda logs, drawn: np.array([*logs.values()]) / sum(logs.values())),
    "sum over distinct texts": over_all_draws,
    "subtract the largest": lambda drawn, logs: model_weights(drawn, logs, shift=False),
    "a weight is exp": of(lambda logs, drawn: np.eye(len(logs))[0]),
    "would count twice": lambda drawn, logs: (drawn, [1 / len(drawn)] * len(drawn)),
    "not those drawn": lambda drawn, logs: (drawn[:1], [1.0]),
    "two lists": lambda drawn, logs: drawn,
    "returns nothing": lambda drawn, logs: None,
}


@pytest.mark.parametrize("says", WEIGHTS)
def test_each_wrong_weighting_is_named(says):
    assert risk.model_weights(model_weights, seed=5, drawn=9).right
    finding = risk.model_weights(WEIGHTS[says])
    assert not finding.right
    assert says in finding.text


def choose(drawn, utility, power=1):
    names = list(dict.fromkeys(drawn))
    weights = np.array([drawn.count(name) ** power for name in names])
    matrix = np.array([[utility(h, r) for r in names] for h in names])
    return names[(matrix @ weights).argmax()]


def worst(drawn, utility):
    return choose(drawn, lambda h, r: -utility(h, r))


CHOICES = {
    "counted twice": lambda drawn, u: choose(drawn, u, power=2),
    "duplicates are lost": lambda drawn, u: choose(drawn, u, power=0),
    "drawn most often": lambda drawn, u: max(drawn, key=drawn.count),
    "greatest risk": worst,
    "arguments are exchanged": lambda drawn, u: choose(drawn, lambda h, r: u(r, h)),
    "another text has less risk": lambda drawn, u: "something else",
    "int and not one of the texts": lambda drawn, u: 3,
    "returns nothing": lambda drawn, u: ...,
}


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("says", CHOICES)
def test_each_wrong_decision_is_named(says, seed):
    assert risk.decision(choose, seed=seed, drawn=20).right
    finding = risk.decision(CHOICES[says], seed=seed)
    assert not finding.right
    assert says in finding.text
