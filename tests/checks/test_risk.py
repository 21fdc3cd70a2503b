from __future__ import annotations

import pytest

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
        (lambda loss, p: loss.sum(axis=1).argmin(), "weigh each by its probability"),
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
