"""The context layer of the heads on products that read each weight once.

It runs once per step on the few rows that were committed, so, like the heads, it is bound by
reading its weights; they are rounded to 4 bits. A draft need not be exact: the base model checks
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange

from labkit.kernels.heads import PanelHeads, rounded
from labkit.kernels.panel import JIT
from labkit.kernels.weights_once import exp, linear, silu

F32 = np.float32
ZERO, ONE, EPSILON = F32(0), F32(1), F32(1e-6)
FIRST_ROOM = 256
"""Positions that a new memory has room for; it doubles when it is full."""


@njit(**JIT)
def unit_columns(x):
    """Divide every row by its root mean square, transposed: (N, D) to (D, N)."""
    rows, width = x.shape
    out = np.empty((width, rows), F32)
    for i in range(rows):
        total = ZERO
        for k in range(width):
            total += x[i, k] * x[i, k]
        scale = ONE / np.sqrt(total / F32(width) + EPSILON)
        for k in range(width):
            out[k, i] = x[i, k] * scale
    return out


def product(columns: np.ndarray, panels: np.ndarray, outputs: int) -> np.ndarray:
    """Multiply columns (K, N) by packed weights: (N, outputs)."""
    out = np.empty((columns.shape[1], outputs), F32)
    linear(columns, panels, out)
    return out


@njit(parallel=True, **JIT)
def attend(qkv, heads, first, keys, values, cosines, sines):
    """Attention of N new positions after ``first`` old ones, whose keys and values it also stores.

    qkv (N, 3 D); keys and values (T, D) are filled from row ``first`` on; cosines and sines
    (T, d / 2) by position. Returns the mixed values, transposed: (D, N).
    """
    rows, width = qkv.shape[0], qkv.shape[1] // 3
    size = width // heads
    half = size // 2
    out = np.empty((width, rows), F32)
    scale = ONE / np.sqrt(F32(size))
    for h in prange(heads):
        at = h * size
        q = np.empty(size, F32)
        for i in range(rows):
            t = first + i
            for d in range(half):
                c, s = cosines[t, d], sines[t, d]
                low, high = qkv[i, width + at + d], qkv[i, width + at + half + d]
                keys[t, at + d] = low * c - high * s
                keys[t, at + half + d] = high * c + low * s
            for d in range(size):
                values[t, at + d] = qkv[i, 2 * width + at + d]
            for d in range(half):
                c, s = cosines[t, d], sines[t, d]
                low, high = qkv[i, at + d], qkv[i, at + half + d]
                q[d] = (low * c - high * s) * scale
                q[half + d] = (high * c + low * s) * scale
            scores = np.empty(t + 1, F32)
            top = F32(-3e38)
            for j in range(t + 1):
                total = ZERO
                for d in range(size):
                    total += q[d] * keys[j, at + d]
                scores[j] = total
                top = max(top, total)
            mass = ZERO
            mixed = np.zeros(size, F32)
            for j in range(t + 1):
                weight = exp(scores[j] - top)
                mass += weight
                for d in range(size):
                    mixed[d] += weight * values[j, at + d]
            for d in range(size):
                out[at + d, i] = mixed[d] / mass
    return out


@njit(**JIT)
def gated_columns(both):
    """Return silu(gate) * up, transposed: (N, 2 I) to (I, N)."""
    rows, inner = both.shape[0], both.shape[1] // 2
    out = np.empty((inner, rows), F32)
    for i in range(rows):
        silu(both[i, :inner])
        out[:, i] = both[i, :inner] * both[i, inner:]
    return out


class PanelContext:
    """A context layer over one text, on packed weights; see `speculative.context.ContextMemory`."""

    def __init__(self, heads: ContextPanelHeads) -> None:
        self.heads = heads
        self.width = heads.config.emb_dim
        self.keys, self.values = np.empty((2, 0, self.width), F32)
        self.begin()

    def begin(self) -> None:
        """Forget the text before."""
        self.length = 0
        self._make_room(FIRST_ROOM)

    def _make_room(self, room: int) -> None:
        """Give keys and values room for so many positions, and keep those that are there."""
        grown = [np.zeros((room, self.width), F32) for _ in range(2)]
        if self.length:
            grown[0][: self.length] = self.keys[: self.length]
            grown[1][: self.length] = self.values[: self.length]
        self.keys, self.values = grown
        config = self.heads.config.context
        half = self.width // config.heads // 2
        speeds = config.rotary_base ** (-np.arange(half) / half)
        angles = np.arange(room)[:, None] * speeds
        self.cosines, self.sines = np.cos(angles).astype(F32), np.sin(angles).astype(F32)

    def extend(self, states: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
        """Add C verified positions; return the outputs (C, D)."""
        heads, width, count = self.heads, self.width, len(tokens)
        while self.length + count > len(self.keys):
            self._make_room(2 * len(self.keys))
        rows = states.float().cpu().numpy().reshape(count, -1, width)
        normed = rows / np.sqrt(np.mean(rows * rows, axis=-1, keepdims=True) + EPSILON)
        embedded = heads.table[list(tokens)] / heads.table_scale
        joined = np.concatenate([normed.reshape(count, -1), embedded], axis=1).astype(F32)
        x = product(np.ascontiguousarray(joined.T), heads.join, width)
        qkv = product(unit_columns(x), heads.qkv, 3 * width)
        config, first = heads.config.context, self.length
        mixed = attend(qkv, config.heads, first, self.keys, self.values, self.cosines, self.sines)
        x += product(mixed, heads.mix, width)
        both = product(unit_columns(x), heads.gate_up, 2 * config.inner_dim)
        x += product(gated_columns(both), heads.down, width)
        self.length += count
        return x


class ContextPanelHeads(PanelHeads):
    """Packed heads with a context layer, whose output is the first part of Z."""

    def __init__(
        self, config: Any, weights: dict[str, np.ndarray], table: np.ndarray, draft_ids: np.ndarray
    ) -> None:
        names = ("join", "qkv", "mix", "gate_up", "down")
        self.join, self.qkv, self.mix, self.gate_up, self.down = (
            rounded(weights[f"context.{name}.weight"]) for name in names
        )
        self.table_scale = F32(np.sqrt(np.mean(np.square(table, dtype=np.float64))))
        super().__init__(config, weights, table, draft_ids)
        parts = len(config.layers) + 1
        self.new_context().extend(torch.zeros(1, parts * config.emb_dim), [0])  # compiles it now

    def start(self, hidden: np.ndarray) -> np.ndarray:
        """Return the state (1, Z) before the first head, from context and states (Z,)."""
        parts = hidden.reshape(-1, self.config.emb_dim)
        z = (parts / np.sqrt(np.mean(parts * parts, axis=1, keepdims=True) + EPSILON)).reshape(
            1, -1
        )
        if not self.config.scale_input:
            return z
        return z / np.sqrt(2 * (np.mean(z * z) + EPSILON))

    def new_context(self) -> PanelContext:
        """Return the context layer over a new text."""
        return PanelContext(self)
