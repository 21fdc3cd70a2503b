from __future__ import annotations

import numpy as np
import pytest

from labkit.checks.verification import certain_drafter, expected_tokens


def rest(x, p):
    left = p.copy()
    left[x] = 0
    return left


def right(x, p, rng):
    if rng.random() < p[x]:
        return x
    left = rest(x, p)
    return rng.choice(len(p), p=left / left.sum())


def unnormalised(x, p, rng):
    if rng.random() < p[x]:
        return x
    return min(int(np.searchsorted(np.cumsum(rest(x, p)), rng.random())), len(p) - 1)


WRONG = {
    "always kept": lambda x, p, rng: x,
    "never comes out": lambda x, p, rng: rng.choice(4, p=rest(x, p) / rest(x, p).sum()),
    "second chance": lambda x, p, rng: x if rng.random() < p[x] else rng.choice(4, p=p),
    "the other way round": lambda x, p, rng: (
        x if rng.random() > p[x] else rng.choice(4, p=rest(x, p) / rest(x, p).sum())
    ),
    "divided by its sum": unnormalised,
    "not one of the 4 tokens": lambda x, p, rng: 4,
    "out comes": lambda x, p, rng: rng.integers(4),
}


def test_the_right_rule_is_right():
    assert certain_drafter(right).right


@pytest.mark.parametrize("says", WRONG)
def test_each_common_mistake_is_named(says):
    finding = certain_drafter(WRONG[says])
    assert not finding.right
    assert says in repr(finding)


@pytest.mark.parametrize("answer", [None, ...])
def test_an_exercise_not_begun_is_no_mistake(answer):
    assert "returns nothing so far" in repr(certain_drafter(lambda x, p, rng: answer))
    assert "returns nothing so far" in repr(expected_tokens(lambda a, k: answer))


def test_both_forms_of_the_formula_are_right():
    assert expected_tokens(lambda a, k: sum(a**i for i in range(k + 1))).right
    assert expected_tokens(lambda a, k: k + 1 if a == 1 else (1 - a ** (k + 1)) / (1 - a)).right


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        (lambda a, k: (1 - a ** (k + 1)) / (1 - a), "divides by zero"),
        (lambda a, k: sum(a**i for i in range(1, k + 1)), "accepted drafts alone"),
        (lambda a, k: 1 + a * k, "only if the first was accepted"),
        (lambda a, k: 1 + a**k, "all drafts are accepted"),
        (lambda a, k: sum(a**i for i in range(k)), "stops a term early"),
        (lambda a, k: 7.0, "the answer is 1.5"),
    ],
)
def test_each_wrong_formula_is_named(formula, says):
    finding = expected_tokens(formula)
    assert not finding.right
    assert says in finding.text
