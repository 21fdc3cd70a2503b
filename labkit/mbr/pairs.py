"""Pairs of a source and its reference, read from a file of tab-separated columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import LabkitError

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
    places, first = _places(path, rows[0] if rows else [], columns)
    if len(rows) <= first:
        raise LabkitError(f"{path} holds no pairs: each line needs a source, a tab, a reference.")
    return [_pair(path, n, row, places) for n, row in enumerate(rows[first:], start=first + 1)]


def _places(
    path: str | os.PathLike[str], row: Sequence[str], columns: Sequence[str | int] | None
) -> tuple[tuple[int, int] | None, int]:
    """Return the two places that hold the pair, None for the only two, and the header's lines."""
    names = [cell.strip().casefold() for cell in row]
    if columns is None:
        if all(names.count(name) == 1 for name in NAMES):
            return (names.index(NAMES[0]), names.index(NAMES[1])), 1
        return None, 0
    asked = [str(column).strip().casefold() for column in columns]
    if len(asked) != 2 or asked[0] == asked[1]:
        raise LabkitError(
            f"The columns are {', '.join(asked) or 'none'}; name two, the source's and the "
            "reference's, such as 'german,english' or '2,3'."
        )
    if all(one.isascii() and one.isdigit() and int(one) > 0 for one in asked):
        header = int(all(names.count(name) == 1 for name in NAMES))
        return (int(asked[0]) - 1, int(asked[1]) - 1), header
    for one in asked:
        if names.count(one) != 1:
            raise LabkitError(
                f"The first line of {path} has {names.count(one)} columns named {one!r}; name two "
                "of its columns, or give their numbers from 1."
            )
    return (names.index(asked[0]), names.index(asked[1])), 1


def _pair(
    path: str | os.PathLike[str], number: int, row: list[str], places: tuple[int, int] | None
) -> Pair:
    """Return one line's pair, or raise `LabkitError` naming the line."""
    if places is None:
        if len(row) == 1:
            raise LabkitError(
                f"Line {number} of {path} has no tab; each line needs a source, a tab and a "
                "reference."
            )
        if len(row) > 2:
            raise LabkitError(
                f"Line {number} of {path} has {len(row)} columns; say which two are the source and "
                "the reference: by a first line with these names, or by --columns, such as "
                "--columns 2,3."
            )
        places = (0, 1)
    if max(places) >= len(row):
        raise LabkitError(
            f"Line {number} of {path} has {len(row)} columns; column {max(places) + 1} is needed."
        )
    source, reference = (row[place] for place in places)
    if not source.strip() or not reference.strip():
        raise LabkitError(f"Line {number} of {path} has an empty source or reference.")
    return source, reference
