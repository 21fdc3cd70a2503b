"""Utilities: how good a hypothesis is if an evidence sample were the reference.

Every utility is a function of two lists of texts to a matrix (H, R) on 0..1, entry [h, r] the
utility of hypothesis h against evidence sample r. To add one, write such a function and name it in
`UTILITIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.utilities.learned import Utility, comet, cosine
from labkit.mbr.utilities.lexical import bleu, chrf, edit, exact, overlap, ter

UTILITIES: dict[str, Utility] = {
    "bleu": bleu,
    "chrf": chrf,
    "chrf++": partial(chrf, with_words=True),
    "edit": edit,
    "exact": exact,
    "f1": partial(overlap, measure="f1"),
    "precision": partial(overlap, measure="precision"),
    "recall": partial(overlap, measure="recall"),
    "ter": ter,
}
"""Those that need nothing but the two texts."""

OPTIONAL: dict[str, Callable[[str], Utility]] = {"comet": comet, "embedding": lambda source: cosine}
"""Those that need a model of their own, made for a source."""

__all__ = ["OPTIONAL", "UTILITIES", "Utility", "get", "matrix", "name_of"]


def get(utility: str | Utility, source: str = "") -> Utility:
    """Return the utility of that name, or the given function itself.

    ``source`` is the text that the hypotheses come from, for those that read it. Raises
    `LabkitError` naming the known ones where there is none of that name, or saying what to
    install.
    """
    if callable(utility):
        return utility
    if utility in OPTIONAL:
        return OPTIONAL[utility](source)
    if utility not in UTILITIES:
        known = ", ".join([*UTILITIES, *OPTIONAL])
        raise LabkitError(f"No utility is named {utility!r}; there are {known}.")
    return UTILITIES[utility]


def name_of(utility: str | Utility) -> str:
    """Return a utility's name for records and tables."""
    return utility if isinstance(utility, str) else getattr(utility, "__name__", repr(utility))


def matrix(
    utility: str | Utility, hypotheses: Sequence[str], evidence: Sequence[str], source: str = ""
) -> np.ndarray:
    """Score every hypothesis against every evidence sample, and check: (H, R) on 0..1.

    Equal texts are scored once. Raises `LabkitError` where there is nothing to score, or where
    the utility gives another shape, a value that is not finite, or one outside 0..1.
    """
    if not hypotheses or not evidence:
        raise LabkitError(
            f"{len(hypotheses)} hypotheses and {len(evidence)} evidence samples were given; "
            "a utility needs at least one of each."
        )
    rows, row_of = _distinct(hypotheses)
    columns, column_of = _distinct(evidence)
    values = np.asarray(get(utility, source)(rows, columns), dtype=np.float64)
    if values.shape != (len(rows), len(columns)):
        raise LabkitError(
            f"The utility {name_of(utility)} gave a matrix of shape {values.shape} for "
            f"{len(rows)} hypotheses and {len(columns)} evidence samples; "
            "it must give one row a hypothesis and one column an evidence sample."
        )
    if not np.all((values > -1e-6) & (values < 1 + 1e-6)):  # NaN fails both comparisons
        raise LabkitError(
            f"The utility {name_of(utility)} gave values from {values.min()} to {values.max()}; "
            "they must lie between 0 and 1."
        )
    return np.clip(values, 0, 1)[np.ix_(row_of, column_of)]


def _distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return distinct texts in order of first appearance, and each text's place among them."""
    place: dict[str, int] = {}
    places = [place.setdefault(text, len(place)) for text in texts]
    return list(place), places
