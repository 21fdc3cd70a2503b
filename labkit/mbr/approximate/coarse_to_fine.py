"""Coarse to fine (Eikema & Aziz 2022): a cheap utility chooses who is worth the dear one.

"Sampling-Based Approximations to Minimum Bayes Risk Decoding for Neural Machine Translation":
rank all hypotheses by their risk under a proxy, score only the best few with the utility itself.
"""

from __future__ import annotations

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.approximate.problem import Decision, Problem, answer
from labkit.mbr.decide import expected_loss
from labkit.mbr.utilities import Utility, matrix


def coarse_to_fine(task: Problem, proxy: str | Utility = "f1", keep: float = 0.25) -> Decision:
    """Decide among the share ``keep`` of hypotheses (at least one) that the ``proxy`` ranks best.

    The proxy's comparisons are counted as cheap. Raises `LabkitError` for a share outside 0..1.
    """
    if not 0 < keep <= 1:
        raise LabkitError(f"The share to keep is {keep}; it must be above 0 and at most 1.")
    coarse = 1 - matrix(proxy, task.hypotheses, task.evidence, task.source)
    ranked = np.argsort(expected_loss(coarse, task.weights), kind="stable")
    kept = np.sort(ranked[: max(1, int(keep * len(ranked)))])
    risk = np.full(len(ranked), np.nan)
    risk[kept] = expected_loss(task.loss(kept, range(len(task.evidence))), task.weights)
    return answer(task, risk, among=kept, cheap=coarse.size)
