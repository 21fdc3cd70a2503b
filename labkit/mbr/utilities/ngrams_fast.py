"""Match counts in compiled loops: what `labkit.mbr.utilities.ngrams.matches` counts, much faster.

Numbers come out of a hash table with exact keys instead of sorting, in linear time. A row of counts
is then a sum over the hypothesis's features: a frequent feature adds its whole 0/1 row over the
evidence (bytes, which the compiler turns into vector instructions), a rare one adds 1 at each of
the few evidence samples that have it.
"""

from __future__ import annotations

import numba
import numpy as np

from labkit.kernels.compiled import CACHED
from labkit.mbr.utilities.ngrams import Texts

FREQUENT = 1 / 32
"""A feature in more than this share of the evidence is kept as a row of bytes."""


class Index:
    """Hypotheses' features, and which evidence samples have each, for orders 1 to N."""

    def __init__(self, texts: Texts, hypotheses: int, orders: int) -> None:
        self.evidence = len(texts.starts) - 1 - hypotheses
        self.orders = []
        grams, many = texts.symbols.astype(np.int64), texts.alphabet
        for order in range(1, orders + 1):
            if order > 1:
                grams, many = _extend(grams, texts.symbols, texts.starts, texts.alphabet, order)
            ids, many_ids = _with_occurrence(grams, many, texts.starts, order)
            self.orders.append(_index(ids, many_ids, texts.starts, order, hypotheses, FREQUENT))
        self.starts = texts.starts

    def matches(self, rows: slice) -> np.ndarray:
        """Count clipped matches of the hypotheses ``rows`` (start and stop given): (N, rows, R)."""
        counts = np.zeros((len(self.orders), rows.stop - rows.start, self.evidence), np.int32)
        for n, (ids, place, lists, bounds, frequent) in enumerate(self.orders):
            _count(ids, place, lists, bounds, frequent, self.starts, n + 1, rows.start, counts[n])
        return counts


@numba.njit(cache=CACHED, nogil=True)
def _extend(
    grams: np.ndarray, symbols: np.ndarray, starts: np.ndarray, alphabet: int, order: int
) -> tuple[np.ndarray, int]:
    """Number the n-grams from those one shorter; entry p is the n-gram that begins at symbol p."""
    size = 16
    while size < 2 * len(symbols):
        size *= 2
    keys = np.full(size, -1, np.int64)
    numbers = np.empty(size, np.int32)
    longer = np.empty_like(grams)
    many = 0
    for text in range(len(starts) - 1):
        for p in range(starts[text], starts[text + 1] - order + 1):
            key = grams[p] * alphabet + symbols[p + order - 1]
            slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & np.uint64(
                size - 1
            )
            while keys[slot] != key and keys[slot] != -1:
                slot = (slot + np.uint64(1)) & np.uint64(size - 1)
            if keys[slot] == -1:
                keys[slot] = key
                numbers[slot] = many
                many += 1
            longer[p] = numbers[slot]
    return longer, many


@numba.njit(cache=CACHED, nogil=True)
def _with_occurrence(
    grams: np.ndarray, many: int, starts: np.ndarray, order: int
) -> tuple[np.ndarray, int]:
    """Number the (n-gram, c) features; entry p belongs to the n-gram that begins at symbol p."""
    count = np.zeros(many, np.int32)
    owner = np.full(many, -1, np.int32)
    most = np.zeros(many + 1, np.int64)
    ids = np.empty(len(grams), np.int64)
    for text in range(len(starts) - 1):
        for p in range(starts[text], starts[text + 1] - order + 1):
            gram = grams[p]
            if owner[gram] != text:
                owner[gram] = text
                count[gram] = 0
            ids[p] = count[gram]
            count[gram] += 1
            most[gram + 1] = max(most[gram + 1], count[gram])
    offset = np.cumsum(most)
    for text in range(len(starts) - 1):
        for p in range(starts[text], starts[text + 1] - order + 1):
            ids[p] += offset[grams[p]]
    return ids, offset[many]


@numba.njit(cache=CACHED, nogil=True)
def _index(
    ids: np.ndarray, many: int, starts: np.ndarray, order: int, hypotheses: int, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return which evidence has each feature: a row of bytes if frequent, else a list.

    Feature f is frequent if place[f] >= 0, and then row place[f] of the last array; else its
    evidence samples are lists[bounds[f]:bounds[f+1]].
    """
    evidence = len(starts) - 1 - hypotheses
    bounds = np.zeros(many + 1, np.int64)
    for text in range(hypotheses, len(starts) - 1):
        for p in range(starts[text], starts[text + 1] - order + 1):
            bounds[ids[p] + 1] += 1
    place = np.full(many, -1, np.int32)
    rows = 0
    for f in range(many):
        if bounds[f + 1] > share * evidence:
            place[f] = rows
            rows += 1
            bounds[f + 1] = 0
    bounds = np.cumsum(bounds)
    lists = np.empty(bounds[many], np.int32)
    filled = bounds.copy()
    frequent = np.zeros((rows, evidence), np.uint8)
    for text in range(hypotheses, len(starts) - 1):
        for p in range(starts[text], starts[text + 1] - order + 1):
            f = ids[p]
            if place[f] >= 0:
                frequent[place[f], text - hypotheses] = 1
            else:
                lists[filled[f]] = text - hypotheses
                filled[f] += 1
    return ids, place, lists, bounds, frequent


@numba.njit(cache=CACHED, nogil=True)
def _count(
    ids: np.ndarray,
    place: np.ndarray,
    lists: np.ndarray,
    bounds: np.ndarray,
    frequent: np.ndarray,
    starts: np.ndarray,
    order: int,
    first: int,
    counts: np.ndarray,
) -> None:
    """Add up the rows of ``counts`` (rows, R) for hypotheses first, first + 1, ..."""
    few = np.zeros(counts.shape[1], np.uint8)
    for row in range(counts.shape[0]):
        total = counts[row]
        added = 0
        for p in range(starts[first + row], starts[first + row + 1] - order + 1):
            f = ids[p]
            if place[f] >= 0:
                few += frequent[place[f]]
                added += 1
                if added == 255:  # the most that a byte holds
                    total += few
                    few[:] = 0
                    added = 0
            else:
                for k in range(bounds[f], bounds[f + 1]):
                    total[lists[k]] += 1
        total += few
        few[:] = 0
