"""The heads of a speculator, and their context layer, on products that read each weight once.

A draft need not be exact, since the base model checks it; it has to be quick. So the weights are
rounded, whatever the base model's storage is, and multiplied as integers: those of the heads to 4
bits and the base model's table, where 4 bits cost accepted tokens, to 8. That is less than half the
bytes of bfloat16. The context layer runs once per step on the few rows that were committed, so,
like the heads, it is bound by reading its weights, of 4 bits as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange

from labkit.kernels.integers import pack_integers
from labkit.kernels.panel import BFLOAT16, JIT, LANES, Q4_1, Q8_0, F, pack
from labkit.kernels.weights_once import LOWEST, ONE, ZERO, exp, linear, silu

FIRST_ROOM = 256
"""Positions that a new memory has room for; it doubles when it is full."""

# erf(z) = 1 - (a1 t + ... + a5 t^5) exp(-z^2), t = 1 / (1 + p z), within 1.5e-7
# (Abramowitz and Stegun 1964, 7.1.26)
P, A1, A2, A3 = F(0.3275911), F(0.254829592), F(-0.284496736), F(1.421413741)
A4, A5, ROOT_HALF, HALF = F(-1.453152027), F(1.061405429), F(0.70710678), F(0.5)


@njit(**JIT)
def gelu(x):
    """Return x times the normal distribution's share below x."""
    z = abs(x) * ROOT_HALF
    t = ONE / (ONE + P * z)
    erf = ONE - ((((A5 * t + A4) * t + A3) * t + A2) * t + A1) * t * exp(-z * z)
    return HALF * x * (ONE + (erf if x > ZERO else -erf))


@njit(**JIT)
def activate(x, gain, shift, groups):
    """Compute gelu(x / rms(x) * gain + shift) in place, rms over a group: x (M, I)."""
    rows, inner = x.shape
    width = inner // groups
    for i in range(rows):
        row = x[i]
        for first in range(0, inner, width):
            total = ZERO
            for k in range(first, first + width):
                total += row[k] * row[k]
            scale = ONE / np.sqrt(total / F(width) + F(1e-6))
            for k in range(first, first + width):
                row[k] = row[k] * scale * gain[k] + shift[k]
        for k in range(inner):  # a loop over one array, which LLVM vectorises
            row[k] = gelu(row[k])


@njit(**JIT)
def best(logits, many, ids, logprobs):
    """Find the ``many`` largest of one row of logits, falling: indices and log-probabilities."""
    found = np.full(many, LOWEST, F)
    ids[:many] = 0
    for v in range(logits.shape[0]):
        value = logits[v]
        if value > found[many - 1]:
            place = many - 1
            while place > 0 and value > found[place - 1]:
                found[place], ids[place] = found[place - 1], ids[place - 1]
                place -= 1
            found[place], ids[place] = value, v
    partial = np.zeros(LANES, F)
    whole = logits.shape[0] - logits.shape[0] % LANES
    for v in range(0, whole, LANES):
        for lane in range(LANES):
            partial[lane] += exp(logits[v + lane] - found[0])
    total = partial.sum()
    for v in range(whole, logits.shape[0]):
        total += exp(logits[v] - found[0])
    for place in range(many):
        logprobs[place] = found[place] - found[0] - np.log(total)


@njit(parallel=True, **JIT)
def best_of_each(logits, size, many):
    """Find the best ``many`` of the first ``size`` of each row of logits; see `best`."""
    rows = logits.shape[0]
    ids, logprobs = np.empty((rows, many), np.int64), np.empty((rows, many), F)
    for i in prange(rows):
        best(logits[i][:size], many, ids[i], logprobs[i])
    return ids, logprobs


@njit(**JIT)
def product(rows, panels, outputs):
    """Multiply rows (N, K) by packed weights: (N, outputs)."""
    out = np.empty((rows.shape[0], outputs), F)
    linear(rows, panels, out)
    return out


@njit(**JIT)
def head_step(state, embedded, keep, add, weights, w_table, size, many, groups, parts):
    """Run one head for M nodes: new states (M, I), and the best ``many`` tokens of each node.

    state (M, S) and embedded (M, D), the token's row in the base model's table. The norm is over
    each of so many ``groups`` of the state; the projection maps each of ``parts`` of it apart.
    Returns the state (M, I), the logits (M, R) over the draft vocabulary's R tokens, padded to a
    whole panel, and ids and log-probabilities (M, many) of the best of its ``size`` tokens.
    """
    w_proj, w_token, gain, shift, w_out = weights
    rows, inner = state.shape[0], gain.shape[0]
    mixed = np.empty((rows, inner), F)
    wide, panels, width = state.shape[1] // parts, w_proj.shape[0] // parts, inner // parts
    for g in range(parts):
        before = state[:, g * wide : (g + 1) * wide]
        part = product(before, w_proj[g * panels : (g + 1) * panels], width)
        mixed[:, g * width : (g + 1) * width] = part * keep
    if add > ZERO:
        mixed += product(embedded, w_token, inner) * add
    activate(mixed, gain, shift, groups)
    feature = product(mixed, w_out, embedded.shape[1])
    logits = product(feature, w_table, w_table.shape[0] * LANES)
    ids, logprobs = best_of_each(logits, size, many)
    return mixed, logits, ids, logprobs


def rounded(weight: np.ndarray, kind: int = Q4_1) -> np.ndarray:
    """Pack a weight (out, in) as ``kind``, or in bfloat16 if no blocks of 32 fill its inputs."""
    weight = np.asarray(weight, np.float32)
    packed = pack_integers(weight, kind)
    return pack(weight, BFLOAT16) if packed is None else packed


