"""One layer of a Llama-shaped model in five Triton kernels, for passes over few rows.

A pass over few rows reads every weight once and computes little: what counts is to read at full
speed and to run few kernels. The five:

1. the norm with the queries, keys and values, turned by their positions; keys and values go to
   the cache;
2. attention over the cache, each row in its own path's order where one is given;
3. the output projection with the residual;
4. the norm with gate and up, and silu;
5. down with the residual.

A norm needs no kernel of its own: (s x) W = s (x W), so a row's sum of squares is taken while its
product runs. Tensor cores multiply 16 rows at a time, so up to 16 tokens cost about what one does.
Each row is summed in one order, whatever the other rows hold and however many there are.

`kernels.cuda.layer_pass` is the readable version. With ``TRITON_INTERPRET=1`` in the environment
these run on a CPU, slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from labkit.kernels.cuda import Inputs, Layer, Sizes

ROWS = 64
"""Beyond this many rows a library's products are faster."""

TILE = 16
"""Rows of a product: what a tensor core multiplies."""

BLOCK_BYTES = 8192
"""Bytes of weights that a product reads at a time: large enough to keep the memory busy."""

STAGES = 4
"""Blocks that are under way at once."""

KEYS = 64
"""Keys that attention reads at a time."""

PROGRAMS = 512
"""Enough programs for any card; from twice as many on, each computes more outputs."""


