"""The speed at which numba's threads read memory, which bounds a pass over one token."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange

from labkit.kernels.engine import TorchProbe
from labkit.kernels.panel import JIT

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


class Probe(TorchProbe):
    """The same read by numba's threads, which share a pass on panels."""

    def __init__(self, numbers: int = 1 << 26) -> None:
        super().__init__(torch.device("cpu"), numbers)
        read_through(self.numbers.numpy()[:PIECE])  # compiled now, not when it is timed

    def read(self) -> None:
        """See `TorchProbe`."""
        read_through(self.numbers.numpy())
