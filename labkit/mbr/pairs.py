"""A test set: sources and references, read from a file, and the samples drawn for each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.errors import LabkitError
from labkit.mbr.weights import distinct
from labkit.records import Sample

if TYPE_CHECKING:
    from labkit.mbr.conditional import Conditional
    from labkit.mbr.draws import Draws

Pair = tuple[str, str]
"""A source and its reference."""

NAMES = ("source", "reference")
"""The column names that make a first line a header."""


def read_pairs(
    path: str | os.PathLike[str], columns: Sequence[str | int] | None = None
) -> list[Pair]:
    """Read every source and reference of a file, one pair a line, and check them all.

    Two columns are the source and the reference. If there are more, say which to take: by a first
    line that names ``source`` and ``reference``, or by ``columns``, the two names in the first line
    or the two numbers, counted from 1. Lines end with a line feed, as sacrebleu reads them: a
    carriage return before it is dropped, one inside a field is part of the field.

    Raises `LabkitError` naming the file, and the line where a column is missing or empty.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise LabkitError(f"The pairs in {path} cannot be read: {reason}.") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    names = [cell.strip().casefold() for cell in rows[0]] if rows else []
    named = all(names.count(name) == 1 for name in NAMES)
    asked = [str(one).strip().casefold() for one in (NAMES if columns is None else columns)]
    if len(asked) != 2 or asked[0] == asked[1]:
        raise LabkitError(
            f"The columns are {', '.join(asked) or 'none'}; name two, the source's and the "
            "reference's, such as 'german,english' or '2,3'."
        )
    first, places = 1, None
    if columns is None and not named:
        first = 0
    elif all(one.isascii() and one.isdigit() and int(one) > 0 for one in asked):
        first, places = int(named), [int(one) - 1 for one in asked]
    else:
        for one in asked:
            if names.count(one) != 1:
                raise LabkitError(
                    f"The first line of {path} has {names.count(one)} columns named {one!r}; name "
                    "two of its columns, or give their numbers from 1."
                )
        places = [names.index(one) for one in asked]
    if len(rows) <= first:
        raise LabkitError(f"{path} holds no pairs: each line needs a source, a tab, a reference.")
    return [_pair(path, n, row, places) for n, row in enumerate(rows[first:], start=first + 1)]


def _pair(
    path: str | os.PathLike[str], number: int, row: list[str], places: list[int] | None
) -> Pair:
    """Return the pair in a line's ``places`` (None: its only two), or raise `LabkitError`."""
    problem = ""
    if places is None and len(row) == 1:
        problem = "has no tab; each line needs a source, a tab and a reference"
    elif places is None and len(row) > 2:
        problem = (
            f"has {len(row)} columns; say which two are the source and the reference: by a first "
            "line with these names, or by --columns, such as --columns 2,3"
        )
    elif places and max(places) >= len(row):
        problem = f"has {len(row)} columns; column {max(places) + 1} is needed"
    elif not all(row[place].strip() for place in places or (0, 1)):
        problem = "has an empty source or reference"
    if problem:
        raise LabkitError(f"Line {number} of {path} {problem}.")
    source, reference = (row[place] for place in places or (0, 1))
    return source, reference


@dataclass(frozen=True)
class Case:
    """A source, its reference, and the samples drawn for it."""

    source: str
    reference: str
    samples: tuple[Sample, ...]


def draw_cases(
    model: Conditional, pairs: Iterable[Pair], how: Draws | None = None
) -> Iterator[Case]:
    """Draw samples for each source of a test set, a batch of sources at a time."""
    from labkit.mbr.draws import stream

    ahead, behind = tee(pairs)
    sampled = stream(model, (source for source, _ in ahead), how)
    for (source, reference), samples in zip(behind, sampled, strict=True):
        yield Case(source, reference, samples)


def first_of(case: Case, many: int, seed: int) -> tuple[Sample, ...]:
    """Return the first ``many`` of a case's samples in a random order that only the case sets."""
    counts = [sample.count for sample in case.samples]
    if not 1 <= many <= sum(counts):
        raise LabkitError(
            f"{many} samples of a case were asked for and {sum(counts)} were drawn; "
            "ask for at least 1 and at most those."
        )
    drawn = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng([seed, *case.source.encode("utf-8", "surrogatepass")])
    chosen = rng.permutation(drawn)[:many]
    return distinct([case.samples[i].model_copy(update={"count": 1}) for i in chosen])
