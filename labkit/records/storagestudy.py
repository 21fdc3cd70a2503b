"""`StorageStudy`: the speed of every way to decode, with each way to store the weights."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from labkit.records.base import Count, Part, Record

Positive = Annotated[float, Field(gt=0)]
Bounds = tuple[Positive, Positive]


class StorageRow(Part):
    """One method with one storage on one kind of text.

    ``nodes`` are the most that a tree has, 0 where none pays. ``identical`` says whether all texts
    are vanilla's with the same storage, ``ties`` how many needed a tie of two logits as an excuse.
    ``speeds`` has the tokens per second of each prompt, in the same order in every row of a text.
    ``speedup`` is against vanilla with the same storage, ``of_fastest`` against the study's fastest
    plain decoder, on the same prompts; their bounds hold 95% of a paired bootstrap over prompts.
    """

    text: str = "all"
    storage: str
    method: str
    nodes: Count
    tokens_per_s: Positive
    tokens_per_step: Positive
    speedup: Positive
    speedup_bounds: Bounds | None = None
    of_fastest: Positive | None = None
    of_fastest_bounds: Bounds | None = None
    identical: bool
    ties: Count = 0
    speeds: tuple[Positive, ...] = ()


class StorageStudy(Record):
    """Every storage of one model on one machine, all of them in turn at each prompt.

    ``fastest`` is the storage and the method of the fastest plain decoder; ``absent`` says of each
    storage and method that could not run here why.
    """

    KIND: ClassVar[str] = "storagestudy"

    base: str
    threads: Count
    prompts: Count
    max_new_tokens: Count
    repeats: Count
    contention: float
    bandwidth_gb_s: Positive | None = None
    fastest: tuple[str, str] | None = None
    absent: dict[str, str] = Field(default_factory=dict)
    rows: tuple[StorageRow, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The kinds of text, in the order of the rows."""
        return tuple(dict.fromkeys(row.text for row in self.rows))
