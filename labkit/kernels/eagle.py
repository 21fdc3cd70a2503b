"""EAGLE's layer on products that read each weight once; see `labkit.kernels.heads`.

It has the methods of `speculative.eagle.Eagle` that drafting calls, with `attend` and `best`. The
weights are rounded to 8 bits: since its features stand in for those of the base model, 4 bits cost
accepted tokens here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from labkit.kernels.heads import best_of_each, feed_forward, product, rounded, spread, unit
from labkit.kernels.panel import JIT, LANES, Q8_0, F
from labkit.kernels.weights_once import ZERO, exp


@njit(**JIT)
def projected(x, gain, shift, panels, size, speeds, positions):
    """Return queries, keys and values (M, 3 D) of inputs x (M, D), turned by their positions (M,).

    Queries are over the root of the heads' ``size``; ``speeds`` (size / 2) are the rotary ones.
    """
    rows, width = x.shape
    half = size // 2
    qkv = product(unit(x) * gain + shift, panels, 3 * width)
    for i in range(rows):
        for d in range(half):
            angle = positions[i] * speeds[d]
            c, s = F(np.cos(angle)), F(np.sin(angle))
            for at in range(d, 2 * width, size):
                low, high = qkv[i, at], qkv[i, at + half]
                qkv[i, at], qkv[i, at + half] = low * c - high * s, high * c + low * s
        qkv[i, :width] /= np.sqrt(F(size))
    return qkv


@njit(parallel=True, **JIT)
def attended(q, keys, values, own_keys, own_values):
    """Mix values by softmax(q k): M nodes over T places and each one's own P stand-ins.

    q (M, h, d); keys and values (T, h, d); own_keys and own_values (M, P, h, d). Returns (M, h, d).
    """
    nodes, heads, size = q.shape
    places, own = keys.shape[0], own_keys.shape[1]
    out = np.zeros(q.shape, F)
    for task in prange(nodes * heads):
        m, h = task // heads, task % heads
        scores = np.empty(places + own, F)
        for t in range(places + own):
            total = ZERO
            for d in range(size):
                key = keys[t, h, d] if t < places else own_keys[m, t - places, h, d]
                total += q[m, h, d] * key
            scores[t] = total
        top, mass = scores.max(), ZERO
        for t in range(places + own):
            scores[t] = exp(scores[t] - top)
            mass += scores[t]
        for t in range(places + own):
            for d in range(size):
                value = values[t, h, d] if t < places else own_values[m, t - places, h, d]
                out[m, h, d] += scores[t] / mass * value
    return out


@njit(**JIT)
def left(x, mixed, mix, gain, shift, gate_up, down, inner):
    """Return the features (M, D) from inputs x (M, D) and what attention mixed (M, D)."""
    out = x + product(mixed, mix, x.shape[1])
    feed_forward(out, unit(out) * gain + shift, gate_up, down, inner)
    return out


@njit(**JIT)
def best_tokens(feature, gain, shift, w_out, w_table, size, many):
    """Return logits (M, R), padded to a whole panel, and the best ``many`` of ``size`` tokens."""
    out = product(unit(feature) * gain + shift, w_out, feature.shape[1])
    logits = product(out, w_table, w_table.shape[0] * LANES)
    ids, logprobs = best_of_each(logits, size, many)
    return logits, ids, logprobs


class PanelEagle:
    """The layer, packed. ``weights`` are `Eagle`'s state dict as NumPy arrays, ``table`` (V, D).

    ``draft_ids`` (R,) are the tokens that it may draft.
    """

    def __init__(
        self, config: Any, weights: dict[str, np.ndarray], table: np.ndarray, draft_ids: np.ndarray
    ) -> None:
        self.config, self.table, self.size = config, table, len(draft_ids)
        self.table_scale = spread(table)
        names = ("join", "qkv", "mix", "gate_up", "down", "out")
        self.join, self.qkv, self.mix, self.gate_up, self.down, self.out = (
            rounded(weights[f"{name}.weight"], Q8_0) for name in names
        )
        self.fuse = rounded(weights["fuse.weight"], Q8_0) if config.layers else None
        self.attention_norm, self.inner_norm, self.output_norm = (
            tuple(np.asarray(weights[f"{name}_norm.{part}"], F) for part in ("weight", "bias"))
            for name in ("attention", "inner", "output")
        )
        self.w_table = rounded(table[draft_ids], Q8_0)
        half = config.emb_dim // config.heads // 2
        self.speeds = 10_000.0 ** (-np.arange(half) / half)
        feature = self.feature(torch.zeros(1, config.z_dim))  # compiles all, now
        x = self.enter(feature, torch.zeros(1, dtype=torch.long))
        q, k, v = self.project(x, torch.zeros(1))
        self.best(self.leave(x, self.attend(q, k, v, k[None], v[None])), 1)

    def feature(self, hidden: Tensor) -> Tensor:
        """Return z (..., D) from the base model's states of a place (..., W)."""
        width, parts = self.config.emb_dim, len(self.config.layers) + 1
        rows = hidden.numpy().reshape(-1, hidden.shape[-1] // width, width)[:, -parts:]
        if self.fuse is None:
            return torch.from_numpy(np.ascontiguousarray(rows)).reshape(*hidden.shape[:-1], width)
        normed = unit(rows.reshape(-1, width)).reshape(len(rows), -1)
        fused = torch.from_numpy(product(normed, self.fuse, width))
        return fused.reshape(*hidden.shape[:-1], width)

    def enter(self, feature: Tensor, tokens: Tensor) -> Tensor:
        """Return the inputs (M, D) of places, from features (M, D) and tokens (M,) they led to."""
        rows = np.ascontiguousarray(feature.numpy())
        embedded = self.table[tokens.numpy()] / self.table_scale
        joined = np.concatenate([unit(rows), embedded], axis=1)
        return torch.from_numpy(product(joined, self.join, self.config.emb_dim))

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (M, h, d) of inputs (M, D), by their positions (M,)."""
        size = self.config.emb_dim // self.config.heads
        at = positions.double().numpy()
        qkv = projected(x.numpy(), *self.attention_norm, self.qkv, size, self.speeds, at)
        shape = (len(qkv), 3, self.config.heads, size)
        q, k, v = torch.from_numpy(qkv).reshape(shape).unbind(1)
        return q, k, v

    def attend(self, q: Tensor, *remembered: Tensor) -> Tensor:
        """See `attended`."""
        parts = (np.ascontiguousarray(part.numpy()) for part in (q, *remembered))
        return torch.from_numpy(attended(*parts))

    def leave(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the features (M, D), from inputs (M, D) and what attention mixed (M, h, d)."""
        rows = np.ascontiguousarray(mixed.flatten(1).numpy())
        weights = (self.mix, *self.inner_norm, self.gate_up, self.down)
        return torch.from_numpy(left(x.numpy(), rows, *weights, self.config.inner_dim))

    def best(self, feature: Tensor, many: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (M, R), and the best ``many`` places in the draft ids, with log-probs."""
        weights = (*self.output_norm, self.out, self.w_table)
        found = best_tokens(feature.numpy(), *weights, self.size, many)
        logits, places, logprobs = map(torch.from_numpy, found)
        return logits[:, : self.size], places, logprobs
