"""A risk table filled in with what is beyond one answer: a set, clusters, a test set's curve."""

from __future__ import annotations

import numpy as np

from labkit.mbr.clusters import cluster_texts
from labkit.mbr.sets import best_set
from labkit.mbr.uncertainty import Judged, risk_coverage
from labkit.mbr.utilities import matrix
from labkit.records import CoveragePoint, RiskTable

POINTS = 50
"""Points of a curve that a record keeps at most."""


def annotate(
    table: RiskTable, size: int = 3, distance: float = 0.5, judged: Judged | None = None
) -> RiskTable:
    """Return ``table`` with a set of ``size`` answers, its clusters, and the curve of ``judged``.

    Raises `LabkitError` as `best_set`,
    `cluster_texts` and `risk_coverage`.
    """
    texts = [one.text for one in table.hypotheses]
    alike = matrix(table.utility, texts, texts, table.source)
    curve: tuple[CoveragePoint, ...] = ()
    if judged is not None:
        sure = np.array(judged.scores["minimum risk"])
        found = risk_coverage(sure, judged.loss)
        threshold = np.sort(sure)[::-1]
        steps = np.unique(np.linspace(0, len(sure) - 1, POINTS).round().astype(int))
        curve = tuple(
            CoveragePoint(threshold=t, coverage=c, risk=r)
            for t, c, r in np.stack([threshold, found.coverage, found.risk], 1)[steps].tolist()
        )
    return table.model_copy(
        update={
            "chosen_set": best_set(np.array(table.loss), np.array(table.weights), size),
            "clusters": tuple(cluster_texts(alike, distance).tolist()),
            "coverage": curve,
        }
    )
