"""The bootstrap: how far a figure over some cases is a matter of which cases were drawn.

Cases are drawn anew with replacement, many times, and the figure computed on each draw; the middle
95% of these figures is its interval. Systems compared on the same draws are compared in pairs, so
that what is hard for all of them cancels (Koehn 2004).
"""

from __future__ import annotations

from typing import Any

import numpy as np

RESAMPLES = 1000


def resampled(cases: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Draw test sets with replacement, as numbers of cases, like sacrebleu does: (B, cases)."""
    return np.random.default_rng(12345).choice(cases, size=(resamples, cases), replace=True)


def interval(values: np.ndarray) -> Any:
    """Return the bounds of 95% of resampled ``values`` (B, ...): (2, ...)."""
    return np.percentile(values, [2.5, 97.5], axis=0)


def against(values: np.ndarray, drawn: np.ndarray, baseline: int = 0) -> list[list[float]]:
    """Return each figure (n,), its bounds, its gain over the baseline's, and the gain's: n times 6.

    ``values`` (n,) are the figures on all cases, ``drawn`` (B, n) those on each draw of them.
    """
    gain, gains = values - values[baseline], drawn - drawn[:, [baseline]]
    return np.stack([values, *interval(drawn), gain, *interval(gains)], axis=1).tolist()


def ratio(ours: Any, theirs: Any) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two means over the same cases (n,), and the bounds of 95% of draws.

    >>> ratio([2.0, 4.0], [1.0, 2.0])
    (2.0, (2.0, 2.0))
    """
    both = np.array([ours, theirs], np.float64)  # (2, n)
    means = both[:, resampled(both.shape[1])].mean(axis=2)  # (2, B)
    low, high = interval(means[0] / means[1]).tolist()
    whole = both.mean(axis=1)
    return float(whole[0] / whole[1]), (low, high)
