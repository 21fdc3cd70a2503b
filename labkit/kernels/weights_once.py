"""The forward pass of a Llama-shaped model on products that read each weight once.

Plain numba over NumPy arrays: one function a step of the layer, in the order of the layer. Loops
marked ``prange`` are shared by the threads; everything else is small. Activations lie transposed,
(K, N), a column for each token, because that is how `panel.multiply` wants its left side.

Every sum runs in an order that depends on nothing but its own token: see `labkit.kernels.panel`.
In attention the sums run over cache positions in rising order, and a token that is not visible
adds an exact zero, so a draft token inside a tree gets the bits that it would get in a chain.

`labkit.kernels.plain` is the same model through transformers; the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from llvmlite import ir
from numba import get_num_threads, njit, prange, types
from numba.extending import intrinsic

from labkit.errors import LabkitError
from labkit.kernels.bandwidth import Probe
from labkit.kernels.engine import Cache, Output, Rows, stack
from labkit.kernels.panel import (
    BFLOAT16,
    FLOAT32,
    JIT,
    LANES,
    aligned_zeros,
    multiply,
    pack,
    pack_as_quantised,
)
from labkit.kernels.rotary import rotary_tables

STORAGE = ("float32", "bfloat16", "q4_1")
"""How weights may be stored; see `WeightsOnce`."""

F = np.float32
ZERO, ONE, LOWEST = F(0), F(1), F(-np.inf)
# exp(x) = 2^n * exp(r): r = x - n ln 2 lies within +-0.35, where Taylor's polynomial of degree 6 is
# good to 1.2e-7. ROUNDER = 1.5 * 2^23 pushes x / ln 2 to a whole number in the low bits.
LOG2_E, LN2_HIGH, LN2_LOW, ROUNDER = F(1.44269504), F(0.693359375), F(-2.12194440e-4), F(12582912)
E6, E5, E4, E3 = F(1 / 720), F(1 / 120), F(1 / 24), F(1 / 6)
E2, SMALLEST, LARGEST = F(0.5), F(-87), F(88)


@intrinsic
def _times_power_of_two(_context: Any, value: Any, rounded: Any) -> Any:
    """``value`` * 2^n, n being the low bits of ``rounded``: n is added to the exponent."""
    signature = types.float32(types.float32, types.float32)

    def generate(_ctx: Any, b: Any, _sig: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        exponent = b.shl(b.bitcast(args[1], i32), ir.Constant(i32, 23))
        return b.bitcast(b.add(b.bitcast(args[0], i32), exponent), ir.FloatType())

    return signature, generate


@njit(**JIT)
def exp(x):
    """e^x in float32, within 3 units in the last place; written so that LLVM can vectorise it."""
    x = min(max(x, SMALLEST), LARGEST)
    rounded = x * LOG2_E + ROUNDER
    n = rounded - ROUNDER
    r = x - n * LN2_HIGH - n * LN2_LOW
    series = (((((E6 * r + E5) * r + E4) * r + E3) * r + E2) * r + ONE) * r + ONE
    return _times_power_of_two(series, rounded)


@njit(**JIT)
def rms_norm(x, gain, epsilon):
    """x / sqrt(mean(x^2) + epsilon) * gain, transposed: (N, D) to (D, N)."""
    tokens, width = x.shape
    out = np.empty((width, tokens), F)
    partial = np.empty(LANES, F)
    whole = width - width % LANES
    for i in range(tokens):
        partial[:] = ZERO
        for k in range(0, whole, LANES):
            for lane in range(LANES):
                partial[lane] += x[i, k + lane] * x[i, k + lane]
        total = ZERO
        for k in range(whole, width):
            total += x[i, k] * x[i, k]
        for lane in range(LANES):
            total += partial[lane]
        scale = ONE / np.sqrt(total / F(width) + epsilon)
        for k in range(width):
            out[k, i] = x[i, k] * scale * gain[k]
    return out


@njit(**JIT)
def project(x, panel, y, column, limit):
    """A panel's 16 outputs for every token, or those of them that exist: y[:, column:limit]."""
    if column + LANES <= limit:
        multiply(x, panel, y, column)
        return
    part = np.empty((x.shape[1], LANES), F)
    multiply(x, panel, part, 0)
    for i in range(x.shape[1]):
        for lane in range(limit - column):
            y[i, column + lane] = part[i, lane]


@njit(**JIT)
def add_bias(y, bias):
    """Add a bias (out,) to every row of y (N, out); all zeros where the model has none."""
    for i in range(y.shape[0]):
        for k in range(y.shape[1]):
            y[i, k] += bias[k]


@njit(**JIT)
def project_and_add(x, panel, y, column):
    """A panel's outputs, added to the residual stream y (N, D)."""
    part = np.empty((x.shape[1], LANES), F)
    multiply(x, panel, part, 0)
    for i in range(x.shape[1]):
        for lane in range(min(LANES, y.shape[1] - column)):
            y[i, column + lane] += part[i, lane]


