"""`LossLog`: the loss of every head as training goes; what LossCurves reads, live or afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from labkit.records.base import Count, NotNegative, Part, Probability, Record, RecordError

Phase = Annotated[int, Field(ge=1, le=2)]


class LossPoint(Part):
    """One optimizer step: the mean cross-entropy of each head in nats, over that step's batch."""

    phase: Phase
    step: Count
    tokens: Count
    loss: tuple[float, ...]
    lr: float
    seconds: NotNegative


class ValidationPoint(Part):
    """One look at held-out text.

    ``accept`` is, for each head, the share of places where its most probable token is the base
    model's own greedy choice; ``tokens_per_step`` is measured where it was, else null.
    """

    phase: Phase
    step: Count
    tokens: Count
    loss: tuple[float, ...]
    accept: tuple[Probability, ...]
    tokens_per_step: float | None = None


class LossLog(Record):
    """The loss of every head over phases 1 and 2, with validation.

    ``step`` counts on through the phases; ``tokens`` counts training positions seen so far.
    On disk a running log is JSON lines: the header, then one point a line (`LossLog.follow`).
    """

    KIND: ClassVar[str] = "losslog"

    name: str
    base: str
    heads: Annotated[int, Field(ge=1)]
    recipe: dict[str, Any] = Field(default_factory=dict)
    points: tuple[LossPoint, ...] = ()
    validation: tuple[ValidationPoint, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> LossLog:
        every: list[LossPoint | ValidationPoint] = [*self.points, *self.validation]
        for point in every:
            if len(point.loss) != self.heads:
                raise RecordError(f"step {point.step} has {len(point.loss)} losses, not one a head")
        return self

    def of_phase(self, phase: int) -> LossLog:
        """Return the part of the log that belongs to one phase."""
        return self.model_copy(
            update={
                "points": tuple(point for point in self.points if point.phase == phase),
                "validation": tuple(look for look in self.validation if look.phase == phase),
            }
        )

    @classmethod
    def follow(cls, path: str | os.PathLike[str]) -> LossLog:
        """Read a running log (JSON lines), without a last line that is only half written.

        A step that occurs twice, because training was killed and resumed, counts once: the later.
        Raises `RecordError` if the file is missing, empty or damaged.
        """
        try:
            whole = Path(path).read_bytes().split(b"\n")[:-1]
        except (OSError, ValueError) as error:  # a name may hold a character that none may
            reason = getattr(error, "strerror", None) or error
            raise RecordError(f"Cannot read the loss log {path}: {reason}.") from None
        if not whole:
            raise RecordError(f"The loss log {path} is empty.")
        kinds: dict[str, type[Part]] = {"points": LossPoint, "validation": ValidationPoint}
        found: dict[str, dict[tuple[int, int], Any]] = {name: {} for name in kinds}
        try:
            header = json.loads(whole[0])
            if not isinstance(header, dict):
                raise ValueError("its first line is no JSON object")
            for line in whole[1:]:
                name = "validation" if b'"accept"' in line else "points"
                one: Any = kinds[name].model_validate_json(line)
                found[name][one.phase, one.step] = one
            ordered = {
                name: sorted(parts.values(), key=lambda one: one.step)
                for name, parts in found.items()
            }
            return cls.model_validate({**header, **ordered})
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            raise RecordError(f"The loss log {path} is damaged: {reason}.") from None