def spread(table: np.ndarray) -> np.float32:
    """Return the root mean square of a whole table."""
    return F(np.sqrt(np.mean(np.square(table, dtype=np.float64))))


@njit(**JIT)
def unit(rows):
    """Return ``rows`` (N, D), each over its root mean square."""
    out = np.empty_like(rows)
    for i in range(rows.shape[0]):
        total = ZERO
        for k in range(rows.shape[1]):
            total += rows[i, k] * rows[i, k]
        scale = ONE / np.sqrt(total / F(rows.shape[1]) + F(1e-6))
        for k in range(rows.shape[1]):
            out[i, k] = rows[i, k] * scale
    return out


class PanelHeads:
    """All heads of a speculator, packed. ``weights`` are `Speculator`'s state dict as NumPy arrays.

    ``draft_ids`` (R,) are the tokens that a head may draft.
    """

    def __init__(
        self, config: Any, weights: dict[str, np.ndarray], table: np.ndarray, draft_ids: np.ndarray
    ) -> None:
        self.config = config
        self.table = table
        self.draft_ids = draft_ids

        def plain(name: str) -> np.ndarray:
            return np.asarray(weights[name], np.float32)

        self.heads = [
            (
                rounded(weights[f"proj.{i}.weight"]),
                rounded(weights[f"token.{i}.weight"]),
                plain(f"norm.{i}.weight"),
                plain(f"norm.{i}.bias"),
                rounded(weights[f"out.{i}.weight"]),
            )
            for i in range(config.n_predict)
        ]
        self.w_table = rounded(table[draft_ids], Q8_0)
        self.keep = F(config.state_weight if config.hierarchical else 1)
        self.add = F(config.emb_weight if config.hierarchical else 0)
        # Compiled (or read from numba's cache) now, not within the first draft that is timed.
        first = self.start(np.zeros(config.z_dim, np.float32))
        self.step(0, np.concatenate([first]), draft_ids[:1], 1)

    def start(self, hidden: np.ndarray) -> np.ndarray:
        """Return the state (1, Z) before the first head, from a place's states (W,).

        For heads with a context layer its output at that place stands before them.
        """
        parts = hidden.reshape(-1, self.config.emb_dim)[-1 - self.config.more :]
        z = (unit(parts) if self.config.more else parts).reshape(1, -1)
        return unit(z) * ROOT_HALF if self.config.scale_input else z

    def step(
        self, head: int, state: np.ndarray, tokens: np.ndarray, many: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Run a head for M nodes: states, logits (M, R), ids and log-probabilities (M, many)."""
        groups, size, table = self.config.groups, len(self.draft_ids), self.table[tokens]
        weights = (self.keep, self.add, self.heads[head], self.w_table)
        parts = groups if head and self.config.hierarchical else 1
        state, logits, places, logprobs = head_step(
            state, table, *weights, size, many, groups, parts
        )
        return state, logits[:, :size], self.draft_ids[places], logprobs


@njit(parallel=True, **JIT)
def attend(qkv, heads, first, keys, values, cosines, sines):
    """Attention of N new positions after ``first`` old ones, whose keys and values it also stores.

    qkv (N, 3 D); keys and values (T, D) are filled from row ``first`` on; cosines and sines
    (T, d / 2) by position. Returns the mixed values (N, D).
    """
    rows, width = qkv.shape[0], qkv.shape[1] // 3
    size = width // heads
    half = size // 2
    out = np.empty((rows, width), F)
    scale = ONE / np.sqrt(F(size))
    for h in prange(heads):
        at = h * size
        q = np.empty(size, F)
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
            scores = np.empty(t + 1, F)
            top = F(-3e38)
            for j in range(t + 1):
                total = ZERO
                for d in range(size):
                    total += q[d] * keys[j, at + d]
                scores[j] = total
                top = max(top, total)
            mass = ZERO
            mixed = np.zeros(size, F)
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
    gated = np.empty((rows, inner), F)
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
    joined = np.empty((rows, states.shape[1] + width), F)
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
        self.begin()

    def begin(self) -> None:
        """Forget the text before."""
        self.length = 0
        self.keys, self.values = np.zeros((2, 0, self.width), F)
        self._make_room(FIRST_ROOM)

    def _make_room(self, room: int) -> None:
        """Give keys and values room for so many positions, and keep those that are there."""
        grown = np.zeros((2, room, self.width), F)
        grown[:, : self.length] = self.keys[: self.length], self.values[: self.length]
        self.keys, self.values = grown
        config = self.heads.config.context
        half = self.width // config.heads // 2
        speeds = config.rotary_base ** (-np.arange(half) / half)
        angles = np.arange(room)[:, None] * speeds
        self.cosines, self.sines = np.cos(angles).astype(F), np.sin(angles).astype(F)

    def extend(self, states: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
        """Add C verified positions; return the outputs (C, D)."""
        heads, count, config = self.heads, len(tokens), self.heads.config.context
        while self.length + count > len(self.keys):
            self._make_room(2 * len(self.keys))
        embedded = heads.table[list(tokens)] / heads.table_scale
        sizes = (config.inner_dim, config.heads, self.length)
        memory = (self.keys, self.values, self.cosines, self.sines)
        given = states.float().cpu().numpy()
        out = context_layer(given, embedded, heads.context, *sizes, *memory)
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
