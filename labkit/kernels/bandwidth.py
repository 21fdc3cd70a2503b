"""The speed at which numba's threads read memory, which bounds a pass over one token."""

from __future__ import annotations

import time

import numpy as np
from numba import njit, prange

from labkit.kernels.panel import JIT

PROBE = 1 << 26
"""Float32 numbers in the array that is read: 256 MiB, more than any cache holds."""

PIECE = 1 << 16
"""Numbers in a piece, which one thread reads: 256 KiB."""

FAST = {**JIT, "fastmath": True}
"""Sums in any order, so that the compiler can widen them."""


@njit(**FAST)
def sum_of(piece):
    """Sum a piece, many numbers at a time: the compiler widens the loop over a slice."""
    total = np.float32(0)
    for i in range(piece.shape[0]):
        total += piece[i]
    return total


@njit(parallel=True, **FAST)
def read_through(numbers):
    """Sum ``numbers``, a multiple of `PIECE`; reading them is what takes the time."""
    total = 0.0
    for piece in prange(numbers.shape[0] // PIECE):
        total += sum_of(numbers[piece * PIECE : (piece + 1) * PIECE])
    return total


class Probe:
    """A repeated read of one large array, as a forward pass reads the weights."""

    def __init__(self, numbers: int = PROBE) -> None:
        self.numbers = np.ones(numbers, np.float32)
        read_through(self.numbers[:PIECE])  # compiled now, not when it is timed

    def __call__(self) -> float:
        """Return the bytes per second of one read."""
        began = time.perf_counter()
        read_through(self.numbers)
        return self.numbers.nbytes / (time.perf_counter() - began)
