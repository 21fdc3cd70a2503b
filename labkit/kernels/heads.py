"""The heads of a speculator on products that read each weight once.

A draft need not be exact, since the base model checks it; it has to be quick. So the weights are
rounded, whatever the base model's storage is, and multiplied as integers: those of the heads to 4
bits and the base model's table, where 4 bits cost accepted tokens, to 8. That is less than half the
bytes of bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from labkit.kernels.integers import pack_integers
from labkit.kernels.panel import BFLOAT16, JIT, LANES, Q4_1, Q8_0, F, pack
from labkit.kernels.weights_once import LOWEST, ONE, ZERO, exp, linear

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
        part = np.empty((rows, width), F)
        before = state[:, g * wide : (g + 1) * wide]
        linear(before, w_proj[g * panels : (g + 1) * panels], part)
        mixed[:, g * width : (g + 1) * width] = part * keep
    if add > ZERO:
        token = np.empty((rows, inner), F)
        linear(embedded, w_token, token)
        mixed += token * add
    feature = np.empty((rows, embedded.shape[1]), F)
    activate(mixed, gain, shift, groups)
    linear(mixed, w_out, feature)
    logits = np.empty((rows, w_table.shape[0] * LANES), F)
    linear(feature, w_table, logits)
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
        groups = self.config.groups
        state, logits, places, logprobs = head_step(
            state,
            self.table[tokens],
            self.keep,
            self.add,
            self.heads[head],
            self.w_table,
            len(self.draft_ids),
            many,
            groups,
            groups if head and self.config.hierarchical else 1,
        )
        return state, logits[:, : len(self.draft_ids)], self.draft_ids[places], logprobs
