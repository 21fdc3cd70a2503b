"""Risk as uncertainty: how sure a decision is, when to abstain, and what abstaining gains.

The expected loss of the chosen text says how much the samples disagree with it. So one minus it is
a confidence score that costs nothing extra. A score is good if the decisions that it trusts least
are the worst ones: answer only the most confident share of sources (the coverage), and the mean
loss over those (the selective risk) should fall. The area under that risk-coverage curve sums it up
in one number; lower is better (El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017).

Where a reference is known, the error of the risk's Monte Carlo estimate can be taken apart into
bias and diversity (`decompose`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.bootstrap import against, resampled
from labkit.errors import LabkitError
from labkit.mbr.decide import decode, expected_loss
from labkit.mbr.pairs import Case
from labkit.mbr.utilities import Utility, matrix
from labkit.mbr.weights import distinct, weigh
from labkit.records import RiskTable, Sample, Weighting

Numbers = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A risk-coverage curve: the mean loss over the surest share of decisions, both (n,)."""

    coverage: np.ndarray
    risk: np.ndarray

    @property
    def area(self) -> float:
        """The mean selective risk over all n coverages; lower is better."""
        return float(self.risk.mean())


@dataclass(frozen=True)
class Area:
    """The area under one score's curve, and how much lower it is than the ``minimum risk``'s.

    ``low`` and ``high`` bound the area in 95% of bootstrap resamples of the cases; ``excess`` is
    the area minus that of the first score, ``excess_low`` and ``excess_high`` its bounds.
    """

    score: str
    area: float
    low: float
    high: float
    excess: float
    excess_low: float
    excess_high: float


def confidences(table: RiskTable) -> dict[str, float]:
    """Return every confidence score of one decision; higher means surer.

    ``minimum risk`` is one minus the least risk. ``log-probability`` is log p of the chosen text,
    also ``per token``; each needs the chosen text's log-probability, and its tokens. ``random`` is
    the baseline: the same for every decision, so that chance decides which to answer.

    >>> from labkit.records import Sample
    >>> table = decode([Sample(text="a cat", count=3, logprob=-1.0, tokens=2), Sample(text="dogs")])
    >>> [(name, round(value, 3)) for name, value in confidences(table).items()][:2]
    [('minimum risk', 0.75), ('log-probability', -1.0)]
    """
    chosen = table.hypotheses[table.best]
    found = {"minimum risk": 1 - table.risk[table.best]}
    if chosen.logprob is not None:
        found["log-probability"] = chosen.logprob
        if chosen.tokens is not None:
            found["log-probability per token"] = chosen.logprob / max(chosen.tokens, 1)
    return {**found, "random": 0.0}


def risk_coverage(confidence: Numbers, loss: Numbers) -> Curve:
    """Compute the mean loss over the k most confident decisions, for k = 1 to n.

    Decisions of equal confidence enter in random order; the curve is the expectation over it, so
    their order in the list does not matter. Raises `LabkitError` for no decisions, lists of unequal
    length, or a number that is not finite.

    >>> risk_coverage([0.9, 0.1, 0.5], [0.0, 0.6, 0.3]).risk.round(2)
    array([0.  , 0.15, 0.3 ])
    """
    sure, lost = np.asarray(confidence, np.float64), np.asarray(loss, np.float64)
    if not sure.size or sure.shape != lost.shape or sure.ndim != 1:
        raise LabkitError(
            f"{sure.size} confidences and {lost.size} losses were given; a risk-coverage curve "
            "needs one of each for every decision, and at least one decision."
        )
    if not (np.isfinite(sure).all() and np.isfinite(lost).all()):
        raise LabkitError(
            "A confidence or a loss is not a finite number; every decision needs one."
        )
    _, of = np.unique(-sure, return_inverse=True)  # the surest group is 0
    mean = np.bincount(of, lost) / np.bincount(of)
    count = np.arange(1, len(lost) + 1)
    return Curve(count / len(lost), np.cumsum(mean[np.sort(of)]) / count)


