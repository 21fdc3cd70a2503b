"""A matrix product that reads each weight once, however many tokens ask for it.

Decoding one token multiplies a few numbers by every weight of the model, so its time is the time
to read the weights from memory. Checking eight draft tokens needs the same weights; if they are
read once for all eight, the check costs little more than one token. That is the whole economy of
speculative decoding on a CPU, and stock matrix products miss it at these skinny shapes.

The weights of a linear layer lie in *panels*: 16 outputs wide, one row for each input, so that
a step over one input multiplies a row of 16 weights by one number of each token::

    panel (K, 16):   y[i, 0:16] += x[k, i] * panel[k, 0:16]      for k = 0, 1, ..., K-1

Each output is one chain of fused multiply-adds over k in rising order. The order depends on
nothing else: not on how many tokens there are, nor on which stand beside one. So every token's
result is the same *to the last bit* whether it is computed alone, in a chunk, or in a tree, and
speculative output can equal vanilla output exactly, not merely nearly.

Two things make it fast. The 16-wide accumulators of up to `ROWS` tokens stay in registers, which
needs the vector type written out (the intrinsic below; LLVM makes it one, two or four registers
of the machine). And while one panel is used, the next one is asked for: the requests are spread
evenly over the work, so that memory never rests while arithmetic goes on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Outputs in a panel: one 64-byte cache line of float32."""

FLOAT32, BFLOAT16 = 0, 1
"""How a panel's weights are stored; sums are float32 for both."""

JIT: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract"},  # allows a*b+c as one instruction, and no reordering of sums
    "error_model": "numpy",
    "boundscheck": False,
}


def host_features() -> dict[str, bool]:
    """The vector features of this machine, by LLVM's names."""
    return dict(binding.get_host_cpu_features())


def supported() -> bool:
    """Whether this machine has fused multiply-add, without which the product would be slow."""
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        return True
    features = host_features()
    return bool(features.get("fma") and features.get("avx2"))


# Tokens whose accumulators fit the registers: 32 wide registers with AVX-512, else 16 half as wide.
ROWS = 12 if host_features().get("avx512f") else 6


@intrinsic(prefer_literal=True)
def _chains(
    _context: Any,
    storage: Any,
    rows: Any,
    x: Any,
    x_stride: Any,
    w: Any,
    y: Any,
    y_stride: Any,
    inner: Any,
    ahead: Any,
    ahead_step: Any,
) -> Any:
    """``rows`` x 16 chains of fused multiply-adds: y[i, l] = sum over k of x[k, i] * w[k, l].

    ``storage`` is a compile-time constant; the rest are byte addresses and counts of elements. Each
    step over k also asks memory for the line at ``ahead`` + k * ``ahead_step``. The code holds
    one loop for each number of rows, so that the sums of each have registers of their own.
    """
    kind = storage.literal_value
    signature = types.void(storage, *[types.intp] * 9)

    def generate(context: Any, b: Any, _signature: Any, args: Any) -> Any:
        _, rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step = args
        i64 = ir.IntType(64)
        done = b.append_basic_block("done")
        choice = b.switch(rows, done)
        for count in range(1, ROWS + 1):
            block = b.append_basic_block(f"rows{count}")
            choice.add_case(ir.Constant(i64, count), block)
            b.position_at_end(block)
            sums = _loop_over_inputs(b, kind, count, x, x_stride, w, inner, ahead, ahead_step)
            for i, value in enumerate(sums):
                address = b.add(y, b.mul(ir.Constant(i64, 4 * i), y_stride))
                b.store(value, b.inttoptr(address, ir.PointerType(value.type)), align=4)
            b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


