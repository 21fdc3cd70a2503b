"""Low-rank completion (Trabelsi et al. 2024): score some pairs, guess the rest of the matrix.

"Efficient Minimum Bayes Risk Decoding using Low-Rank Matrix Completion Algorithms": matrices of
utilities are nearly of low rank (good hypotheses are good against almost all evidence), so a few
entries of each row determine the others.
"""

from __future__ import annotations

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.approximate.problem import Decision, Problem, answer
from labkit.mbr.decide import expected_loss


def low_rank(task: Problem, rng: np.random.Generator, budget: float = 0.25) -> Decision:
    """Decide after scoring about the share ``budget`` of all pairs, drawn evenly from every row.

    The matrix is then completed to one of rank 4. Pairs of equal texts are scored as well but
    kept out of the fit: a text has no loss against itself, which no matrix of low rank can follow.
    Raises `LabkitError` for a budget outside 0..1.
    """
    if not 0 < budget <= 1:
        raise LabkitError(f"The budget is {budget}; it must be above 0 and at most 1.")
    many, much = len(task.hypotheses), len(task.evidence)
    each = max(1, round(budget * much))
    drawn = np.stack([rng.permutation(much) < each for _ in range(many)])  # (H, R)
    equal = np.array([[one == other for other in task.evidence] for one in task.hypotheses])
    loss = np.zeros((many, much))
    for h, columns in enumerate(drawn | equal):
        loss[h, columns] = task.loss([h], np.flatnonzero(columns))[0]
    fitted = drawn & ~equal
    guess = complete(loss, fitted, rng) if fitted.any() else loss
    return answer(task, expected_loss(np.where(drawn | equal, loss, guess), task.weights))


def complete(
    values: np.ndarray,
    known: np.ndarray,
    rng: np.random.Generator,
    rank: int = 4,
    penalty: float = 0.3,
    rounds: int = 15,
) -> np.ndarray:
    """Fit a matrix of ``rank`` plus its mean to ``values`` (H, R) where ``known``, on 0..1.

    Alternating least squares: with the right factors fixed every row is a ridge regression on its
    known entries, and the other way round.
    """
    mean = values[known].mean()
    centred = np.where(known, values - mean, 0)
    right = rng.normal(scale=rank**-0.5, size=(values.shape[1], rank))  # (R, K)
    for _ in range(rounds):
        left = _regress(centred, known, right, penalty)  # (H, K)
        right = _regress(centred.T, known.T, left, penalty)
    return np.clip(mean + left @ right.T, 0, 1)


def _regress(
    values: np.ndarray, known: np.ndarray, factors: np.ndarray, penalty: float
) -> np.ndarray:
    """Regress each row on the ``factors`` (R, K) of its known entries, with a penalty: (H, K)."""
    squares = np.einsum("hr,ri,rj->hij", known.astype(float), factors, factors, optimize=True)
    squares += penalty * np.eye(factors.shape[1])
    return np.linalg.solve(squares, (values @ factors)[..., None])[..., 0]
