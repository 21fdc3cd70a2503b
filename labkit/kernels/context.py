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

from labkit.kernels.heads import PanelHeads, rounded, spread, unit
from labkit.kernels.panel import JIT
from labkit.kernels.weights_once import exp, linear, silu

F32 = np.float32
ZERO, ONE = F32(0), F32(1)
FIRST_ROOM = 256
"""Positions that a new memory has room for; it doubles when it is full."""


@njit(**JIT)
def product(rows, panels, outputs):
    """Multiply rows (N, K) by packed weights: (N, outputs)."""
    out = np.empty((rows.shape[0], outputs), F32)
    linear(rows, panels, out)
    return out


@njit(parallel=True, **JIT)
def attend(qkv, heads, first, keys, values, cosines, sines):
    """Attention of N new positions after ``first`` old ones, whose keys and values it also stores.

    qkv (N, 3 D); keys and values (T, D) are filled from row ``first`` on; cosines and sines
    (T, d / 2) by position. Returns the mixed values (N, D).
    """
    rows, width = qkv.shape[0], qkv.shape[1] // 3
    size = width // heads
    half = size // 2
    out = np.empty((rows, width), F32)
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
                out[i, at + d] = mixed[d] / mass
    return out


@njit(**JIT)
def feed_forward(x, normed, gate_up, down, inner):
    """Add down(silu(gate) * up) of ``normed`` (N, D) to x (N, D), in place."""
    rows, width = x.shape
    both = product(normed, gate_up, 2 * inner)
    gated = np.empty((rows, inner), F32)
    for i in range(rows):
        silu(both[i, :inner])
        gated[i] = both[i, :inner] * both[i, inner:]
    x += product(gated, down, width)


@njit(**JIT)
def context_layer(states, embedded, weights, inner, heads, first, keys, values, cosines, sines):
    """Run the layer on N new positions after ``first`` old ones: outputs (N, D); see `attend`.

    states (N, parts D) and embedded (N, D), the next token's over the table's root mean square.
    """
    join, qkv, mix, gate_up, down = weights
    rows, width = embedded.shape
    joined = np.empty((rows, states.shape[1] + width), F32)
    joined[:, : states.shape[1]] = unit(states.reshape(-1, width)).reshape(rows, -1)
    joined[:, states.shape[1] :] = embedded
    x = product(joined, join, width)
    asked = product(unit(x), qkv, 3 * width)
    x += product(attend(asked, heads, first, keys, values, cosines, sines), mix, width)
    feed_forward(x, unit(x), gate_up, down, inner)
    return x


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
        heads, count, config = self.heads, len(tokens), self.heads.config.context
        while self.length + count > len(self.keys):
            self._make_room(2 * len(self.keys))
        out = context_layer(
            states.float().cpu().numpy(),
            heads.table[list(tokens)] / heads.table_scale,
            heads.context,
            config.inner_dim,
            config.heads,
            self.length,
            self.keys,
            self.values,
            self.cosines,
            self.sines,
        )
        self.length += count
        return out


class ContextPanelHeads(PanelHeads):
    """Packed heads with a context layer, whose output is the first part of Z."""

    def __init__(
        self, config: Any, weights: dict[str, np.ndarray], table: np.ndarray, draft_ids: np.ndarray
    ) -> None:
        names = ("join", "qkv", "mix", "gate_up", "down")
        self.context = tuple(rounded(weights[f"context.{name}.weight"]) for name in names)
        self.table_scale = spread(table)
        super().__init__(config, weights, table, draft_ids)
        parts = len(config.layers) + 1
        self.new_context().extend(torch.zeros(1, parts * config.emb_dim), [0])  # compiles it now

    def new_context(self) -> PanelContext:
        """Return the context layer over a new text."""
        return PanelContext(self)
