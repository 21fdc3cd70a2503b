"""`AblationStudy`: one training varied in one choice at a time, each judged on the same texts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from labkit.records.base import Count, Part, Probability, Record, RecordError


class HeldOutScore(Part):
    """The figures of a set of heads on held-out answers of the base model.

    ``material`` names the kind of prompts; ``loss`` is the mean cross-entropy in nats and
    ``accept`` the share of right first guesses, one figure a head; ``tokens_per_step`` is that of a
    chain, the bonus token included.
    """

    material: str
    loss: tuple[float, ...]
    accept: tuple[Probability, ...]
    tokens_per_step: Annotated[float, Field(ge=1)]


class AblationRow(Part):
    """One training: its change to the baseline, its length and its scores.

    ``question`` names the choice that it varies; ``tokens`` counts the positions trained on.
    ``changes`` is empty for the baseline, which has one row for each seed.
    """

    question: str
    name: str
    changes: dict[str, Any] = Field(default_factory=dict)
    seed: Count
    steps: Count
    tokens: Count
    scores: tuple[HeldOutScore, ...]

    def score(self, material: str) -> HeldOutScore:
        """Return the score on prompts of that kind; raises `RecordError` if there is none."""
        for score in self.scores:
            if score.material == material:
                return score
        known = ", ".join(score.material for score in self.scores)
        raise RecordError(f"There is no score on {material!r} prompts; there are {known}.")


class AblationStudy(Record):
    """All trainings of a study; ``recipe`` is the baseline's, whole."""

    KIND: ClassVar[str] = "ablations"

    name: str
    base: str
    recipe: dict[str, Any]
    rows: tuple[AblationRow, ...]

    @model_validator(mode="after")
    def _check(self) -> AblationStudy:
        if not self.baselines:
            raise RecordError("a study needs at least one baseline to compare with")
        if len({tuple(score.material for score in row.scores) for row in self.rows}) > 1:
            raise RecordError("the rows were not judged on the same material")
        return self

    @property
    def baselines(self) -> tuple[AblationRow, ...]:
        """The rows that change nothing, one for each seed."""
        return tuple(row for row in self.rows if not row.changes)

    def spread(self, material: str) -> tuple[float, float]:
        """Return the least and the most tokens per step of the baseline over its seeds."""
        found = [row.score(material).tokens_per_step for row in self.baselines]
        return min(found), max(found)