def answered(confidence: Sequence[float], threshold: float) -> np.ndarray:
    """Return which decisions to answer, (n,) booleans: those at least as sure as ``threshold``."""
    return np.asarray(confidence, np.float64) >= threshold


def threshold_for(confidence: Sequence[float], loss: Sequence[float], most: float) -> float:
    """Return the lowest threshold whose answered decisions lose at most ``most`` on average.

    It is infinite (abstain always) where no coverage reaches that. Choose it on other cases than
    those it is used for.
    """
    curve = risk_coverage(confidence, loss)
    ranked = np.sort(np.asarray(confidence, np.float64))[::-1]
    whole = np.append(ranked[1:] != ranked[:-1], True)  # coverages that split no equal decisions
    allowed = np.flatnonzero(whole & (curve.risk <= most + 1e-12))
    return float(ranked[allowed[-1]]) if len(allowed) else math.inf


def compare_areas(
    scores: Mapping[str, Sequence[float]], loss: Sequence[float], resamples: int = 1000
) -> list[Area]:
    """Return the area of every score, with 95% intervals from one paired bootstrap of the cases.

    Every score is compared with the first. Raises `LabkitError` for no scores, or as
    `risk_coverage`.
    """
    if not scores:
        raise LabkitError("No confidence score was given to compare; give at least one.")
    lost = np.asarray(loss, np.float64)
    arrays = [np.asarray(values, np.float64) for values in scores.values()]
    areas = np.array([risk_coverage(values, lost).area for values in arrays])
    chosen = resampled(len(lost), resamples)
    drawn = [[risk_coverage(values[row], lost[row]).area for values in arrays] for row in chosen]
    rows = zip(scores, against(areas, np.array(drawn)), strict=True)
    return [Area(name, *figures) for name, figures in rows]


@dataclass(frozen=True)
class Judged:
    """Decisions on a test set: ``scores[name]`` and the true ``loss`` have a value for each."""

    scores: dict[str, list[float]]
    loss: list[float]


def judge(
    cases: Iterable[Case],
    utility: str | Utility = "chrf",
    weighting: Weighting = "counts",
    metric: str | Utility = "chrf",
) -> Judged:
    """Decide every case, and note how sure each score is and what the decision really loses.

    The true loss is one minus ``metric`` of the chosen text against the case's reference.
    Raises `LabkitError` for no cases, or where some samples lack what a score needs.
    """
    found: list[dict[str, float]] = []
    loss: list[float] = []
    for case in cases:
        table = decode(case.samples, utility=utility, weighting=weighting, source=case.source)
        found.append(confidences(table))
        chosen = table.hypotheses[table.best].text
        loss.append(1 - float(matrix(metric, [chosen], [case.reference], case.source)[0, 0]))
    if not found:
        raise LabkitError("There are no cases to decide; give at least one.")
    names = [name for name in found[0] if all(name in one for one in found)]
    return Judged({name: [one[name] for one in found] for name in names}, loss)


@dataclass(frozen=True)
class Parts:
    """Means over hypotheses: ``error`` = ``bias`` - ``diversity``, all at least 0."""

    error: float
    bias: float
    diversity: float


def decompose(utility: np.ndarray, weights: np.ndarray, true: np.ndarray) -> Parts:
    """Take the estimate's squared error apart, from utilities (H, R), weights (R,), true ones (H,).

    The squared error of a mean is the mean squared error of its parts minus their variance (Krogh &
    Vedelsby 1995). For MBR (Kamigaito et al. 2025, "Diversity Explains Inference Scaling Laws:
    Through a Case Study of Minimum Bayes Risk Decoding"), for a hypothesis h with reference y::

        (sum w(r) u(h, r) - u(h, y))^2                                              error
            = sum w(r) (u(h, r) - u(h, y))^2  -  sum w(r) (u(h, r) - mean)^2        bias - diversity

    So evidence helps in two ways: each sample close to the reference, and samples unlike each
    other.

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
