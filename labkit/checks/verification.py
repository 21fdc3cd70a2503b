"""Checks of the exercises on accepting and rejecting drafts."""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from labkit.checks import NOT_WRITTEN, Finding

Rule = Callable[[int, NDArray[np.float64], np.random.Generator], int]
"""From a draft that its drafter was certain of, and p (V,), to the token that is written."""

P = np.array([0.4, 0.3, 0.2, 0.1])
DRAFT = 1
DRAWS = 4000


def certain_drafter(rule: Rule) -> Finding:
    """Check a rule for a drafter that is certain (q is 1 on its draft, 0 elsewhere), by its output.

    The right rule keeps the draft x with probability p(x), and else draws from p without x, so
    that what comes out is distributed as p.
    """
    generator = np.random.default_rng(0)
    first = rule(DRAFT, P, generator)
    if first is None or isinstance(first, EllipsisType):
        return NOT_WRITTEN
    written = [rule(DRAFT, P, generator) for _ in range(DRAWS)]
    strange = next((token for token in written if token not in range(len(P))), None)
    if strange is not None:
        return Finding(False, f"it wrote {strange!r}, which is not one of the {len(P)} tokens.")
    share = np.bincount(np.array(written, int), minlength=len(P)) / DRAWS
    name = min(LOOKS, key=lambda name: float(np.abs(LOOKS[name] - share).sum()))
    if np.abs(LOOKS[name] - share).sum() > TOLERANCE:
        return Finding(
            False,
            f"out comes {_listed(share)}, where p is {_listed(P)}: with probability p(x) keep x, "
            "else draw from p without x.",
        )
    return Finding(name == "p", SAYS[name])


def _without(p: NDArray[np.float64], token: int) -> NDArray[np.float64]:
    left = p.copy()
    left[token] = 0
    return left / left.sum()


def _listed(shares: NDArray[np.float64]) -> str:
    return ", ".join(f"{share:.2f}" for share in shares)


TOLERANCE = 0.06
"""Sum of differences that 4,000 draws stay under, but for one time in 10,000 or so."""

ONE = np.eye(len(P))[DRAFT]
LOOKS = {
    "p": P,
    "always": ONE,
    "never": _without(P, DRAFT),
    "from p": P[DRAFT] * ONE + (1 - P[DRAFT]) * P,
    "turned": (1 - P[DRAFT]) * ONE + P[DRAFT] * _without(P, DRAFT),
    "last": P[DRAFT] * ONE
    + (1 - P[DRAFT]) * np.append(_without(P, DRAFT)[:-1] * (1 - P[DRAFT]), 0)
    + (1 - P[DRAFT]) * np.eye(len(P))[-1] * (1 - (_without(P, DRAFT)[:-1] * (1 - P[DRAFT])).sum()),
}
"""What comes out of the right rule, and of the common mistakes."""

SAYS = {
    "p": "what comes out is distributed as p, though the drafter always proposes the same token.",
    "always": "the draft is always kept, so the drafter decides alone: keep it with probability "
    "p(x).",
    "never": "the draft never comes out at all, which p gives a share to: keep it with probability "
    "p(x).",
    "from p": "the draft comes out too often, because a rejected draft gets a second chance in the "
    "replacement: draw that from p without x.",
    "turned": "the draft is kept when it should be rejected and the other way round: keep it if "
    "the number drawn is below p(x).",
    "last": "the last token comes out too often, because what is left of p is not divided by its "
    "sum before it is drawn from.",
}


def expected_tokens(formula: Callable[[float, int], float]) -> Finding:
    """Check a formula for the expected tokens of a step: acceptance a, a chain of k drafts.

    1 + a + a^2 + ... + a^k, as Leviathan et al. (2023) have it in their equation 1.
    """
    first = formula(0.5, 2)
    if first is None or isinstance(first, EllipsisType):
        return NOT_WRITTEN
    for a, k in ((0.5, 1), (0.5, 2), (0.8, 4), (0.0, 3), (1.0, 4)):
        try:
            value = float(formula(a, k))
        except ZeroDivisionError:
            return Finding(
                False,
                f"it divides by zero at a = {a:g}, where every draft is accepted and a step "
                f"gives {k + 1} tokens: sum the {k + 1} terms, or treat a = 1 by itself.",
            )
        right = sum(a**i for i in range(k + 1))
        if abs(value - right) < 1e-9:
            continue
        for seen, says in (
            (right - 1, "this counts accepted drafts alone: the base model adds one token of its "
             "own to every step"),
            (1 + a * k, "this adds a for each draft, but the second counts only if the first was "
             "accepted, with probability a times a"),
            (1 + a**k, "this counts only steps in which all drafts are accepted: a step in which "
             "two of them are still gives those two"),
            (right - a**k, "this stops a term early: after k accepted drafts the base model adds "
             "its bonus"),
        ):  # fmt: skip
            if abs(value - seen) < 1e-9:
                return Finding(False, f"at a = {a:g}, k = {k} {says}.")
        return Finding(
            False, f"at a = {a:g}, k = {k} it gives {value:.4g}, and the answer is {right:.4g}."
        )
    return Finding(True, "1 + a + a² + … + aᵏ, the bonus included.")
