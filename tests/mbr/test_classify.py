"""Bayes risk on a page."""

import pytest

from labkit.errors import LabkitError
from labkit.mbr.classify import bayes_action, zero_one

ACTIONS, CLASSES = ["treat", "wait"], ["ill", "healthy"]
LOSS = [[0.0, 0.2], [1.0, 0.0]]


@pytest.mark.parametrize(("ill", "best"), [(0.1, "wait"), (0.3, "treat"), (0.9, "treat")])
def test_a_dear_mistake_is_avoided_long_before_it_is_likely(ill, best):
    # treating costs 0.2 (1 - p), waiting p: treat above p = 1/6
    table = bayes_action(ACTIONS, CLASSES, [ill, 1 - ill], LOSS)
    assert table.hypotheses[table.best].text == best
    assert table.risk == pytest.approx((0.2 * (1 - ill), ill))


def test_under_zero_one_loss_the_most_probable_class_wins():
    names = ["x", "y", "z"]
    table = bayes_action(names, names, [0.25, 0.45, 0.3], zero_one(names))
    assert table.hypotheses[table.best].text == "y"
    assert table.risk == pytest.approx((0.75, 0.55, 0.7))


def test_a_class_without_probability_is_allowed():
    assert bayes_action(ACTIONS, CLASSES, [0.0, 1.0], LOSS).best == 1


@pytest.mark.parametrize(
    ("posterior", "loss", "says"),
    [
        ([0.5, 0.5], [[0, 1]], "2 rows"),
        ([0.5, 0.5], [[0, 1], [1]], "2 rows"),
        ([0.5, 0.5], [[0, 1], [1, 7]], "divide them by the largest"),
        ([0.5, 0.6], LOSS, "sum to 1.1"),
        ([1.0], LOSS, "1 weights were given for 2"),
    ],
)
def test_what_does_not_fit_together_is_said_in_one_sentence(posterior, loss, says):
    with pytest.raises(LabkitError, match=says):
        bayes_action(ACTIONS, CLASSES, posterior, loss)
