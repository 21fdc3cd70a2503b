"""The forward pass of a Llama-shaped model on products that read each weight once.

Plain numba over NumPy arrays: one function a step of the layer, in the order of the layer. Loops
marked ``prange`` are shared by the threads; everything else is small.

Every sum runs in an order that depends on nothing but its own token: see `labkit.kernels.panel`.
In attention the sums run over cache positions in rising order, and a token that is not visible
adds an exact zero, so a draft token inside a tree gets the bits that it would get in a chain.

`labkit.kernels.plain` is the same model through transformers; the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import get_num_threads, njit, prange, types
from numba.extending import intrinsic, overload

from labkit.errors import LabkitError
from labkit.kernels.bandwidth import Probe
from labkit.kernels.engine import Cache, Output, Rows, stack
from labkit.kernels.integers import multiply_integers, pack_integers, quantise
from labkit.kernels.llama import LlamaEngine, LlamaWeights
from labkit.kernels.panel import (
    BFLOAT16,
    JIT,
    LANES,
    MANY,
    F,
    aligned_zeros,
    grouped,
    multiply,
    pack,
    pack_as_quantised,
)

PACKERS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "float32": pack,
    "bfloat16": lambda weight: pack(weight, BFLOAT16),
    "q4_1": pack_as_quantised,
    "q4_1_int8": pack_integers,
}
STORAGE = tuple(PACKERS)
"""How weights may be stored; see `WeightsOnce`."""

TOGETHER = 4
"""Most tokens of a slot that one task of the attention computes."""

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
    """Compute e^x in float32, within 3 units in the last place, so that LLVM can vectorise it."""
    x = min(max(x, SMALLEST), LARGEST)
    rounded = x * LOG2_E + ROUNDER
    n = rounded - ROUNDER
    r = x - n * LN2_HIGH - n * LN2_LOW
    series = (((((E6 * r + E5) * r + E4) * r + E3) * r + E2) * r + ONE) * r + ONE
    return _times_power_of_two(series, rounded)


@njit(**JIT)
def norm_token(x, gain, epsilon, out, partial):
    """Compute x / sqrt(mean(x^2) + epsilon) * gain for one token: x (D,) to out (D,)."""
    width = x.shape[0]
    whole = width - width % LANES
    partial[:] = ZERO
    for k in range(0, whole, LANES):
        for lane in range(LANES):
            partial[lane] += x[k + lane] * x[k + lane]
    total = ZERO
    for k in range(whole, width):
        total += x[k] * x[k]
    for lane in range(LANES):
        total += partial[lane]
    scale = ONE / np.sqrt(total / F(width) + epsilon)
    for k in range(width):
        out[k] = x[k] * scale * gain[k]


@njit(parallel=True, **JIT)
def norm_many(x, gain, epsilon, out):
    """See `rms_norm`."""
    for i in prange(x.shape[0]):
        norm_token(x[i], gain, epsilon, out[i], np.empty(LANES, F))


@njit(**JIT)
def rms_norm(x, gain, epsilon):
    """Compute x / sqrt(mean(x^2) + epsilon) * gain for every token: (N, D) to (N, D)."""
    out = np.empty_like(x)
    if x.shape[0] >= MANY:
        norm_many(x, gain, epsilon, out)
    else:
        partial = np.empty(LANES, F)
        for i in range(x.shape[0]):
            norm_token(x[i], gain, epsilon, out[i], partial)
    return out


def left_side(x, panels):
    """Return x (N, K) as products with ``panels`` read it: quantised if they are integers."""


@overload(left_side, inline="always")
def _left_side(x, panels):
    if panels.dtype == types.int8:
        return lambda x, panels: quantise(x)
    return lambda x, panels: grouped(x)


def product(x, panel, y, column):
    """Set y[:, column : column + 16] to the product of a `left_side` and a panel."""


@overload(product)
def _product(x, panel, y, column):
    chosen = multiply_integers if panel.dtype == types.int8 else multiply

    def compute(x, panel, y, column):
        chosen(x, panel, y, column)

    return compute


@njit(**JIT)
def project(x, panel, y, column, limit):
    """Compute a panel's outputs for every token, those of them that exist: y[:, column:limit]."""
    if column + LANES <= limit:
        product(x, panel, y, column)
        return
    part = np.empty((y.shape[0], LANES), F)
    product(x, panel, part, 0)
    for i in range(y.shape[0]):
        for lane in range(limit - column):
            y[i, column + lane] = part[i, lane]


