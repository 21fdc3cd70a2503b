"""Structure-conditional MBR: find the kinds of answer first, then decide within the best one.

Where several good answers differ (two readings of a sentence, yes and no), the text of least risk
can be the average of them all, which pleases nobody. Structure-conditional MBR (Eikema et al. 2025,
"Structure-Conditional Minimum Bayes Risk Decoding") groups the samples and decides within a group.
Here the groups come from the utility itself: average linkage on 1 - utility, cut at a distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss, minimiser
from labkit.mbr.utilities import matrix
from labkit.mbr.weights import weigh
from labkit.records import Sample


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
    texts, weights = weigh(samples, "counts")
    listed = [one.text for one in texts]
    loss = 1 - matrix("chrf", listed, listed)
    of = cluster_texts(1 - loss, distance)
    mass = np.bincount(of, weights)
    order = np.argsort(-mass.round(12), kind="stable")
    of, mass = np.argsort(order)[of], mass[order]
    inside = of[:, None] == of[None, :]
    share = np.where(inside, weights, 0)  # (n, n)
    total = np.maximum(share.sum(axis=1), np.finfo(float).tiny)
    risk = (loss * share).sum(axis=1) / total
    among = np.flatnonzero(of == 0)
    return Clustered(
        texts,
        tuple(of.tolist()),
        tuple(mass.tolist()),
        tuple(risk.tolist()),
        int(among[np.argmin(risk[among])]),
        minimiser(expected_loss(loss, weights)),
    )
