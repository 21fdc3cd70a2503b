"""Several answers instead of one: the set of k hypotheses that loses least together.

A reader who is shown k answers takes the one that suits. So a set loses, against each evidence
sample, only what its best member loses:

    risk(S) = sum over r of w(r) min over h in S of L(r, h).

This is the facility location problem. What a set gains over the worst loss is monotone and
submodular, so adding the best hypothesis k times (greedy) gains at least 1 - 1/e = 63% of what the
best set gains (Nemhauser, Wolsey & Fisher 1978). The k best single hypotheses are a poor set: they
are nearly alike. Diverse MBR (Jinnai et al. 2024, "Generating Diverse and High-Quality Texts by
Minimum Bayes Risk Decoding") instead charges a set for how alike its members are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labkit.bootstrap import interval, resampled
from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss
from labkit.mbr.utilities import Utility, matrix
from labkit.mbr.weights import distinct, logprob, weigh
from labkit.records import Weighting

if TYPE_CHECKING:
    from labkit.mbr.study import Case


def set_risk(loss: np.ndarray, weights: np.ndarray, chosen: Sequence[int]) -> float:
    """Compute the expected loss of the best member of ``chosen``; losses (H, R), weights (R,).

    Raises `LabkitError` for an empty set, or as `expected_loss`.

    >>> set_risk(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.5]), [0, 1])
    0.0
    """
    if not len(chosen):
        raise LabkitError("The set is empty; choose at least one hypothesis.")
    best = np.asarray(loss, np.float64)[list(chosen)].min(axis=0, keepdims=True)  # (1, R)
    return float(expected_loss(best, weights)[0])


def best_set(loss: np.ndarray, weights: np.ndarray, size: int) -> tuple[int, ...]:
    """Choose ``size`` hypotheses greedily so that the set's risk is least, the best single first.

    Of hypotheses that add equally much, the one of least own risk is taken, then the first. All are
    taken if there are no more than ``size``. Raises `LabkitError` for a size below 1, or as
    `expected_loss`.

    Two kinds of good answer, and one in between that is best alone:

    >>> loss = np.array([[0.4, 0.4], [0.0, 0.9], [0.9, 0.0]])
    >>> best_set(loss, np.array([0.5, 0.5]), 1), best_set(loss[1:], np.array([0.5, 0.5]), 2)
    ((0,), (0, 1))
    """
    risk = expected_loss(loss, weights)
    covered = np.full(len(weights), np.inf)
    chosen: list[int] = []
    for _ in range(_size(size, len(risk))):
        together = expected_loss(np.minimum(loss, covered), weights)  # (H,)
        together[chosen] = np.inf
        chosen.append(int(np.lexsort((risk, together.round(12)))[0]))
        covered = np.minimum(covered, loss[chosen[-1]])
    return tuple(chosen)


def best_singles(loss: np.ndarray, weights: np.ndarray, size: int) -> tuple[int, ...]:
    """Choose the ``size`` hypotheses of least own risk, the first of equals first."""
    risk = expected_loss(loss, weights)
    return tuple(np.argsort(risk, kind="stable")[: _size(size, len(risk))].tolist())


def diverse_set(
    loss: np.ndarray, weights: np.ndarray, alike: np.ndarray, size: int, diversity: float = 0.5
) -> tuple[int, ...]:
    """Choose greedily for a low sum of risks plus ``diversity`` times the members' likeness.

    ``alike`` (H, H) are the utilities of hypotheses against each other; a new member pays for its
    mean likeness to those already chosen. 0 gives the best single hypotheses. Raises `LabkitError`
    for a diversity below 0 or a size below 1.
    """
    if not 0 <= diversity < np.inf:
        raise LabkitError(f"The diversity is {diversity}; it must be at least 0.")
    risk = expected_loss(loss, weights)
    both = (np.asarray(alike) + np.asarray(alike).T) / 2
    chosen: list[int] = []
    for _ in range(_size(size, len(risk))):
        cost = risk + (diversity * both[:, chosen].mean(axis=1) if chosen else 0)
        cost[chosen] = np.inf
        chosen.append(int(np.argmin(cost)))
    return tuple(chosen)


def _size(size: int, many: int) -> int:
    if size < 1:
        raise LabkitError(f"The size of the set is {size}; it must be at least 1.")
    return min(size, many)


@dataclass(frozen=True)
class SetScore:
    """One way to choose a set, over a test set.

    ``oracle`` is the mean utility, on 0 to 100, of the set's best member against the reference,
    between ``low`` and ``high`` in 95% of resamples; ``gain`` is what it has over the best single
    hypotheses, with its interval; ``risk`` the mean set risk by the samples.
    """

    way: str
    oracle: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    risk: float


WAYS = ("best singles", "best set", "diverse set", "most probable")


def compare_sets(
    cases: Iterable[Case],
    size: int = 3,
    utility: str | Utility = "chrf",
    weighting: Weighting = "counts",
    metric: str | Utility = "chrf",
    diversity: float = 0.5,
    resamples: int = 1000,
) -> list[SetScore]:
    """Compare `WAYS` to choose a set of ``size`` by the oracle score of the set they choose.

    The intervals are from one paired bootstrap of the cases. Raises `LabkitError` for no cases.
    """
    rows = []
    for case in cases:
        hypotheses = distinct(case.samples)
        items, weights = weigh(case.samples, weighting)
        texts = [one.text for one in hypotheses]
        loss = 1 - matrix(utility, texts, [item.text for item in items], case.source)
        likely = sorted(range(len(texts)), key=lambda h: -logprob(hypotheses[h]))[:size]
        alike = matrix(utility, texts, texts, case.source)
        sets = (
            best_singles(loss, weights, size),
            best_set(loss, weights, size),
            diverse_set(loss, weights, alike, size, diversity),
            likely,
        )
        true = 100 * matrix(metric, texts, [case.reference], case.source)[:, 0]
        rows.append([(true[list(one)].max(), set_risk(loss, weights, one)) for one in sets])
    if not rows:
        raise LabkitError("There are no cases to choose sets for; give at least one.")
    score, risk = np.moveaxis(np.array(rows, np.float64), -1, 0)  # (cases, ways) each
    means = score[resampled(len(rows), resamples)].mean(axis=1)  # (B, ways)
    mean, gains = score.mean(axis=0), interval(means - means[:, :1])
    columns = (mean, *interval(means), mean - mean[0], *gains, risk.mean(axis=0))
    listed = np.stack(columns, axis=1).tolist()
    return [SetScore(way, *values) for way, values in zip(WAYS, listed, strict=True)]