@njit(**JIT)
def gated_unit(x, gate, up, out, column):
    """16 units of the feed-forward layer: silu(gate) * up, transposed into out (inner, N)."""
    tokens = x.shape[1]
    gates, ups = np.empty((tokens, LANES), F), np.empty((tokens, LANES), F)
    multiply(x, gate, gates, 0)
    multiply(x, up, ups, 0)
    for i in range(tokens):
        for lane in range(LANES):
            g = gates[i, lane]
            gates[i, lane] = g / (ONE + exp(-g)) * ups[i, lane]
        for lane in range(min(LANES, out.shape[0] - column)):
            out[column + lane, i] = gates[i, lane]


@njit(**JIT)
def remember(qkv, low, high, positions, length, heads, keys, values, cosines, sines):
    """Write the new tokens' keys (rotated) and values into one slot of one layer's cache."""
    kv_heads, _, size, _ = keys.shape
    half = size // 2
    for i in range(low, high):
        at = length + i - low
        block, lane = at // LANES, at % LANES
        place = positions[i]
        for h in range(kv_heads):
            k = (heads + h) * size
            v = (heads + kv_heads + h) * size
            for d in range(half):
                first, second = qkv[i, k + d], qkv[i, k + half + d]
                c, s = cosines[place, d], sines[place, d]
                keys[h, block, d, lane] = first * c - second * s
                keys[h, block, half + d, lane] = second * c + first * s
            for d in range(size):
                values[h, d // LANES, at, d % LANES] = qkv[i, v + d]


@njit(**JIT)
def exponentials(row, end, length, seen):
    """Turn the scores row[:end] into e^(score - top), hidden tokens' into 0; return their sum.

    ``seen`` (count,) says which of the new tokens, at row[length:], are visible.
    """
    for j in range(seen.shape[0]):
        if seen[j] == 0:
            row[length + j] = LOWEST
    top = LOWEST
    for j in range(end):
        top = max(top, row[j])
    for j in range(end):
        row[j] = exp(row[j] - top)
    for j in range(seen.shape[0]):
        if seen[j] == 0:
            row[length + j] = ZERO
    mass = ZERO
    for j in range(end):
        mass += row[j]
    return mass


@njit(**JIT)
def attend(
    group, share, qkv, low, high, positions, length, visible, keys, values, cosines, sines, out
):
    """The ``share`` query heads of one group: softmax(q k^T / sqrt(d)) v, into out (H d, N).

    All of a group's heads and tokens are rows of the same products, since they read the same keys
    (blocks, d, 16) and values (d / 16, capacity, 16); the new tokens' are already among them.
    Row i * share + s is token i under the group's head s.
    """
    count, size = high - low, keys.shape[1]
    rows, half, end = count * share, size // 2, length + high - low
    scale = ONE / np.sqrt(F(size))
    q = np.empty((size, rows), F)
    for r in range(rows):
        i, head = low + r // share, group * share + r % share
        place = positions[i]
        for d in range(half):
            first = qkv[i, head * size + d] * scale
            second = qkv[i, head * size + half + d] * scale
            c, s = cosines[place, d], sines[place, d]
            q[d, r] = first * c - second * s
            q[half + d, r] = second * c + first * s
    blocks = (end + LANES - 1) // LANES
    scores = np.empty((rows, blocks * LANES), F)
    for b in range(blocks):
        multiply(q, keys[b], scores, b * LANES)
    weights = np.empty((end, rows), F)
    total = np.empty(rows, F)
    for r in range(rows):
        mass = exponentials(scores[r], end, length, visible[low + r // share, low:high])
        for j in range(end):
            weights[j, r] = scores[r, j]
        total[r] = ONE / mass
    mixed = np.empty((rows, LANES), F)
    for v in range(values.shape[0]):
        multiply(weights, values[v, :end], mixed, 0)
        for r in range(rows):
            at = (group * share + r % share) * size + v * LANES
            for lane in range(min(LANES, size - v * LANES)):
                out[at + lane, low + r // share] = mixed[r, lane] * total[r]


@njit(parallel=True, **JIT)
def all_layers(
    x,
    positions,
    bounds,
    slots,
    lengths,
    visible,
    heads,
    epsilon,
    norms,
    biases,
    w_qkv,
    w_out,
    w_gate_up,
    w_down,
    inner,
    keys,
    values,
    cosines,
    sines,
    read,
):
    """All layers: x (N, D), the residual stream, changed in place.

    Returns the final norm's states (D, N), and x as it was after each of the layers ``read`` (r,),
    counted from 1: (r, N, D). keys: (layers, slots, kv heads, blocks, d, 16); values: (layers,
    slots, kv heads, d / 16, capacity, 16). ``bounds`` says which rows of x belong to which of
    ``slots``.
    """
    tokens = x.shape[0]
    kv_heads, size = keys.shape[2], keys.shape[4]
    share, groups = heads // kv_heads, slots.shape[0]
    qkv = np.empty((tokens, (heads + 2 * kv_heads) * size), F)
    mixed = np.empty((heads * size, tokens), F)
    units = np.empty((inner, tokens), F)
    told = np.empty((read.shape[0], *x.shape), F)
    for layer in range(w_qkv.shape[0]):
        normed = rms_norm(x, norms[2 * layer], epsilon)
        for p in prange(w_qkv.shape[1]):
            project(normed, w_qkv[layer, p], qkv, p * LANES, qkv.shape[1])
        add_bias(qkv, biases[layer])
        for g in range(groups):
            remember(
                qkv,
                bounds[g],
                bounds[g + 1],
                positions,
                lengths[slots[g]],
                heads,
                keys[layer, slots[g]],
                values[layer, slots[g]],
                cosines,
                sines,
            )
        for task in prange(groups * kv_heads):
            g, group = task // kv_heads, task % kv_heads
            slot = slots[g]
            attend(
                group,
                share,
                qkv,
                bounds[g],
                bounds[g + 1],
                positions,
                lengths[slot],
                visible,
                keys[layer, slot, group],
                values[layer, slot, group],
                cosines,
                sines,
                mixed,
            )
        for p in prange(w_out.shape[1]):
            project_and_add(mixed, w_out[layer, p], x, p * LANES)
        normed = rms_norm(x, norms[2 * layer + 1], epsilon)
        for p in prange(w_gate_up.shape[1] // 2):
            gate, up = w_gate_up[layer, 2 * p], w_gate_up[layer, 2 * p + 1]
            gated_unit(normed, gate, up, units, p * LANES)
        for p in prange(w_down.shape[1]):
            project_and_add(units, w_down[layer, p], x, p * LANES)
        for place in range(read.shape[0]):
            if read[place] == layer + 1:
                told[place] = x
    return rms_norm(x, norms[-1], epsilon), told


@njit(parallel=True, **JIT)
def head_logits(normed, w_head, out):
    """Logits (N, V) of normed states (D, N)."""
    for p in prange(w_head.shape[0]):
        project(normed, w_head[p], out, p * LANES, out.shape[1])


@njit(**JIT)
def move_rows(keys, values, length, path):
    """Close the ranks: the cache rows length + path[j] move to length + j, in every layer."""
    for j in range(path.shape[0]):
        old, new = length + path[j], length + j
        if old != new:
            keys[:, :, new // LANES, :, new % LANES] = keys[:, :, old // LANES, :, old % LANES]
            values[:, :, :, new] = values[:, :, :, old]


class PanelCache(Cache):
    """Keys and values in the panels' layout, float32, several slots; see `kernels.engine.Cache`."""

    def __init__(
        self, layer_count: int, kv_heads: int, size: int, capacity: int, slots: int
    ) -> None:
        super().__init__(capacity, slots)
        blocks = -(-capacity // LANES)
        self.keys = aligned_zeros(layer_count, slots, kv_heads, blocks, size, LANES)
        panels = -(-size // LANES)
        self.values = aligned_zeros(layer_count, slots, kv_heads, panels, blocks * LANES, LANES)

    def _move(self, slot: int, length: int, path: np.ndarray) -> None:
        move_rows(self.keys[:, slot], self.values[:, slot], length, path)

    def copy_slot(self, source: int, target: int) -> None:
        """See `Cache`."""
        length = int(self.lengths[source])
        blocks = -(-length // LANES)
        self.keys[:, target, :, :blocks] = self.keys[:, source, :, :blocks]
        self.values[:, target, :, :, :length] = self.values[:, source, :, :, :length]
        self.lengths[target] = length


def _packer(storage: str, config: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What makes panels of a weight (out, in), stored as that name says."""
    if storage != "q4_1":
        kind = {"float32": FLOAT32, "bfloat16": BFLOAT16}[storage]
        return lambda weight: pack(weight, kind)

    def packed(weight: np.ndarray) -> np.ndarray:
        found = pack_as_quantised(weight)
        if found is None:
            raise LabkitError(
                f"This {config.model_type} model was not quantised in blocks of Q4_1 or Q8_0, so it"
                " cannot be stored as q4_1: give float32 or bfloat16."
            )
        return found

    return packed


class WeightsOnce:
    """A Llama-shaped model (Llama, SmolLM, Mistral without window, Qwen2) on panel products.

    ``weights`` are transformers' names to float32 arrays; ``config`` is transformers' config.
    ``storage`` is "float32"; "bfloat16" for weights rounded to half the bytes, which makes base and
    vanilla alike another model; or "q4_1" for weights kept in the blocks that they were quantised
    in, which gives the bits of float32. The fewer the bytes, the more an eighth token costs of the
    first one's time. Raises `LabkitError` for "q4_1" where a weight was never quantised.
    """

    exact = True

    def __init__(
        self, config: Any, weights: Mapping[str, np.ndarray], storage: str = "float32"
    ) -> None:
        as_panels = _packer(storage, config)
        self.name = "weights once" if storage == "float32" else f"weights once, {storage}"
        self.device = torch.device("cpu")
        self.inner = config.intermediate_size
        self.vocabulary, self.width = config.vocab_size, config.hidden_size
        self.layer_count = config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or self.width // self.heads
        self.epsilon = np.float32(config.rms_norm_eps)
        self.cosines, self.sines = rotary_tables(config, self.size)
        self.context = len(self.cosines)

        def named(name: str) -> np.ndarray:
            return np.asarray(weights[name], np.float32)

        def layer_stack(make: Any) -> np.ndarray:
            first = make("model.layers.0.")
            packed = aligned_zeros(self.layer_count, *first.shape, dtype=first.dtype)
            packed[0] = first
            for layer in range(1, self.layer_count):
                packed[layer] = make(f"model.layers.{layer}.")
            return packed

        def joined(prefix: str) -> np.ndarray:
            parts = [named(f"{prefix}self_attn.{part}_proj.weight") for part in "qkv"]
            return as_panels(np.concatenate(parts))

        def gate_up(prefix: str) -> np.ndarray:
            gate = as_panels(named(f"{prefix}mlp.gate_proj.weight"))
            up = as_panels(named(f"{prefix}mlp.up_proj.weight"))
            return np.stack([gate, up], axis=1).reshape(-1, *gate.shape[1:])

        self.w_qkv = layer_stack(joined)
        self.w_out = layer_stack(lambda at: as_panels(named(f"{at}self_attn.o_proj.weight")))
        self.w_gate_up = layer_stack(gate_up)
        self.w_down = layer_stack(lambda at: as_panels(named(f"{at}mlp.down_proj.weight")))
        norms = [
            named(f"model.layers.{layer}.{norm}_layernorm.weight")
            for layer in range(self.layer_count)
            for norm in ("input", "post_attention")
        ]
        self.norms = np.stack([*norms, named("model.norm.weight")])
        biased = "model.layers.0.self_attn.q_proj.bias" in weights
        rows = (self.heads + 2 * self.kv_heads) * self.size
        self.biases = np.zeros((self.layer_count, rows), np.float32)
        if biased:
            for layer in range(self.layer_count):
                at = f"model.layers.{layer}.self_attn."
                self.biases[layer] = np.concatenate(
                    [named(f"{at}{part}_proj.bias") for part in "qkv"]
                )
        self.embedding = named("model.embed_tokens.weight")
        tied = "lm_head.weight" not in weights
        self.w_head = as_panels(self.embedding if tied else named("lm_head.weight"))
        self._logits = np.empty((0, self.vocabulary), np.float32)

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""
        packed = (self.w_qkv, self.w_out, self.w_gate_up, self.w_down, self.w_head)
        return sum(weights.nbytes for weights in packed)

    @property
    def threads(self) -> int:
        """Threads that share a pass."""
        return int(get_num_threads())

    def bandwidth_probe(self) -> Probe:
        """See `kernels.engine.Engine`."""
        return Probe()

    def new_cache(self, capacity: int, slots: int = 1) -> PanelCache:
        """An empty cache for ``slots`` sequences of at most ``capacity`` tokens."""
        return PanelCache(self.layer_count, self.kv_heads, self.size, capacity, slots)

    def forward(
        self,
        rows: Sequence[Rows],
        cache: PanelCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        """See `kernels.engine.Engine`."""
        tokens, positions, bounds, slots, lengths, visible = stack(self, rows, cache, layers)
        x = self.embedding[tokens]
        normed, told = all_layers(
            x,
            positions,
            bounds,
            slots,
            lengths,
            visible,
            self.heads,
            self.epsilon,
            self.norms,
            self.biases,
            self.w_qkv,
            self.w_out,
            self.w_gate_up,
            self.w_down,
            self.inner,
            cache.keys,
            cache.values,
            self.cosines,
            self.sines,
            np.array(layers, np.int64),
        )
        wanted = normed if logits == "all" else np.ascontiguousarray(normed[:, bounds[1:] - 1])
        if self._logits.shape[0] < wanted.shape[1]:
            self._logits = np.empty((wanted.shape[1], self.vocabulary), np.float32)
        out = self._logits[: wanted.shape[1]]
        head_logits(wanted, self.w_head, out)
        hidden = np.concatenate([*told, normed.T], axis=1)
        return Output(torch.from_numpy(hidden), torch.from_numpy(out))
