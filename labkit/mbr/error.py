"""The error of the Monte Carlo estimate, taken apart into bias and diversity.

MBR estimates the utility of a hypothesis against the unknown reference by its mean over evidence
samples. The squared error of a mean is the mean squared error of its parts minus their variance
(Krogh & Vedelsby 1995). For MBR (Kamigaito et al. 2025, "Diversity Explains Inference Scaling Laws:
Through a Case Study of Minimum Bayes Risk Decoding"), for each hypothesis h with reference y:

    (sum w(r) u(h, r) - u(h, y))^2 = sum w(r) (u(h, r) - u(h, y))^2  -  sum w(r) (u(h, r) - mean)^2
             error                            bias                             diversity

So evidence helps in two ways: each sample close to the reference, and samples unlike each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss
from labkit.mbr.utilities import matrix
from labkit.mbr.weights import distinct, weigh
from labkit.records import Sample

if TYPE_CHECKING:
    from labkit.mbr.study import Case


@dataclass(frozen=True)
class Parts:
    """Means over hypotheses: ``error`` = ``bias`` - ``diversity``, all at least 0."""

    error: float
    bias: float
    diversity: float


def decompose(utility: np.ndarray, weights: np.ndarray, true: np.ndarray) -> Parts:
    """Take the estimate's squared error apart, from utilities (H, R), weights (R,), true ones (H,).

    Raises `LabkitError` where the shapes do not fit, or as `expected_loss`.

    >>> parts = decompose(np.array([[0.2, 0.6]]), np.array([0.5, 0.5]), np.array([0.5]))
    >>> round(parts.error, 3), round(parts.bias, 3), round(parts.diversity, 3)
    (0.01, 0.05, 0.04)
    """
    estimate = expected_loss(utility, weights)  # (H,)
    if np.shape(true) != estimate.shape or not np.isfinite(true).all():
        raise LabkitError(
            f"{np.size(true)} true utilities were given for {len(estimate)} hypotheses; one finite "
            "number for each is needed."
        )
    error = (estimate - true) ** 2
    bias = expected_loss((utility - true[:, None]) ** 2, weights)
    diversity = expected_loss((utility - estimate[:, None]) ** 2, weights)
    return Parts(float(error.mean()), float(bias.mean()), float(diversity.mean()))


def error_of(cases: Iterable[Case], evidence: Iterable[tuple[Sample, ...]] | None = None) -> Parts:
    """Average the parts by chrF over cases; each case's samples are hypotheses and evidence.

    ``evidence`` gives other samples for each case, drawn at another temperature for instance.
    Raises `LabkitError` for no cases.
    """
    listed = list(cases)
    others = [case.samples for case in listed] if evidence is None else list(evidence)
    if not listed or len(others) != len(listed):
        raise LabkitError(f"{len(listed)} cases and {len(others)} evidence sets; give one of each.")
    rows = []
    for case, samples in zip(listed, others, strict=True):
        texts = [one.text for one in distinct(case.samples)]
        items, weights = weigh(samples, "counts")
        values = matrix("chrf", texts, [*(item.text for item in items), case.reference])
        rows.append(astuple(decompose(values[:, :-1], weights, values[:, -1])))
    return Parts(*np.mean(rows, axis=0).tolist())