def _loop_over_inputs(
    b: Any, kind: int, count: int, x: Any, x_stride: Any, w: Any, inner: Any, ahead: Any, step: Any
) -> list[Any]:
    """Emit the loop over k for ``count`` tokens; return their sums as LLVM vectors."""
    i8, i16, i32, i64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
    f32 = ir.FloatType()
    vector, lanes32 = ir.VectorType(f32, LANES), ir.VectorType(i32, LANES)
    fma = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
    )
    prefetch = cgutils.get_or_insert_function(
        b.module,
        ir.FunctionType(ir.VoidType(), [ir.PointerType(i8), i32, i32, i32]),
        "llvm.prefetch.p0",
    )

    def plus(address: Any, amount: int) -> Any:
        return b.add(address, ir.Constant(i64, amount))

    def load(address: Any, of: Any, align: int) -> Any:
        return b.load(b.inttoptr(address, ir.PointerType(of)), align=align)

    def weights(address: Any) -> Any:
        if kind == FLOAT32:
            return load(address, vector, 64)
        halves = load(address, ir.VectorType(i16, LANES), 32)  # bfloat16 is float32's upper half
        upper = b.shl(b.zext(halves, lanes32), ir.Constant(lanes32, [16] * LANES))
        return b.bitcast(upper, vector)

    def spread(number: Any) -> Any:
        undefined = ir.Constant(vector, ir.Undefined)
        one = b.insert_element(undefined, number, ir.Constant(i32, 0))
        return b.shuffle_vector(one, undefined, ir.Constant(lanes32, [0] * LANES))

    before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(loop)
    b.position_at_end(loop)
    k, at_x, at_w, at_ahead = (b.phi(i64) for _ in range(4))
    sums = [b.phi(vector) for _ in range(count)]
    row = weights(at_w)
    new = [
        b.call(fma, [row, spread(load(plus(at_x, 4 * i), f32, 4)), total])
        for i, total in enumerate(sums)
    ]
    read, into_level_2, data = (ir.Constant(i32, value) for value in (0, 2, 1))
    b.call(prefetch, [b.inttoptr(at_ahead, ir.PointerType(i8)), read, into_level_2, data])
    next_k = plus(k, 1)
    carried = [
        (k, ir.Constant(i64, 0), next_k),
        (at_x, x, b.add(at_x, b.mul(x_stride, ir.Constant(i64, 4)))),
        (at_w, w, plus(at_w, LANES * (4 if kind == FLOAT32 else 2))),
        (at_ahead, ahead, b.add(at_ahead, step)),
    ]
    zero = ir.Constant(vector, [0.0] * LANES)
    carried += [(total, zero, value) for total, value in zip(sums, new, strict=True)]
    b.cbranch(b.icmp_signed("<", next_k, inner), loop, after)
    for phi, start, value in carried:
        phi.add_incoming(start, before)
        phi.add_incoming(value, loop)
    b.position_at_end(after)
    return new


@njit(**JIT)
def _group_float32(rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step):
    _chains(FLOAT32, rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step)


@njit(**JIT)
def _group_bfloat16(rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step):
    _chains(BFLOAT16, rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step)


@njit(**JIT)
def multiply(x, panel, y, column):
    """y[i, column : column + 16] = sum over k of x[k, i] * panel[k, :], for every token i.

    x: (K, N) float32, a column for each token, rows contiguous. panel: (K, 16) float32, or uint16
    holding bfloat16. y: (N, >= column + 16) float32. The tokens go in groups of at most `ROWS`;
    while they do, the bytes that follow the panel (the next one, as a rule) come from memory.
    """
    inner, tokens = x.shape
    groups = (tokens + ROWS - 1) // ROWS
    size = panel.itemsize * LANES * inner
    ahead_step = LANES * panel.itemsize // groups
    first = 0
    for g in range(groups):
        rows = (tokens - first + groups - g - 1) // (groups - g)
        xa = x.ctypes.data + 4 * first
        ya = y.ctypes.data + 4 * (first * y.shape[1] + column)
        wa = panel.ctypes.data
        ahead = wa + size + g * ahead_step * inner
        if panel.itemsize == 4:
            _group_float32(rows, xa, tokens, wa, ya, y.shape[1], inner, ahead, ahead_step)
        else:
            _group_bfloat16(rows, xa, tokens, wa, ya, y.shape[1], inner, ahead, ahead_step)
        first += rows


def aligned_zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Zeros of this shape that start at a multiple of 64 bytes, as the product's loads expect."""
    count = int(np.prod(shape))
    item = np.dtype(dtype).itemsize
    room = np.zeros(count + 64 // item, dtype)
    skip = (-room.ctypes.data % 64) // item
    return room[skip : skip + count].reshape(shape)


def pack(weight: np.ndarray, storage: int = FLOAT32) -> np.ndarray:
    """The weight (out, in) of a linear layer as panels (ceil(out / 16), in, 16), zeros at the end.

    >>> pack(np.arange(6.0, dtype=np.float32).reshape(2, 3))[0, :, :2].tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    outputs, inputs = weight.shape
    panels = -(-outputs // LANES)
    packed = aligned_zeros(
        panels, inputs, LANES, dtype=np.float32 if storage == FLOAT32 else np.uint16
    )
    for p in range(panels):
        block = weight[p * LANES : (p + 1) * LANES].T
        packed[p, :, : block.shape[1]] = block if storage == FLOAT32 else to_bfloat16(block)
    return packed


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to bfloat16 (nearest, ties to even), as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
