"""One decision to be made or approximated, and what an approximation answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.decide import expected_loss
from labkit.mbr.utilities import Utility, matrix
from labkit.mbr.weights import distinct, weigh
from labkit.records import Sample

Numbers = Sequence[int] | np.ndarray


@dataclass
class Problem:
    """Hypotheses, weighed evidence and a utility; ``calls`` counts the pairs scored so far.

    Hypotheses should be distinct texts. Raises `LabkitError` where there are none, or where the
    weights do not fit the evidence.
    """

    hypotheses: Sequence[str]
    evidence: Sequence[str]
    weights: np.ndarray
    utility: str | Utility = "chrf"
    source: str = ""
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.hypotheses:
            raise LabkitError("There are no hypotheses to decide between; give at least one.")
        expected_loss(np.zeros((1, len(self.evidence))), self.weights)  # are they weights for it?

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return evidence numbers, heaviest first, equally heavy ones in random order: (R,)."""
        return np.lexsort((rng.random(len(self.evidence)), -self.weights))

    def loss(self, hypotheses: Numbers, evidence: Numbers) -> np.ndarray:
        """Compute losses of some hypotheses against some evidence, by their numbers: (h, r)."""
        self.calls += len(hypotheses) * len(evidence)
        rows = [self.hypotheses[h] for h in hypotheses]
        columns = [self.evidence[r] for r in evidence]
        return 1 - matrix(self.utility, rows, columns, self.source)


@dataclass(frozen=True)
class Decision:
    """What a method decided: the hypothesis ``best``, and what it cost.

    ``risk`` (H,) is each hypothesis's risk as far as the method estimated it, NaN where it never
    did; ``calls`` the pairs scored with the utility, of ``of`` that the exact decision scores;
    ``cheap`` counts comparisons of another kind (a proxy's, or with an average instead of a text).
    """

    best: int
    risk: np.ndarray
    calls: int
    of: int
    cheap: int = 0


def problem(
    hypotheses: Sequence[Sample],
    evidence: Sequence[Sample] | None = None,
    utility: str | Utility = "chrf",
    source: str = "",
) -> Problem:
    """Return the decision that `labkit.mbr.decide.decode` would make of the same samples."""
    items, weights = weigh(hypotheses if evidence is None else evidence, "uniform")
    texts = [one.text for one in distinct(hypotheses)]
    return Problem(texts, [item.text for item in items], weights, utility, source)


def exact(task: Problem) -> Decision:
    """Decide exactly: every pair scored, H R calls."""
    everything = range(len(task.hypotheses)), range(len(task.evidence))
    risk = expected_loss(task.loss(*everything), task.weights)
    return answer(task, risk)


def answer(
    task: Problem, risk: np.ndarray, among: np.ndarray | None = None, cheap: int = 0
) -> Decision:
    """Decide for the least risk, the first of equals, among some hypotheses (default: all)."""
    among = np.arange(len(risk)) if among is None else np.sort(among)
    best = int(among[np.argmin(risk[among])])
    return Decision(best, risk, task.calls, len(task.hypotheses) * len(task.evidence), cheap)
