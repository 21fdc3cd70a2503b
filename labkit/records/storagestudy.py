"""`StorageStudy`: the speed of each way to store the weights, with and without speculation."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from labkit.records.base import Count, Part, Record

Positive = Annotated[float, Field(gt=0)]


class StorageRow(Part):
    """One method with one storage; ``speedup`` is against vanilla with the same storage.

    ``nodes`` are the most that a tree has, 0 where none pays. ``identical`` says whether all texts
    are that vanilla's.
    """

    storage: str
    method: str
    nodes: Count
    tokens_per_s: Positive
    tokens_per_step: Positive
    speedup: Positive
    identical: bool


class StorageStudy(Record):
    """Every storage of one model on one machine, all of them in turn at each prompt."""

    KIND: ClassVar[str] = "storagestudy"

    base: str
    threads: Count
    prompts: Count
    max_new_tokens: Count
    repeats: Count
    contention: float
    rows: tuple[StorageRow, ...]
