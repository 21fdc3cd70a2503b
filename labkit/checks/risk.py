"""Checks of the exercises on minimum Bayes risk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding

LOSS = np.array(
    [
        [8.0, 7.0, 7.0, 2.0, 8.0, 4.0],
        [2.0, 7.0, 0.0, 6.0, 9.0, 8.0],
        [7.0, 5.0, 1.0, 6.0, 3.0, 3.0],
        [9.0, 1.0, 9.0, 6.0, 5.0, 0.0],
        [8.0, 7.0, 0.0, 0.0, 2.0, 6.0],
        [3.0, 5.0, 6.0, 1.0, 8.0, 5.0],
    ]
)
P = np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.1])
"""Losses and probabilities for which each common mistake chooses an action of its own."""


def bayes_action(choose: Callable[[NDArray[np.float64], NDArray[np.float64]], int]) -> Finding:
    """Check a function from losses (actions, states) and p (states,) to the best action."""
    answer = choose(LOSS, P)
    if answer is None or isinstance(answer, EllipsisType):
        return NOT_WRITTEN
    risk = LOSS @ P
    if np.ndim(answer) > 0:
        return Finding(False, "it gives a whole array; the answer is one action's index.")
    for right, says in (
        (risk.argmin(), ""),
        (risk.argmax(), "this is the action of greatest risk: loss is to be small, so argmin"),
        ((LOSS.T @ P).argmin(), "the states were summed over as if they were actions: rows of the "
         "loss are actions, so each row is weighed by p"),
        (LOSS.sum(axis=1).argmin(), "the states all weigh the same here: weigh each by its "
         "probability"),
        (LOSS[:, P.argmax()].argmin(), "this looks at the most probable state alone"),
        (LOSS.max(axis=1).argmin(), "this guards against the worst state, whatever its "
         "probability: that is minimax, another rule"),
    ):  # fmt: skip
        if answer == right:
            return Finding(not says, says + "." if says else "the action of least expected loss.")
    return Finding(False, f"it gives {answer!r}, and no action has that index.")


def merged(merge: Callable[[Sequence[str]], Any]) -> Finding:
    """Check a function from drawn texts to the distinct texts and weights that give the same risk.

    Each distinct text weighs its count over the number of draws.
    """
    drawn = ["rain", "sun", "rain", "fog", "rain", "sun"]
    answer = merge(drawn)
    if answer is None or isinstance(answer, EllipsisType):
        return NOT_WRITTEN
    try:
        texts, weights = answer
        by_text = dict(zip(texts, map(float, weights), strict=True))
    except (TypeError, ValueError):
        return Finding(False, "give two things of equal length: the texts, and their weights.")
    if len(by_text) != len(list(texts)):
        return Finding(False, "a text stands there more than once: list each once.")
    if set(by_text) != set(drawn):
        missing = sorted(set(drawn) ^ set(by_text))
        return Finding(False, f"the texts are not those drawn; it is about {missing[0]!r}.")
    right = {text: drawn.count(text) / len(drawn) for text in by_text}
    for looks, says in (
        (right, ""),
        ({text: float(drawn.count(text)) for text in by_text}, "these are the counts: divide them "
         "by the number of draws, so that they sum to 1"),
        (dict.fromkeys(by_text, 1 / len(by_text)), "every distinct text weighs the same, so the "
         "draws of “rain” beyond the first are lost"),
        ({text: drawn.count(text) / len(by_text) for text in by_text}, "this divides by the number "
         "of distinct texts: divide by the number of draws"),
    ):  # fmt: skip
        if all(abs(by_text[text] - looks[text]) < 1e-9 for text in looks):
            good = "risks from these weights are those of the whole list, to the last digit."
            return Finding(not says, f"{says}." if says else good)
    return Finding(False, f"the weights are {by_text}, and should be {right}.")