@triton.jit
def product(
    x, gain, weight, rows, columns, fits, count, inputs,
    NORM: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Multiply rows of x (count, inputs) by some of the weight's rows: (rows, columns).

    With ``NORM`` the inputs are multiplied by ``gain``; also return each row's mean square.
    """
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    squares = tl.zeros((rows.shape[0],), tl.float32)
    for start in range(0, inputs, STEP):
        k = start + tl.arange(0, STEP)
        inside = k < inputs
        alive = (rows < count)[:, None] & inside[None, :]
        given = tl.load(x + rows[:, None] * inputs + k[None, :], mask=alive, other=0.0)
        if NORM:
            wide = given.to(tl.float32)
            squares += tl.sum(wide * wide, 1)
            by = tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)
            given = (wide * by[None, :]).to(given.dtype)
        there = inside[:, None] & fits[None, :]
        block = tl.load(weight + columns[None, :] * inputs + k[:, None], mask=there, other=0.0)
        total = tl.dot(given, block, total, input_precision=PRECISION)
    return total, squares / inputs


@triton.jit
def qkv_kernel(
    x, gain, weight, bias, head_norms, cosines, sines, queries, keys, values, slots, places,
    count, inputs, width, room, epsilon,
    HEADS: tl.constexpr, KV: tl.constexpr, SIZE: tl.constexpr, HEAD_NORMS: tl.constexpr,
    TILE: tl.constexpr, PAIRS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write queries (count, H, d), and keys and values to the cache (slots, KV, room, d).

    A program computes some pairs of places, i and i + d / 2, of one head: a rotation mixes them.
    """
    half: tl.constexpr = SIZE // 2
    blocks: tl.constexpr = (half + PAIRS - 1) // PAIRS
    head = tl.program_id(0) // blocks
    start = tl.program_id(0) % blocks * PAIRS
    both = tl.arange(0, 2 * PAIRS)  # first, second, first, second, ...
    column = start + both // 2
    fits = column < half
    column += both % 2 * half
    rows = tl.program_id(1) * TILE + tl.arange(0, TILE)
    alive = rows < count
    found, square = product(
        x, gain, weight, rows, head * SIZE + column, fits, count, inputs, True, STEP, PRECISION
    )
    found *= tl.rsqrt(square + epsilon)[:, None]
    found += tl.load(bias + head * SIZE + column, mask=fits, other=0.0).to(tl.float32)[None, :]
    turns = head < HEADS + KV  # values do not
    if HEAD_NORMS:
        scale = tl.rsqrt(tl.sum(found * found, 1) / SIZE + epsilon)[:, None]
        by = tl.load(head_norms + tl.where(head < HEADS, 0, SIZE) + column, mask=fits, other=0.0)
        found = tl.where(turns, found * scale * by.to(tl.float32)[None, :], found)
    one, two = tl.split(tl.reshape(found, (TILE, PAIRS, 2)))
    pair = start + tl.arange(0, PAIRS)
    there = alive[:, None] & (pair < half)[None, :]
    turn = rows[:, None] * half + pair[None, :]
    cosine = tl.load(cosines + turn, mask=there & turns, other=1.0).to(tl.float32)
    sine = tl.load(sines + turn, mask=there & turns, other=0.0).to(tl.float32)
    first = (one * cosine - two * sine).to(queries.dtype.element_ty)
    second = (two * cosine + one * sine).to(queries.dtype.element_ty)
    if head < HEADS:
        to = queries + (rows * HEADS + head)[:, None] * SIZE + pair[None, :]
    else:
        slot = tl.load(slots + rows // width, mask=alive, other=0)
        place = tl.load(places + rows, mask=alive, other=0)
        at = ((slot * KV + (head - HEADS) % KV) * room + place)[:, None] * SIZE + pair[None, :]
        if turns:  # noqa: SIM108, of which Triton computes both sides
            to = keys + at
        else:
            to = values + at
    tl.store(to, first, mask=there)
    tl.store(to + half, second, mask=there)


@triton.jit
def attention_kernel(
    queries, keys, values, mask, slots, order, mixed,
    width, room, end, group_stride, row_stride, scale,
    HEADS: tl.constexpr, KV: tl.constexpr, SIZE: tl.constexpr, ORDERED: tl.constexpr,
    QUERIES: tl.constexpr, PARTS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Mix the values that one row's queries of one key-value head see: mixed (rows, H, d)."""
    row = tl.program_id(0)
    kv = tl.program_id(1)
    group = row // width
    share: tl.constexpr = HEADS // KV
    query = tl.arange(0, QUERIES)
    part = tl.arange(0, PARTS)
    inside = (part < SIZE)[None, :]
    alive = (query < share)[:, None] & inside
    at = (row * HEADS + kv * share + query)[:, None] * SIZE + part[None, :]
    q = tl.load(queries + at, mask=alive, other=0.0)
    base = (tl.load(slots + group) * KV + kv) * room
    added_to = mask + group * group_stride + row % width * row_stride
    best = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    out = tl.zeros((QUERIES, PARTS), tl.float32)
    for start in range(0, end, KEYS):
        p = start + tl.arange(0, KEYS)
        added = tl.load(added_to + p, mask=p < end, other=float("-inf")).to(tl.float32)
        seen = added > float("-inf")
        place = p
        if ORDERED:
            place = tl.load(order + row * end + p, mask=seen, other=0)
        read = (base + place)[:, None] * SIZE + part[None, :]
        k = tl.load(keys + read, mask=seen[:, None] & inside, other=0.0)
        v = tl.load(values + read, mask=seen[:, None] & inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + added[None, :]
        top = tl.maximum(best, tl.max(scores, 1))
        shift = tl.where(top > float("-inf"), top, 0.0)  # until a key is seen
        weights = tl.exp(scores - shift[:, None])
        kept = tl.exp(best - shift)
        total = total * kept + tl.sum(weights, 1)
        out = out * kept[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        best = top
    tl.store(mixed + at, (out / total[:, None]).to(mixed.dtype.element_ty), mask=alive)


@triton.jit
def residual_kernel(
    x, weight, residual, out, count, inputs, outputs,
    TILE: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the residual plus the product of x and the weight: out (count, outputs)."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    rows = tl.program_id(1) * TILE + tl.arange(0, TILE)
    fits = column < outputs
    found, _ = product(x, x, weight, rows, column, fits, count, inputs, False, STEP, PRECISION)
    there = (rows < count)[:, None] & fits[None, :]
    at = rows[:, None] * outputs + column[None, :]
    found += tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
    tl.store(out + at, found.to(out.dtype.element_ty), mask=there)


@triton.jit
def gate_up_kernel(
    x, gain, weight, out, count, inputs, outputs, epsilon,
    TILE: tl.constexpr, PAIRS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write silu(gate) times up of the normed x: out (count, outputs)."""
    both = tl.arange(0, 2 * PAIRS)  # gate, up, gate, up, ...
    column = tl.program_id(0) * PAIRS + both // 2
    rows = tl.program_id(1) * TILE + tl.arange(0, TILE)
    fits = column < outputs
    column += both % 2 * outputs
    found, square = product(
        x, gain, weight, rows, column, fits, count, inputs, True, STEP, PRECISION
    )
    found *= tl.rsqrt(square + epsilon)[:, None]
    gate, up = tl.split(tl.reshape(found, (TILE, PAIRS, 2)))
    column = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    there = (rows < count)[:, None] & (column < outputs)[None, :]
    active = (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * outputs + column[None, :], active, mask=there)


def layer_pass(
    x: torch.Tensor,
    layer: Layer,
    given: Inputs,
    turn: tuple[torch.Tensor, torch.Tensor],
    keys: torch.Tensor,
    values: torch.Tensor,
    sizes: Sizes,
) -> torch.Tensor:
    """Run one layer on x (G, n, D) in five kernels; see `kernels.cuda.layer_pass`."""
    heads, kv, size, epsilon = sizes
    groups, width, inputs = x.shape
    count, tiles = groups * width, triton.cdiv(groups * width, TILE)
    room, end = keys.shape[2], given.mask.shape[-1]
    precision = "ieee" if x.dtype == torch.float32 else "tf32"

    def block(outputs: int) -> dict[str, Any]:
        """Return the settings of a product whose programs compute ``outputs`` each."""
        step = min(256, BLOCK_BYTES // (outputs * x.itemsize))
        return {"TILE": TILE, "STEP": step, "PRECISION": precision, "num_stages": STAGES}

    norms = layer.head_norms
    pairs = triton.next_power_of_2(size // 2) if norms is not None else columns(len(layer.qkv)) // 2
    queries, mixed = (x.new_empty(count, heads * size) for _ in range(2))
    qkv_kernel[((heads + 2 * kv) * triton.cdiv(size // 2, pairs), tiles)](
        x, layer.before, layer.qkv, layer.bias, layer.bias if norms is None else norms, *turn,
        queries, keys, values, given.slots, given.places, count, inputs, width, room, epsilon,
        HEADS=heads, KV=kv, SIZE=size, HEAD_NORMS=norms is not None, PAIRS=pairs,
        **block(2 * pairs),
    )  # fmt: skip
    by_group, _, by_row, _ = given.mask.stride()
    ordered = given.order is not None
    if ordered:  # a single group, whose rows come first
        by_group, by_row = 0, by_group
    attention_kernel[(count, kv)](
        queries, keys, values, given.mask, given.slots, given.order if ordered else given.slots,
        mixed, width, room, end, by_group, by_row, size**-0.5,
        HEADS=heads, KV=kv, SIZE=size, ORDERED=ordered, KEYS=KEYS,
        QUERIES=max(TILE, triton.next_power_of_2(heads // kv)),
        PARTS=max(TILE, triton.next_power_of_2(size)), PRECISION=precision,
    )  # fmt: skip
    after, out = torch.empty_like(x), torch.empty_like(x)
    each = columns(inputs)
    grid = triton.cdiv(inputs, each), tiles
    residual_kernel[grid](
        mixed, layer.out, x, after, count, heads * size, inputs, COLUMNS=each, **block(each)
    )
    outputs = len(layer.gate_up) // 2
    pairs = columns(2 * outputs) // 2
    active = x.new_empty(count, outputs)
    gate_up_kernel[triton.cdiv(outputs, pairs), tiles](
        after, layer.between, layer.gate_up, active, count, inputs, outputs, epsilon,
        PAIRS=pairs, **block(2 * pairs),
    )  # fmt: skip
    residual_kernel[grid](
        active, layer.down, after, out, count, outputs, inputs, COLUMNS=each, **block(each)
    )
    return out


def columns(outputs: int) -> int:
    """Return how many outputs a program computes: more where there are programs enough."""
    return TILE if outputs < 2 * TILE * PROGRAMS else 2 * TILE
