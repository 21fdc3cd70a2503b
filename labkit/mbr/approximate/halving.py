"""Sequential halving (Jinnai & Ariu 2024): the worse half goes, round after round.

"Hyperparameter-Free Approach for Faster Minimum Bayes Risk Decoding": a budget of utility calls is
shared equally by ceil(log2 H) rounds. In a round all remaining hypotheses are scored against the
same new evidence, as much as the budget allows, and the worse half is dropped. Scoring against the
same evidence makes their estimates err together, so that differences are surer than levels
(Baharav & Tse 2019).
"""

from __future__ import annotations

import math

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.approximate.problem import Decision, Problem, answer


def halving(task: Problem, rng: np.random.Generator, budget: float = 0.25) -> Decision:
    """Decide with about ``budget`` of the exact decision's calls.

    What a round scored stays in the averages of the next, so later estimates rest on more
    evidence. Raises `LabkitError` for a budget outside 0..1.
    """
    if not 0 < budget <= 1:
        raise LabkitError(f"The budget is {budget}; it must be above 0 and at most 1.")
    many, much = len(task.hypotheses), len(task.evidence)
    rounds = max(1, math.ceil(math.log2(many)))
    order = task.order(rng)
    left = np.arange(many)
    risk, total = np.full(many, np.nan), np.zeros(many)
    seen = 0
    for _ in range(rounds):
        new = order[seen : seen + max(1, int(budget * many * much / (rounds * len(left))))]
        if len(new):
            total[left] += (task.loss(left, new) * task.weights[new]).sum(axis=1)
        seen += len(new)
        risk[left] = total[left] / task.weights[order[:seen]].sum()
        ranked = left[np.argsort(risk[left], kind="stable")]
        left = np.sort(ranked[: math.ceil(len(left) / 2)])
    return answer(task, risk, among=left)
