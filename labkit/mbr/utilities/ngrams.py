"""How many n-grams two texts share, for every pair of two lists at once.

The trick: write the c-th occurrence of an n-gram within its text as a feature of its own,
(n-gram, c). A text is then a set of features, and the clipped match count of two texts, the sum
over n-grams of min(count in one, count in the other), is the size of their intersection: the
inner product of two 0/1 vectors. So a whole matrix of match counts is one product of 0/1 matrices
per n-gram order.

This file is the plain version, in scipy. `labkit.mbr.utilities.ngrams_fast` does the same in
compiled loops; `pairwise` takes it for large matrices, where numba is installed. Both are exact for
any text: n-grams are numbered, never hashed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import scipy.sparse

LARGE = 1 << 14
"""From this many pairs on the compiled version pays for being loaded."""

ROWS = 64
"""Hypotheses scored at a time: the counts of a block stay in a core's cache."""


@dataclass(frozen=True)
class Texts:
    """Texts as numbers: ``symbols`` of all of them end to end, text i at starts[i]:starts[i+1].

    Symbols (characters, or words) are numbered 0..alphabet-1; equal symbols have equal numbers.
    """

    symbols: np.ndarray
    starts: np.ndarray
    alphabet: int

    def totals(self, orders: int) -> np.ndarray:
        """Return the number of n-grams of each text, orders 1 to N: (N, texts)."""
        lengths = np.diff(self.starts)
        return np.maximum(lengths[None, :] - np.arange(orders)[:, None], 0)


Score = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From match counts (N, H, R) and n-gram totals (N, H), (N, R) to scores (H, R)."""


def characters(texts: Sequence[str]) -> Texts:
    """Return every text as its code points.

    >>> characters(["aba", "", "c"]).symbols
    array([0, 1, 0, 2])
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    present = np.zeros(int(codes.max(initial=0)) + 1, dtype=bool)
    present[codes] = True
    number = np.cumsum(present) - 1
    return Texts(number[codes], _starts(texts), int(present.sum()))


def words(texts: Sequence[Sequence[str]]) -> Texts:
    """Return every text, a list of words, as the words' numbers.

    >>> words([["to", "be"], ["be"]]).symbols
    array([0, 1, 1])
    """
    number: dict[str, int] = {}
    symbols = [number.setdefault(word, len(number)) for word in chain.from_iterable(texts)]
    return Texts(np.array(symbols, dtype=np.int64), _starts(texts), len(number))


def _starts(texts: Sequence[Sized]) -> np.ndarray:
    return np.cumsum([0, *map(len, texts)], dtype=np.int64)


def counts(texts: Texts, orders: int) -> Iterator[scipy.sparse.csr_array]:
    """Yield how often each n-gram is in each text, one order after the other: (texts, n-grams).

    An n-gram's number is that of the pair (its first n-1 symbols, its last symbol), so every order
    builds on the one before, and two n-grams have one number only if they are equal.
    """
    lengths = np.diff(texts.starts)
    grams = texts.symbols
    owner = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(grams))
    for order in range(1, orders + 1):
        if order > 1:
            inside = position + order <= texts.starts[1:][owner]
            grams, owner, position = grams[inside], owner[inside], position[inside]
            pairs = grams * texts.alphabet + texts.symbols[position + order - 1]
            grams = np.unique(pairs, return_inverse=True)[1]
        shape = (len(lengths), int(grams.max(initial=-1)) + 1)
        yield scipy.sparse.csr_array((np.ones(len(grams)), (owner, grams)), shape=shape)


def matches(texts: Texts, hypotheses: int, orders: int) -> np.ndarray:
    """Count clipped matches of the first ``hypotheses`` texts against the others: (N, H, R)."""
    found = []
    for table in counts(texts, orders):
        table.sum_duplicates()
        most = int(table.data.max(initial=1))
        has = [(table >= c).astype(np.int64) for c in range(1, most + 1)]  # (n-gram, c)
        features = scipy.sparse.hstack(has, "csr")  # (texts, F)
        found.append((features[:hypotheses] @ features[hypotheses:].T).toarray())
    return np.stack(found)


def pairwise(parts: Sequence[tuple[Texts, int]], hypotheses: int, score: Score) -> np.ndarray:
    """Score the first ``hypotheses`` texts against the others: (H, R), float64.

    ``parts`` are views of the same texts with the highest n-gram order taken from each, for
    instance characters up to 6 and words up to 2; ``score`` sees their orders one after the other.
    """
    totals = np.concatenate([texts.totals(orders) for texts, orders in parts])  # (N, H + R)
    evidence = totals.shape[1] - hypotheses
    indices: list[Any] = []
    if hypotheses * evidence >= LARGE:
        with suppress(ImportError):  # without numba the plain version serves
            from labkit.mbr.utilities.ngrams_fast import Index

            indices = [Index(texts, hypotheses, orders) for texts, orders in parts]
    if not indices:
        shared = np.concatenate([matches(texts, hypotheses, orders) for texts, orders in parts])
        return score(shared, totals[:, :hypotheses], totals[:, hypotheses:])
    result = np.empty((hypotheses, evidence))

    def fill(first: int) -> None:
        rows = slice(first, min(first + ROWS, hypotheses))
        shared = np.concatenate([one.matches(rows) for one in indices])
        result[rows] = score(shared, totals[:, rows], totals[:, hypotheses:])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, hypotheses, ROWS)))
    return result