@njit(parallel=True, **JIT)
def linear(x, panels, out):
    """Compute a linear layer: x (N, K) to out (N, outputs)."""
    left = left_side(x, panels)
    for p in prange(panels.shape[0]):
        project(left, panels[p], out, p * LANES, out.shape[1])


@njit(parallel=True, **JIT)
def linear_added(x, panels, stream):
    """Add a linear layer of x (N, K) to the residual stream (N, D)."""
    left = left_side(x, panels)
    for p in prange(panels.shape[0]):
        part = np.empty((stream.shape[0], LANES), F)
        product(left, panels[p], part, 0)
        for i in range(stream.shape[0]):
            for lane in range(min(LANES, stream.shape[1] - p * LANES)):
                stream[i, p * LANES + lane] += part[i, lane]


@njit(**JIT)
def silu(x):
    """Compute x / (1 + e^-x) in place: one loop over one array (K,), which LLVM vectorises."""
    for k in range(x.shape[0]):
        x[k] = x[k] / (ONE + exp(-x[k]))


@njit(parallel=True, **JIT)
def gated_units(x, panels, inner):
    """Compute silu(gate) * up of x (N, D) as (N, inner); gate and up panels take turns."""
    left, tokens = left_side(x, panels), x.shape[0]
    out = np.empty((tokens, inner), F)
    for p in prange(panels.shape[0] // 2):
        gates, ups = np.empty((tokens, LANES), F), np.empty((tokens, LANES), F)
        product(left, panels[2 * p], gates, 0)
        product(left, panels[2 * p + 1], ups, 0)
        silu(gates.reshape(tokens * LANES))
        for i in range(tokens):
            for lane in range(min(LANES, inner - p * LANES)):
                out[i, p * LANES + lane] = gates[i, lane] * ups[i, lane]
    return out


@njit(**JIT)
def norm_heads(qkv, gains, heads, kv_heads, epsilon):
    """Divide each query and key of qkv (N, (H + 2 kv) d) by its root mean square: gains (2, d)."""
    size = gains.shape[1]
    for i in range(qkv.shape[0]):
        for head in range(heads + kv_heads):
            gain, first = gains[0 if head < heads else 1], head * size
            total = ZERO
            for d in range(size):
                total += qkv[i, first + d] * qkv[i, first + d]
            scale = ONE / np.sqrt(total / F(size) + epsilon)
            for d in range(size):
                qkv[i, first + d] = gain[d] * (qkv[i, first + d] * scale)


@njit(**JIT)
def remember(
    qkv, low, high, positions, length, heads, group, kv_heads, keys, values, cosines, sines
):
    """Write one head's new keys (rotated) and values into one slot of one layer's cache."""
    size = keys.shape[1]
    half = size // 2
    k, v = (heads + group) * size, (heads + kv_heads + group) * size
    for i in range(low, high):
        at = length + i - low
        block, lane = at // LANES, at % LANES
        place = positions[i]
        for d in range(half):
            first, second = qkv[i, k + d], qkv[i, k + half + d]
            c, s = cosines[place, d], sines[place, d]
            keys[block, d, lane] = first * c - second * s
            keys[block, half + d, lane] = second * c + first * s
        for d in range(size):
            values[d // LANES, at, d % LANES] = qkv[i, v + d]


@njit(**JIT)
def exponentials(row, end, length, seen):
    """Turn the scores row[:end] into e^(score - top), hidden tokens' into 0.

    ``seen`` (count,) says which of the new tokens, at row[length:], are visible. ``row`` is whole
    panels, so that LLVM vectorises the loops; what lies beyond ``end`` does not matter.
    """
    for j in range(seen.shape[0]):
        if seen[j] == 0:
            row[length + j] = LOWEST
    row[end:] = LOWEST
    tops = np.full(LANES, LOWEST, F)
    for j in range(0, row.shape[0], LANES):
        for lane in range(LANES):
            tops[lane] = max(tops[lane], row[j + lane])
    top = tops.max()
    for j in range(row.shape[0]):
        row[j] = exp(row[j] - top)
    for j in range(seen.shape[0]):
        if seen[j] == 0:
            row[length + j] = ZERO


@njit(**JIT)
def attend(
    group, share, qkv, low, high, positions, length, visible, keys, values, cosines, sines, out
):
    """Compute one group's ``share`` query heads: softmax(q k^T / sqrt(d)) v, into out (N, H d).

    For the tokens ``low`` to ``high``, of which ``visible`` has the rows; its columns end with
    them. All of a group's heads and tokens are rows of the same products, since they read the same
    keys (blocks, d, 16) and values (d / 16, capacity, 16); the new tokens' are already among them.
    Row i * share + s is token i under the group's head s.
    """
    count, size, seen = high - low, keys.shape[1], visible.shape[1]
    rows, half, end = count * share, size // 2, length + seen
    scale = ONE / np.sqrt(F(size))
    q = np.empty((rows, size), F)
    for r in range(rows):
        i, head = low + r // share, group * share + r % share
        place = positions[i]
        for d in range(half):
            first = qkv[i, head * size + d] * scale
            second = qkv[i, head * size + half + d] * scale
            c, s = cosines[place, d], sines[place, d]
            q[r, d] = first * c - second * s
            q[r, half + d] = second * c + first * s
    blocks = (end + LANES - 1) // LANES
    scores = np.empty((rows, blocks * LANES), F)
    left = grouped(q)
    for b in range(blocks):
        multiply(left, keys[b], scores, b * LANES)
    for r in range(rows):
        exponentials(scores[r], end, length, visible[r // share])
    mass = np.zeros(rows, F)
    for j in range(end):
        for r in range(rows):
            mass[r] += scores[r, j]
    mass = ONE / mass
    weights = grouped(scores[:, :end])
    mixed = np.empty((rows, LANES), F)
    for v in range(values.shape[0]):
        multiply(weights, values[v, :end], mixed, 0)
        for r in range(rows):
            at = (group * share + r % share) * size + v * LANES
            for lane in range(min(LANES, size - v * LANES)):
                out[low + r // share, at + lane] = mixed[r, lane] * mass[r]


@njit(parallel=True, **JIT)
def attention(qkv, rows, heads, keys, values, cosines, sines):
    """Compute one layer's attention of the rows of a pass: qkv (N, (H + 2 kv) d) to (N, H d).

    keys: (slots, kv heads, blocks, d, 16); values: (slots, kv heads, d / 16, capacity, 16); the new
    tokens' are written first. ``rows`` is a `Stacked`. A task is a few tokens of one slot under one
    key head: rows of a product that stay in the first-level cache.
    """
    positions, bounds, slots = rows.positions, rows.bounds, rows.slots
    lengths, visible = rows.lengths, rows.visible
    kv_heads, size = keys.shape[1], keys.shape[3]
    share, tasks = heads // kv_heads, 0
    firsts = np.empty(slots.shape[0] + 1, np.int64)
    for g in range(slots.shape[0]):
        low, high, slot = bounds[g], bounds[g + 1], slots[g]
        firsts[g] = tasks
        tasks += kv_heads * ((high - low + TOGETHER - 1) // TOGETHER)
        for group in range(kv_heads):
            remember(
                qkv, low, high, positions, lengths[slot], heads, group, kv_heads,
                keys[slot, group], values[slot, group], cosines, sines,
            )  # fmt: skip
    firsts[-1] = tasks
    out = np.empty((qkv.shape[0], heads * size), F)
    for task in prange(tasks):
        g = np.searchsorted(firsts, task, "right") - 1
        slot, low, high = slots[g], bounds[g], bounds[g + 1]
        chunks = (firsts[g + 1] - firsts[g]) // kv_heads
        group, chunk = (task - firsts[g]) // chunks, (task - firsts[g]) % chunks
        first = low + (high - low) * chunk // chunks
        last = low + (high - low) * (chunk + 1) // chunks
        attend(
            group, share, qkv, first, last, positions, lengths[slot], visible[first:last, low:last],
            keys[slot, group], values[slot, group], cosines, sines, out,
        )  # fmt: skip
    return out


class Panels(NamedTuple):
    """The weights of all layers and the vocabulary head as panels, the norms' gains and biases, and
    the rotary tables.

    ``head_norms`` is (layers, 2, d), or without layers where queries and keys have no norms.
    """

    norms: np.ndarray
    biases: np.ndarray
    head_norms: np.ndarray
    qkv: np.ndarray
    out: np.ndarray
    gate_up: np.ndarray
    down: np.ndarray
    head: np.ndarray
    cosines: np.ndarray
    sines: np.ndarray


@njit(**JIT)
def whole_pass(embedding, rows, heads, inner, epsilon, panels, keys, values, read, logits):
    """Run the model on N tokens: fill ``logits``, and return the states (N, (r + 1) D).

    The states are the residual stream after each of the layers ``read`` (r,), counted from 1, then
    those after the final norm. keys and values: (layers, ...), see `attention`. logits: (N, V), or
    (G, V) for the last token of each sequence only.
    """
    count, width = rows.tokens.shape[0], embedding.shape[1]
    x, qkv = np.empty((count, width), F), np.empty((count, panels.biases.shape[1]), F)
    for i in range(count):
        x[i] = embedding[rows.tokens[i]]
    states, told = np.empty((count, (read.shape[0] + 1) * width), F), 0
    for layer in range(keys.shape[0]):
        normed = rms_norm(x, panels.norms[2 * layer], epsilon)
        linear(normed, panels.qkv[layer], qkv)
        qkv += panels.biases[layer]  # zeros where the model has none
        if panels.head_norms.shape[0]:
            norm_heads(qkv, panels.head_norms[layer], heads, keys.shape[2], epsilon)
        mixed = attention(
            qkv, rows, heads, keys[layer], values[layer], panels.cosines, panels.sines
        )
        linear_added(mixed, panels.out[layer], x)
        normed = rms_norm(x, panels.norms[2 * layer + 1], epsilon)
        linear_added(gated_units(normed, panels.gate_up[layer], inner), panels.down[layer], x)
        if told < read.shape[0] and read[told] == layer + 1:
            states[:, told * width : (told + 1) * width] = x
            told += 1
    normed = rms_norm(x, panels.norms[-1], epsilon)
    states[:, told * width :] = normed
    if logits.shape[0] < count:
        normed = normed[rows.bounds[1:] - 1]
    linear(normed, panels.head, logits)
    return states


@njit(**JIT)
def each_linear(x, stack, out):
    """Compute one linear layer of every layer, as `whole_pass` does."""
    for layer in range(stack.shape[0]):
        linear(x, stack[layer], out)


@njit(**JIT)
def each_feed_forward(x, gate_up, down, inner, stream):
    """Compute the feed-forward part of every layer, as `whole_pass` does."""
    for layer in range(gate_up.shape[0]):
        linear_added(gated_units(x, gate_up[layer], inner), down[layer], stream)


@njit(**JIT)
def each_attention(qkv, rows, heads, keys, values, cosines, sines):
    """Compute the attention of every layer, as `whole_pass` does."""
    for layer in range(keys.shape[0]):
        attention(qkv, rows, heads, keys[layer], values[layer], cosines, sines)


@njit(**JIT)
def move_rows(keys, values, length, path):
    """Move the cache rows length + path[j] to length + j, in every layer."""
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


class WeightsOnce(LlamaEngine):
    """A Llama-shaped model (Llama, SmolLM, Mistral without window, Qwen2, Qwen3) on panel products.

    ``storage`` is "float32"; "bfloat16" for weights rounded to half the bytes, which makes base and
    vanilla alike another model; "q4_1" for weights kept in the blocks that they were quantised
    in, which gives the bits of float32; or "q4_1_int8" for those blocks times activations of 8
    bits, the fastest, and another model again. Raises `LabkitError` for the last two where a weight
    was never quantised.
    """

    exact = True

    def __init__(self, llama: LlamaWeights, storage: str = "float32") -> None:
        super().__init__(llama, torch.device("cpu"))
        self.name = "weights once" if storage == "float32" else f"weights once, {storage}"
        self.epsilon = F(llama.epsilon)

        def refusal(subject: str, fault: str) -> LabkitError:
            return LabkitError(
                f"{subject} {llama.kind} model {fault}, so it cannot be stored as {storage}: give"
                " float32 or bfloat16."
            )

        def packed(weight: np.ndarray) -> np.ndarray:
            found = PACKERS[storage](weight)
            if found is None:
                raise refusal("This", "was not quantised in blocks of Q4_1 or Q8_0")
            return found

        stacks: dict[str, np.ndarray] = {}

        def put(name: str, layer: int, panels: np.ndarray) -> None:
            if layer == 0:
                stacks[name] = aligned_zeros(self.layer_count, *panels.shape, dtype=panels.dtype)
            if panels.shape != stacks[name].shape[1:]:  # of another kind of blocks
                raise refusal("The layers of this", "are not all quantised alike")
            stacks[name][layer] = panels

        norms, biases, head_norms = [], [], []
        for number, layer in enumerate(llama.layers()):
            norms += [layer.before, layer.between]
            biases.append(layer.bias)
            if layer.head_norms is not None:
                head_norms.append(layer.head_norms)
            put("qkv", number, packed(layer.qkv))
            put("out", number, packed(layer.out))
            gate, up = packed(layer.gate), packed(layer.up)
            put("gate_up", number, np.stack([gate, up], 1).reshape(-1, *gate.shape[1:]))
            put("down", number, packed(layer.down))
        self.panels = Panels(
            norms=np.stack([*norms, llama.norm]),
            biases=np.stack(biases),
            head_norms=np.array(head_norms, F).reshape(-1, 2, self.size),
            head=packed(llama.head),
            cosines=llama.cosines,
            sines=llama.sines,
            **stacks,
        )
        self.embedding = llama.embedding
        self._logits = np.empty((0, self.vocabulary), F)

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""
        panels = self.panels
        packed = (panels.qkv, panels.out, panels.gate_up, panels.down, panels.head)
        return sum(weights.nbytes for weights in packed)

    @property
    def threads(self) -> int:
        """Threads that share a pass."""
        return int(get_num_threads())

    def bandwidth_probe(self) -> Probe:
        """See `kernels.engine.Engine`."""
        return Probe()

    def new_cache(self, capacity: int, slots: int = 1) -> PanelCache:
        """See `kernels.engine.Engine`."""
        return PanelCache(self.layer_count, self.kv_heads, self.size, capacity, slots)

    def forward(
        self,
        rows: Sequence[Rows],
        cache: PanelCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        """See `kernels.engine.Engine`."""
        stacked = stack(self, rows, cache, layers)
        wanted = len(stacked.tokens) if logits == "all" else len(rows)
        if len(self._logits) < wanted:
            self._logits = np.empty((wanted, self.vocabulary), F)
        out = self._logits[:wanted]
        sizes, read = (self.heads, self.inner, self.epsilon), np.array(layers, np.int64)
        hidden = whole_pass(
            self.embedding, stacked, *sizes, self.panels, cache.keys, cache.values, read, out
        )
        return Output(torch.from_numpy(hidden), torch.from_numpy(out))

    def parts(self, rows: Sequence[Rows], cache: PanelCache) -> dict[str, Callable[[], object]]:
        """Return the parts of a pass over ``rows``, each to be run and timed by itself."""
        stacked, panels, rng = stack(self, rows, cache), self.panels, np.random.default_rng(0)
        count = len(stacked.tokens)
        x, qkv, mixed, stream = (
            rng.standard_normal((count, width), np.float32)
            for width in (self.width, panels.biases.shape[1], self.heads * self.size, self.width)
        )
        out, logits = np.empty_like(qkv), np.empty((count, self.vocabulary), F)
        rotary = panels.cosines, panels.sines
        return {
            "query, key, value": lambda: each_linear(x, panels.qkv, out),
            "attention": lambda: each_attention(
                qkv, stacked, self.heads, cache.keys, cache.values, *rotary
            ),
            "attention output": lambda: each_linear(mixed, panels.out, stream),
            "feed-forward": lambda: each_feed_forward(
                x, panels.gate_up, panels.down, self.inner, stream
            ),
            "vocabulary head": lambda: linear(x, panels.head, logits),
        }
