"""`RiskTable`: one minimum-Bayes-risk decision; what RiskMatrix reads."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from labkit.records.base import Count, NotNegative, Part, Probability, Record, RecordError

Weighting = Literal["uniform", "counts", "model", "unique"]
"""How samples stand for p(y|x).

``uniform``: every drawn sample weighs the same, duplicates listed as often as drawn; ``counts``:
Monte Carlo over distinct samples, each weighing its count; ``model``: distinct samples, each
weighing its model probability, renormalised; ``unique``: distinct samples, all the same.
"""


class Sample(Part):
    """A text, how often it was drawn, and log p(text | source) under the model (null: unknown)."""

    text: str
    count: Annotated[int, Field(ge=1)] = 1
    logprob: Annotated[float, Field(le=1e-6)] | None = None
    tokens: Count | None = None


class CoveragePoint(Part):
    """A point of a test set's risk-coverage curve.

    The share ``coverage`` of decisions was at least as sure as ``threshold`` (1 minus the least
    risk); they lost ``risk`` on average against the reference.
    """

    threshold: float
    coverage: Probability
    risk: NotNegative


class RiskTable(Record):
    """The loss of each hypothesis against each evidence sample, and the decision.

    ``loss[h][r]`` = 1 - utility(hypothesis h, evidence r), on 0..1. ``weights`` stand for
    p(y|x), one for each evidence item, summing to 1. ``risk[h]`` = sum over r of
    ``weights[r] * loss[h][r]``; ``best`` is the first index of its minimum.

    Three more may be filled in (records from before them read as empty): ``chosen_set``, hypotheses
    that lose least together, in the order chosen; ``clusters``, each hypothesis's kind,
    numbered by first appearance; ``coverage``, the curve of a test set, surest decisions first.
    """

    KIND: ClassVar[str] = "risktable"

    base: str
    source: str
    utility: str
    weighting: Weighting
    hypotheses: tuple[Sample, ...]
    evidence: tuple[Sample, ...]
    weights: tuple[NotNegative, ...]
    loss: tuple[tuple[Probability, ...], ...]
    risk: tuple[float, ...]
    best: Count
    chosen_set: tuple[Count, ...] = ()
    clusters: tuple[Count, ...] = ()
    coverage: tuple[CoveragePoint, ...] = ()
    reference: str | None = None
    seed: int | None = None
    seconds: float | None = None

    @model_validator(mode="after")
    def _check(self) -> RiskTable:
        many, much = len(self.hypotheses), len(self.evidence)
        if not many or not much:
            raise RecordError("a risk table needs at least one hypothesis and one evidence sample")
        if len(self.weights) != much:
            raise RecordError(f"{len(self.weights)} weights for {much} evidence samples")
        if not math.isclose(sum(self.weights), 1.0, abs_tol=1e-6):
            raise RecordError(f"the weights sum to {sum(self.weights):.6f}, not 1")
        if len(self.loss) != many or any(len(row) != much for row in self.loss):
            raise RecordError(f"the loss matrix is not {many} x {much}")
        if len(self.risk) != many or self.best >= many:
            raise RecordError(f"{len(self.risk)} risks and best {self.best} for {many} hypotheses")
        if any(h >= many for h in self.chosen_set) or len(self.clusters) not in (0, many):
            raise RecordError(f"the set or the clusters do not fit {many} hypotheses")
        return self
