"""Quantised weights times quantised activations: integer dot products over panels.

A row of activations is quantised in blocks of 32, as the weights are: 32 integers a of 8 bits, a
scale s and the sum of the integers. A block of weights is d * q + m with q of 4 bits (or d * q
with q of 8 bits), so the product of two blocks is::

    sum of (d q + m) (s a)  =  (d s) (sum of q a)  +  m (s sum of a)

The inner sum is of whole numbers: exact in any order. The blocks are added in rising order with
fused multiply-adds, so a row's result does not depend on the other rows of the pass, and
speculation stays exact. The result differs a little from float32's, because the activations
are rounded; `labkit calibrate --storage q4_1_int8` says by how much.

Four bytes of weights and activations at a time go into one instruction where the machine has one:
``vpdpbusd`` (AVX-512 VNNI, AVX-VNNI), ``sdot`` (ARM), or ``pmaddubsw`` and ``pmaddwd`` (AVX2).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from labkit.kernels.panel import (
    BLOCK,
    BLOCK_BYTES,
    JIT,
    LANES,
    Q4_1,
    Q8_0,
    Emit,
    F,
    aligned_zeros,
    host_features,
    pack_as_quantised,
)

ROW_BLOCK = BLOCK + 8
"""Bytes of a block of quantised activations: the integers, then s and s * sum in float32."""

AHEAD = 1280
"""Distance in bytes of what is prefetched from what is used."""

HALF = LANES // 2
PMADDWD = "llvm.x86.avx2.pmadd.wd"
Dot = Literal["vpdpbusd", "sdot", "pmaddubsw", "plain"]


def best_dot() -> Dot:
    """Return the fastest integer dot product of this machine."""
    features = host_features()
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        apple = "apple" in binding.get_process_triple()
        return "sdot" if features.get("dotprod") or apple else "plain"
    if features.get("avxvnni") or (features.get("avx512vnni") and features.get("avx512vl")):
        return "vpdpbusd"
    return "pmaddubsw" if features.get("avx2") else "plain"


DOT = best_dot()
ROWS = 8 if DOT == "vpdpbusd" and host_features().get("avx512vl") else 4
"""Rows whose sums fit the registers."""


class _Dots:
    """Integer sums of one row over one block of weights, half a panel at a time."""

    def __init__(self, emit: Emit, dot: Dot, kind: int) -> None:
        self.emit, self.b, self.kind = emit, emit.b, kind
        # Weights of 8 bits are signed: vpdpbusd and pmaddubsw take none such, pmaddwd does.
        signed = kind == Q8_0 and dot in ("vpdpbusd", "pmaddubsw")
        self.dot = "pmaddwd" if signed else dot
        self.bytes = ir.VectorType(emit.i8, 4 * HALF)
        self.lanes32 = ir.VectorType(emit.i32, HALF)
        self.pairs = ir.VectorType(emit.i16, 2 * HALF)

    def zero(self) -> Any:
        """Return the sums before the first group of four inputs."""
        halved = {"pmaddubsw": self.pairs, "pmaddwd": ir.VectorType(self.emit.i32, 2 * HALF)}
        return ir.Constant(halved.get(self.dot, self.lanes32), None)

    def add(self, sums: Any, weights: Any, numbers: Any) -> Any:
        """Add the products of four inputs: weights and activations (8 lanes x 4 bytes)."""
        if self.dot == "vpdpbusd":
            return self._call("llvm.x86.avx512.vpdpbusd.256", self.lanes32, sums, weights, numbers)
        if self.dot == "pmaddubsw":  # 8 sums of two products up to 15 * 127 fit 16 bits
            products = self._call("llvm.x86.avx2.pmadd.ub.sw", self.pairs, weights, numbers)
            return self.b.add(sums, products)
        if self.dot == "pmaddwd":  # sums of two products, two for each lane
            wide = ir.VectorType(self.emit.i16, 4 * HALF)
            pair = self.b.sext(weights, wide), self.b.sext(numbers, wide)
            low, high = (
                self._call(PMADDWD, self.lanes32, *(self._part(value, part, 2) for value in pair))
                for part in range(2)
            )
            return self.b.add(sums, self._shuffle(low, high, range(2 * HALF)))
        if self.dot == "sdot":
            low, high = (
                self._call(
                    "llvm.aarch64.neon.sdot.v4i32.v16i8",
                    ir.VectorType(self.emit.i32, 4),
                    *(self._part(value, part, 2) for value in (sums, weights, numbers)),
                )
                for part in range(2)
            )
            return self._shuffle(low, high, range(HALF))
        wide = ir.VectorType(self.emit.i32, 4 * HALF)
        widen = self.b.sext if self.kind == Q8_0 else self.b.zext
        products = self.b.mul(widen(weights, wide), self.b.sext(numbers, wide))
        for start in range(4):
            lanes = range(start, 4 * HALF, 4)
            sums = self.b.add(sums, self._shuffle(products, products, lanes))
        return sums

    def total(self, sums: Any) -> Any:
        """Return the sums of the block as 8 integers of 32 bits."""
        if self.dot == "pmaddwd":
            even, odd = (self._shuffle(sums, sums, range(start, 2 * HALF, 2)) for start in range(2))
            return self.b.add(even, odd)
        if self.dot != "pmaddubsw":
            return sums
        ones = ir.Constant(self.pairs, [1] * (2 * HALF))
        return self._call(PMADDWD, self.lanes32, sums, ones)

    def joined(self, low: Any, high: Any) -> Any:
        """Return both halves of a panel as float32."""
        both = self._shuffle(low, high, range(LANES))
        return self.b.sitofp(both, self.emit.vector)

    def _call(self, name: str, result: Any, *args: Any) -> Any:
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), args)

    def _part(self, value: Any, part: int, parts: int) -> Any:
        count = value.type.count // parts
        return self._shuffle(value, value, range(part * count, (part + 1) * count))

    def _shuffle(self, first: Any, second: Any, lanes: Any) -> Any:
        order = ir.Constant(ir.VectorType(self.emit.i32, len(lanes)), list(lanes))
        return self.b.shuffle_vector(first, second, order)


def emit_block(
    emit: Emit, dot: Dot, kind: int, w: Any, rows: list[Any], sums: list[Any]
) -> list[Any]:
    """Emit one block of weights at ``w`` times that of each of ``rows``; return the new sums."""
    b, dots = emit.b, _Dots(emit, dot, kind)
    scales, at = emit.halves(w), emit.plus(w, 2 * LANES * (2 if kind == Q4_1 else 1))
    totals = [[dots.zero(), dots.zero()] for _ in rows]
    for place in range(0, BLOCK_BYTES[kind], 64):
        emit.prefetch(emit.plus(w, AHEAD + place))
    fifteen, shift = (ir.Constant(dots.bytes, [value] * (4 * HALF)) for value in (15, 4))
    for group in range(4 if kind == Q4_1 else 8):
        loaded = [
            emit.load(emit.plus(at, (2 * group + half) * 4 * HALF), dots.bytes, 4 * HALF)
            for half in range(2)
        ]
        if kind == Q4_1:  # the low halves of the bytes are four inputs, the high halves others
            low, high = ([b.and_(x, fifteen) for x in loaded], [b.lshr(x, shift) for x in loaded])
            steps = [(group, low), (group + 4, high)]
        else:
            steps = [(group, loaded)]
        for place, weights in steps:
            for row, total in zip(rows, totals, strict=True):
                number = emit.load(emit.plus(row, 4 * place), emit.i32, 4)
                numbers = b.bitcast(emit.spread(number, HALF), dots.bytes)
                for half in range(2):
                    total[half] = dots.add(total[half], weights[half], numbers)
    new = []
    for row, total, before in zip(rows, totals, sums, strict=True):
        products = dots.joined(*(dots.total(half) for half in total))
        scale = emit.spread(emit.load(emit.plus(row, BLOCK), emit.f32, 4))
        after = emit.fma(b.fmul(scales, scale), products, before)
        if kind == Q4_1:
            whole = emit.spread(emit.load(emit.plus(row, BLOCK + 4), emit.f32, 4))
            after = emit.fma(emit.halves(emit.plus(w, 2 * LANES)), whole, after)
        new.append(after)
    return new


@intrinsic(prefer_literal=True)
def _rows_of(
    _context: Any,
    storage: Any,
    rows: Any,
    x: Any,
    x_stride: Any,
    w: Any,
    blocks: Any,
    y: Any,
    y_stride: Any,
) -> Any:
    """Multiply ``rows`` quantised rows by the panel at ``w``; addresses and strides in bytes."""
    kind = storage.literal_value

    def generate(context: Any, b: Any, _signature: Any, args: Any) -> Any:
        _, rows, x, x_stride, w, blocks, y, y_stride = args
        done = b.append_basic_block("done")
        choice = b.switch(rows, done)
        for count in range(1, ROWS + 1):
            block = b.append_basic_block(f"rows{count}")
            choice.add_case(ir.Constant(ir.IntType(64), count), block)
            b.position_at_end(block)
            emit = Emit(b)
            offsets = [b.mul(emit.number(i), x_stride) for i in range(count)]

            def one_block(
                carried: list[Any], emit: Emit = emit, offsets: Any = offsets
            ) -> list[Any]:
                x, w, *sums = carried
                places = [emit.b.add(x, offset) for offset in offsets]
                sums = emit_block(emit, DOT, kind, w, places, sums)
                return [emit.plus(x, ROW_BLOCK), emit.plus(w, BLOCK_BYTES[kind]), *sums]

            zeros = [ir.Constant(emit.vector, None)] * count
            sums = emit.repeat(blocks, [x, w, *zeros], one_block)[2:]
            for i, value in enumerate(sums):
                emit.store(value, b.add(y, b.mul(emit.number(i), y_stride)), 4)
            b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return types.void(storage, *[types.intp] * 7), generate


Q4_1_BYTES = BLOCK_BYTES[Q4_1]


@njit(**JIT)
def multiply_integers(x, panel, y, column):
    """Set y[i, column : column + 16] to the product of row i of x and the panel.

    x: (N, K / 32, bytes of a row's block) int8, from `quantise`. panel: (K / 32, bytes of a block)
    int8, from `pack_integers`. y: (N, >= column + 16) float32.
    """
    tokens, blocks = x.shape[0], x.shape[1]
    stride = blocks * ROW_BLOCK
    for first in range(0, tokens, ROWS):
        rows = min(ROWS, tokens - first)
        xa = x.ctypes.data + first * stride
        ya = y.ctypes.data + 4 * (first * y.shape[1] + column)
        if panel.shape[1] == Q4_1_BYTES:
            _rows_of(Q4_1, rows, xa, stride, panel.ctypes.data, blocks, ya, 4 * y.shape[1])
        else:
            _rows_of(Q8_0, rows, xa, stride, panel.ctypes.data, blocks, ya, 4 * y.shape[1])


@njit(**JIT)
def quantise(x):
    """Return x (K, N) in blocks of 32 along K: (N, K / 32, bytes of a row's block) int8."""
    inner, tokens = x.shape
    floats = np.empty((tokens, inner // BLOCK, ROW_BLOCK // 4), F)
    out = floats.view(np.int8)
    for i in range(tokens):
        for block in range(inner // BLOCK):
            most = F(0)
            for k in range(BLOCK):
                most = max(most, abs(x[block * BLOCK + k, i]))
            each = F(127) / most if most > F(0) else F(0)
            total = 0
            for k in range(BLOCK):
                number = np.int32(np.rint(x[block * BLOCK + k, i] * each))
                out[i, block, k] = number
                total += number
            scale = most / F(127)
            floats[i, block, BLOCK // 4] = scale
            floats[i, block, BLOCK // 4 + 1] = scale * F(total)
    return out


def pack_integers(weight: np.ndarray) -> np.ndarray | None:
    """Return the weight (out, in) in the blocks it was quantised in, or None if it was in none.

    (panels, in / 32, bytes of a block) int8: as `pack_as_quantised`, but with four inputs of a lane
    side by side; for Q4_1 inputs 0 to 15 in the low halves of the bytes and 16 to 31 in the high.
    """
    found = pack_as_quantised(weight)
    if found is None:
        return None
    four_bits = found.shape[2] == Q4_1_BYTES
    head = 2 * LANES * (2 if four_bits else 1)
    q = found[:, :, head:].reshape(*found.shape[:2], -1, LANES)
    if four_bits:
        q = np.stack([q & 15, q >> 4], axis=3).reshape(*found.shape[:2], BLOCK, LANES)
    fours = q.reshape(*found.shape[:2], BLOCK // 4, 4, LANES).swapaxes(-1, -2)  # (.., 8, 16, 4)
    if four_bits:
        fours = fours[:, :, :4] | fours[:, :, 4:] << 4
    packed = aligned_zeros(*found.shape, dtype=np.int8)
    packed[:, :, :head] = found[:, :, :head].view(np.int8)
    packed[:, :, head:] = fours.reshape(*found.shape[:2], -1).view(np.int8)
    return packed
