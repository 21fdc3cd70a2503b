"""The decision: the hypothesis with the least expected loss under the evidence.

h* = argmin over h in H(x) of the sum over r of w(r) L(r, h), with L = 1 - utility.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.utilities import Utility, matrix, name_of
from labkit.mbr.weights import distinct, weigh
from labkit.records import RiskTable, Sample, Weighting


def expected_loss(loss: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the risk of each hypothesis, (H,), from losses (H, R) and weights (R,).

    Equal rows of losses give equal risks to the last bit, so ties stay ties.
    Raises `LabkitError` where the weights are not one for each evidence item, or do not sum to 1.

    >>> expected_loss(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0.25, 0.75]))
    array([0.75, 0.5 ])
    """
    loss, weights = np.asarray(loss, np.float64), np.asarray(weights, np.float64)
    if loss.ndim != 2 or not loss.size:
        raise LabkitError(
            f"The losses have shape {loss.shape}; a row for each of at least one hypothesis and "
            "a column for each of at least one evidence item are needed."
        )
    if weights.shape != loss.shape[1:]:
        raise LabkitError(
            f"{weights.size} weights were given for {loss.shape[1]} evidence items; one for each "
            "is needed."
        )
    if not (np.all(weights >= 0) and abs(weights.sum() - 1) < 1e-6):
        raise LabkitError(
            f"The weights sum to {weights.sum():.6f} with {weights.min():.6f} the least; "
            "they must be at least 0 and sum to 1."
        )
    if not np.all(np.isfinite(loss)):
        raise LabkitError("A loss is not a finite number; every pair needs one.")
    return (loss * weights).sum(axis=1)  # row by row in one order, which a BLAS does not promise


def minimiser(risk: np.ndarray) -> int:
    """Return the first index of the least risk."""
    return int(np.argmin(risk))


def score(
    hypotheses: Sequence[Sample],
    evidence: Sequence[Sample] | None = None,
    utility: str | Utility = "chrf",
    source: str = "",
    weighting: Weighting = "uniform",
    temperature: float = 1.0,
    weights: np.ndarray | None = None,
) -> tuple[tuple[Sample, ...], tuple[Sample, ...], np.ndarray, np.ndarray]:
    """Return distinct hypotheses, the evidence, its weights (R,) and all losses (H, R).

    The arguments are those of `decode`, and the ``temperature`` of ``model`` weights.
    """
    candidates = distinct(hypotheses)
    items = tuple(hypotheses if evidence is None else evidence)
    if weights is None:
        items, weights = weigh(items, weighting, temperature)
    texts = [one.text for one in candidates], [item.text for item in items]
    return candidates, items, np.asarray(weights), 1 - matrix(utility, *texts, source)


def choose(
    hypotheses: Sequence[Sample],
    evidence: Sequence[Sample] | None = None,
    *,
    utility: str | Utility = "chrf",
    weighting: Weighting = "uniform",
    temperature: float = 1.0,
    source: str = "",
) -> Sample:
    """Return the hypothesis that `decode` decides for, without the record of how.

    ``temperature`` is that of ``model`` weights (see `labkit.mbr.weights.weigh`).
    """
    candidates, _, weights, loss = score(
        hypotheses, evidence, utility, source, weighting, temperature
    )
    return candidates[minimiser(expected_loss(loss, weights))]


def decode(
    hypotheses: Sequence[Sample],
    evidence: Sequence[Sample] | None = None,
    *,
    utility: str | Utility = "chrf",
    weighting: Weighting = "uniform",
    weights: np.ndarray | None = None,
    base: str = "",
    source: str = "",
    reference: str | None = None,
    seed: int | None = None,
) -> RiskTable:
    """Make one minimum-Bayes-risk decision, scoring every pair of hypothesis and evidence.

    Args:
        hypotheses: the candidates, drawn or searched for; equal texts are listed once.
        evidence: samples that stand for p(y|x); the hypotheses themselves where none are given.
        utility: a name in `labkit.mbr.utilities.UTILITIES`, or a function like those.
        weighting: how the evidence is weighed (see `labkit.mbr.weights.weigh`).
        weights: one for each evidence item as it is listed, in place of ``weighting``'s own, such
            as those of `labkit.mbr.weights.pool`, or of `weigh` at a temperature.
        base, source, reference, seed: noted in the record as they are given.

    Raises `LabkitError` where there are no hypotheses or the samples cannot be weighed.

    >>> drawn = [Sample(text=text) for text in ("a cat sat", "a cat sat", "the dog", "a cat ran")]
    >>> table = decode(drawn)
    >>> table.hypotheses[table.best].text
    'a cat sat'
    """
    started = time.perf_counter()
    candidates, items, weights, loss = score(
        hypotheses, evidence, utility, source, weighting, weights=weights
    )
    risk = expected_loss(loss, weights)
    return RiskTable(
        base=base,
        source=source,
        utility=name_of(utility),
        weighting=weighting,
        hypotheses=candidates,
        evidence=items,
        weights=tuple(weights.tolist()),
        loss=tuple(map(tuple, loss.tolist())),
        risk=tuple(risk.tolist()),
        best=minimiser(risk),
        reference=reference,
        seed=seed,
        seconds=time.perf_counter() - started,
    )
