"""Several answers instead of one: sets that lose least together, and kinds of answer.

A reader who is shown k answers takes the one that suits. So a set loses, against each evidence
sample, only what its best member loses:

    risk(S) = sum over r of w(r) min over h in S of L(r, h).

This is the facility location problem. What a set gains over the worst loss is monotone and
submodular, so adding the best hypothesis k times (greedy) gains at least 1 - 1/e = 63% of what the
best set gains (Nemhauser, Wolsey & Fisher 1978). The k best single hypotheses are a poor set: they
are nearly alike. Diverse MBR (Jinnai et al. 2024, "Generating Diverse and High-Quality Texts by
Minimum Bayes Risk Decoding") instead charges a set for how alike its members are.

Where the good answers differ (two readings of a sentence, yes and no), the text of least risk can
be the average of them all, which pleases nobody. Structure-conditional MBR (Eikema et al. 2025,
"Structure-Conditional Minimum Bayes Risk Decoding") groups the samples and decides within a group.
Here the groups come from the utility itself: average linkage on 1 - utility, cut at a distance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from labkit.bootstrap import against, resampled
from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss, minimiser, score
from labkit.mbr.pairs import Case
from labkit.mbr.uncertainty import Judged, risk_coverage
from labkit.mbr.utilities import Utility, matrix
from labkit.mbr.weights import logprob
from labkit.records import CoveragePoint, RiskTable, Sample, Weighting


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


def compare_sets(
    cases: Iterable[Case],
    size: int = 3,
    utility: str | Utility = "chrf",
    weighting: Weighting = "counts",
    metric: str | Utility = "chrf",
    diversity: float = 0.5,
    resamples: int = 1000,
) -> list[SetScore]:
    """Compare ways to choose a set of ``size`` by the oracle score of the set they choose.

    The intervals are from one paired bootstrap of the cases. Raises `LabkitError` for no cases.
    """
    rows = []
    for case in cases:
        hypotheses, _, weights, loss = score(case.samples, None, utility, case.source, weighting)
        texts = [one.text for one in hypotheses]
        likely = np.argsort([-logprob(one) for one in hypotheses], kind="stable")[:size]
        alike = matrix(utility, texts, texts, case.source)
        sets = {
            "best singles": best_singles(loss, weights, size),
            "best set": best_set(loss, weights, size),
            "diverse set": diverse_set(loss, weights, alike, size, diversity),
            "most probable": tuple(likely.tolist()),
        }
        true = 100 * matrix(metric, texts, [case.reference], case.source)[:, 0]
        of_sets = sets.values()
        rows.append([(true[list(one)].max(), set_risk(loss, weights, one)) for one in of_sets])
    if not rows:
        raise LabkitError("There are no cases to choose sets for; give at least one.")
    best, risk = np.moveaxis(np.array(rows, np.float64), -1, 0)  # (cases, ways) each
    means = best[resampled(len(rows), resamples)].mean(axis=1)  # (B, ways)
    scores = zip(against(best.mean(axis=0), means), risk.mean(axis=0).tolist(), strict=True)
    return [SetScore(way, *[*of, lost]) for way, (of, lost) in zip(sets, scores, strict=True)]


@dataclass(frozen=True)
class Clustered:
    """A decision within the heaviest cluster.

    ``cluster[h]`` numbers each distinct text's cluster, the heaviest 0; ``mass`` is each cluster's
    weight; ``best`` the chosen text, ``plain`` what MBR over all samples chooses; ``risk`` the
    expected loss of each text within its own cluster.
    """

    hypotheses: tuple[Sample, ...]
    cluster: tuple[int, ...]
    mass: tuple[float, ...]
    risk: tuple[float, ...]
    best: int
    plain: int


def cluster_texts(alike: np.ndarray, distance: float) -> np.ndarray:
    """Return the cluster (n,) of each of n texts, from their utilities ``alike`` (n, n).

    Clusters are merged while their mean distance, 1 minus the mean of both utilities of a pair, is
    at most ``distance``. Raises `LabkitError` for a distance outside 0..1.

    >>> cluster_texts(np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]]), 0.5).tolist()
    [0, 0, 1]
    """
    if not 0 <= distance <= 1:
        raise LabkitError(f"The distance is {distance}; it must be from 0 to 1.")
    apart = 1 - (alike + alike.T) / 2
    np.fill_diagonal(apart, 0)
    if len(apart) == 1:
        return np.zeros(1, dtype=int)
    tree = linkage(squareform(np.clip(apart, 0, 1), checks=False), "average")
    number = fcluster(tree, distance + 1e-12, "distance")
    _, first, of = np.unique(number, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[of]  # numbered by first appearance


def decide_in_cluster(samples: Sequence[Sample], distance: float = 0.5) -> Clustered:
    """Decide by MBR, with chrF and counts, within the cluster of samples that weighs most.

    ``distance`` as in `cluster_texts`: 0 makes every text its own cluster (the heaviest text wins),
    1 makes one cluster (plain MBR). Raises `LabkitError` for no samples.
    """
    hypotheses, _, weights, loss = score(samples, weighting="counts")
    of = cluster_texts(1 - loss, distance)
    mass = np.bincount(of, weights)
    order = np.argsort(-mass.round(12), kind="stable")
    of, mass = np.argsort(order)[of], mass[order]
    share = np.where(of[:, None] == of, weights, 0)  # (n, n)
    risk = (loss * share).sum(axis=1) / np.maximum(share.sum(axis=1), np.finfo(float).tiny)
    among = np.flatnonzero(of == 0)
    return Clustered(
        hypotheses,
        cluster=tuple(of.tolist()),
        mass=tuple(mass.tolist()),
        risk=tuple(risk.tolist()),
        best=int(among[minimiser(risk[among])]),
        plain=minimiser(expected_loss(loss, weights)),
    )


POINTS = 50
"""Points of a curve that a record keeps at most."""


def annotate(
    table: RiskTable, size: int = 3, distance: float = 0.5, judged: Judged | None = None
) -> RiskTable:
    """Return ``table`` with a set of ``size`` answers, its clusters, and the curve of ``judged``.

    Raises `LabkitError` as `best_set`, `cluster_texts` and `risk_coverage`.
    """
    texts = [one.text for one in table.hypotheses]
    alike = matrix(table.utility, texts, texts, table.source)
    curve: tuple[CoveragePoint, ...] = ()
    if judged is not None:
        sure = np.array(judged.scores["minimum risk"])
        found = risk_coverage(sure, judged.loss)
        steps = np.unique(np.linspace(0, len(sure) - 1, POINTS).round().astype(int))
        points = np.stack([np.sort(sure)[::-1], found.coverage, found.risk], axis=1)[steps]
        curve = tuple(CoveragePoint(threshold=t, coverage=c, risk=r) for t, c, r in points.tolist())
    return table.model_copy(
        update={
            "chosen_set": best_set(np.array(table.loss), np.array(table.weights), size),
            "clusters": tuple(cluster_texts(alike, distance).tolist()),
            "coverage": curve,
        }
    )
