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

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from llvmlite import binding, ir
from numba import njit, prange, types
from numba.extending import intrinsic

from labkit.kernels.panel import (
    BLOCK,
    BLOCK_BYTES,
    JIT,
    LANES,
    MANY,
    Q4_1,
    Q8_0,
    Emit,
    aligned_zeros,
    bounds,
    host_features,
    pack_as_quantised,
)

ROW_BLOCK = BLOCK + 8
"""Bytes of a block of quantised activations: the integers, then s and s * sum in float32."""

HALF = LANES // 2
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
ROWS = 8 if host_features().get("avx512vl") else 4
"""Rows whose sums over half a panel fit the vector registers: 32 with AVX-512, else 16."""

TOGETHER = ROWS if DOT == "pmaddubsw" else ROWS // 4
"""Rows whose sums over a whole panel fit them. ``pmaddubsw`` gains by taking a whole panel of all
`ROWS` all the same: a number, spread once, is used twice, and only float32 sums go to memory."""


class _Dots:
    """Integer sums of one row over one block of half a panel."""

    def __init__(self, emit: Emit, dot: Dot, kind: int) -> None:
        self.emit, self.b, self.dot, self.signed = emit, emit.b, dot, kind == Q8_0
        self.bytes = ir.VectorType(emit.i8, 4 * HALF)
        self.lanes32 = ir.VectorType(emit.i32, HALF)
        self.pairs = ir.VectorType(emit.i16, 2 * HALF)
        # 8 sums of two products up to 15 * 127 fit 16 bits; one of two up to 127 * 127 just does.
        self.paired = dot == "pmaddubsw" and not self.signed

    def zero(self) -> Any:
        """Return the sums before the first group of four inputs."""
        return ir.Constant(self.pairs if self.paired else self.lanes32, None)

    def add(self, sums: Any, weights: Any, numbers: Any) -> Any:
        """Add the products of four inputs: weights and activations (8 lanes x 4 bytes)."""
        if self.signed and self.dot in ("vpdpbusd", "pmaddubsw"):
            # These take weights without a sign: it goes to the activations.
            numbers = self.emit.call("llvm.x86.avx2.psign.b", self.bytes, numbers, weights)
            no = ir.Constant(ir.IntType(1), 0)
            weights = self.emit.call(f"llvm.abs.v{4 * HALF}i8", self.bytes, weights, no)
        if self.dot == "vpdpbusd":
            name = "llvm.x86.avx512.vpdpbusd.256"
            return self.emit.call(name, self.lanes32, sums, weights, numbers)
        if self.dot == "pmaddubsw":
            name = "llvm.x86.avx2.pmadd.ub.sw"
            products = self.emit.call(name, self.pairs, weights, numbers)
            return self._added(sums, products if self.paired else self._widened(products))
        if self.dot == "sdot":
            low, high = (
                self.emit.call(
                    "llvm.aarch64.neon.sdot.v4i32.v16i8",
                    ir.VectorType(self.emit.i32, 4),
                    *(self.emit.halved(value)[part] for value in (sums, weights, numbers)),
                )
                for part in range(2)
            )
            return self.emit.shuffle(low, high, range(HALF))
        wide = ir.VectorType(self.emit.i32, 4 * HALF)
        widen = self.b.sext if self.signed else self.b.zext
        products = self.b.mul(widen(weights, wide), self.b.sext(numbers, wide))
        for start in range(4):
            lanes = range(start, 4 * HALF, 4)
            sums = self.b.add(sums, self.emit.shuffle(products, products, lanes))
        return sums

    def total(self, sums: Any) -> Any:
        """Return the sums of the block as 8 numbers of float32."""
        whole = self._widened(sums) if self.paired else sums
        return self.b.sitofp(whole, ir.VectorType(self.emit.f32, HALF))

    def _added(self, sums: Any, products: Any) -> Any:
        """Return sums + products, added before the next products are made.

        LLVM would make all products first, more than the registers hold. An empty line of assembler
        that seems to change the sum keeps it from that: a fifth more products a second.
        """
        total = self.b.add(sums, products)
        kind = ir.FunctionType(total.type, [total.type])
        return self.b.asm(kind, "", "=x,0", [total], side_effect=True)

    def _widened(self, pairs: Any) -> Any:
        """Return the sums of two 16-bit numbers each, in 32 bits."""
        ones = ir.Constant(self.pairs, [1] * (2 * HALF))
        return self.emit.call("llvm.x86.avx2.pmadd.wd", self.lanes32, pairs, ones)


def emit_block(emit, dot, kind, halves, w, rows, sums):
    """Emit a block of the panel at ``w`` times that of each of ``rows``; return the new sums.

    ``halves`` (0, 1 or both) are the parts of the panel; ``sums`` are each row's over each of them.
    """
    b, dots = emit.b, _Dots(emit, dot, kind)
    at = emit.plus(w, 2 * LANES * (2 if kind == Q4_1 else 1))
    totals = [dots.zero() for _ in sums]
    fifteen, shift = (ir.Constant(dots.bytes, [value] * (4 * HALF)) for value in (15, 4))
    for group in range(4 if kind == Q4_1 else 8):
        loaded = [
            emit.load(emit.plus(at, (2 * group + half) * 4 * HALF), dots.bytes, 4 * HALF)
            for half in halves
        ]
        steps = [(group, loaded)]
        if kind == Q4_1:  # the low halves of the bytes are four inputs, the high halves others
            low, high = ([b.and_(x, fifteen) for x in loaded], [b.lshr(x, shift) for x in loaded])
            steps = [(group, low), (group + 4, high)]
        for place, weights in steps:
            for i, row in enumerate(rows):
                number = emit.load(emit.plus(row, 4 * place), emit.i32, 4)
                numbers = b.bitcast(emit.spread(number, HALF), dots.bytes)
                for j, part in enumerate(weights, len(halves) * i):
                    totals[j] = dots.add(totals[j], part, numbers)
    new = []
    for j, (total, before) in enumerate(zip(totals, sums, strict=True)):
        row, half = rows[j // len(halves)], halves[j % len(halves)]
        scales = emit.halves(emit.plus(w, 2 * HALF * half), HALF)
        scale = emit.spread(emit.load(emit.plus(row, BLOCK), emit.f32, 4), HALF)
        after = emit.fma(b.fmul(scales, scale), dots.total(total), before)
        if kind == Q4_1:
            offsets = emit.halves(emit.plus(w, 2 * (LANES + HALF * half)), HALF)
            whole = emit.spread(emit.load(emit.plus(row, BLOCK + 4), emit.f32, 4), HALF)
            after = emit.fma(offsets, whole, after)
        new.append(after)
    return new


def emit_rows(emit, dot, kind, count, x, x_stride, w, blocks, y, y_stride):
    """Emit the product of ``count`` rows at ``x`` and the panel at ``w``.

    The sums of more than `TOGETHER` rows fit the registers for half a panel at a time only; the
    other half then comes from the cache. Meanwhile the bytes that follow the panel are prefetched.
    """
    b, size = emit.b, BLOCK_BYTES[kind]
    offsets = [b.mul(emit.number(i), x_stride) for i in range(count)]
    loops = [(0, 1)] if count <= TOGETHER else [(0,), (1,)]
    ahead, step = b.add(w, b.mul(blocks, emit.number(size))), size // len(loops)
    for halves in loops:

        def one_block(carried: list[Any], halves: Sequence[int] = halves) -> list[Any]:
            x, w, ahead, *sums = carried
            for place in range(0, step, 64):
                emit.prefetch(emit.plus(ahead, place))
            rows = [b.add(x, offset) for offset in offsets]
            sums = emit_block(emit, dot, kind, halves, w, rows, sums)
            return [emit.plus(x, ROW_BLOCK), emit.plus(w, size), emit.plus(ahead, step), *sums]

        zero = ir.Constant(ir.VectorType(emit.f32, HALF), None)
        start = [x, w, ahead, *[zero] * (count * len(halves))]
        _, _, ahead, *sums = emit.repeat(blocks, start, one_block)
        for j, value in enumerate(sums):
            row, half = j // len(halves), halves[j % len(halves)]
            at = b.add(emit.plus(y, 4 * HALF * half), b.mul(emit.number(row), y_stride))
            emit.store(value, at, 4)


@intrinsic(prefer_literal=True)
def _rows_of(_context, storage, rows, x, x_stride, w, blocks, y, y_stride):
    """Multiply ``rows`` quantised rows by the panel at ``w``; addresses and strides in bytes."""
    kind = storage.literal_value

    def generate(context, b, _signature, args):
        emit = Emit(b)
        emit.for_each_count(
            args[1], ROWS, lambda count: emit_rows(emit, DOT, kind, count, *args[2:])
        )
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
    groups = (tokens + ROWS - 1) // ROWS
    for g in range(groups):
        first, last = bounds(tokens, g, groups)
        rows = last - first
        xa = x.ctypes.data + first * stride
        ya = y.ctypes.data + 4 * (first * y.shape[1] + column)
        if panel.shape[1] == Q4_1_BYTES:
            _rows_of(Q4_1, rows, xa, stride, panel.ctypes.data, blocks, ya, 4 * y.shape[1])
        else:
            _rows_of(Q8_0, rows, xa, stride, panel.ctypes.data, blocks, ya, 4 * y.shape[1])


def _folded(emit: Emit, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Join all lanes of a vector to one number, its upper half with its lower one at a time."""
    while vector.type.count > 1:
        vector = join(*emit.halved(vector))
    return emit.b.extract_element(vector, ir.Constant(emit.i32, 0))


@intrinsic
def _quantise_block(_context, x, out):
    """Quantise the 32 numbers at ``x`` to a row's block at ``out``."""

    def generate(context, b, _signature, args):
        x, out = args
        emit = Emit(b)

        def larger(one: Any, other: Any) -> Any:
            return b.select(b.fcmp_ordered(">", one, other), one, other)

        parts = [emit.load(emit.plus(x, 4 * first), emit.vector, 4) for first in (0, LANES)]
        sizes = [emit.call(f"llvm.fabs.v{LANES}f32", emit.vector, part) for part in parts]
        most = _folded(emit, larger(*sizes), larger)
        zero, largest = ir.Constant(emit.f32, 0), ir.Constant(emit.f32, 127)
        each = b.select(b.fcmp_ordered(">", most, zero), b.fdiv(largest, most), zero)
        # Numbers of this size are whole: adding one and taking it away rounds, ties to even.
        rounder = ir.Constant(emit.vector, [1.5 * 2**23] * LANES)
        whole = [
            b.fsub(b.fadd(b.fmul(part, emit.spread(each)), rounder), rounder) for part in parts
        ]
        for place, part in enumerate(whole):
            small = b.trunc(b.fptosi(part, emit.lanes32), ir.VectorType(emit.i8, LANES))
            emit.store(small, emit.plus(out, LANES * place), 4)
        scale = b.fdiv(most, largest)
        emit.store(scale, emit.plus(out, BLOCK), 4)
        total = _folded(emit, b.fadd(*whole), b.fadd)  # exact in any order
        emit.store(b.fmul(scale, total), emit.plus(out, BLOCK + 4), 4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


UNFUSED = {**JIT, "fastmath": False}
"""Settings of a kernel in which a product is rounded before it becomes a whole number."""


@njit(**UNFUSED)
def _quantise_row(x, out):
    """Quantise one row (K,), contiguous; see `quantise`."""
    for block in range(out.shape[0]):
        _quantise_block(x.ctypes.data + 4 * BLOCK * block, out.ctypes.data + ROW_BLOCK * block)


@njit(parallel=True, **UNFUSED)
def _quantise_many(x, out):
    for i in prange(x.shape[0]):
        _quantise_row(x[i], out[i])


@njit(**UNFUSED)
def quantise(x):
    """Return x (N, K), its rows contiguous, in blocks of 32 along K.

    The result is (N, K / 32, bytes of a row's block) int8.
    """
    tokens, inner = x.shape
    out = np.empty((tokens, inner // BLOCK, ROW_BLOCK), np.int8)
    if tokens >= MANY:
        _quantise_many(x, out)
    else:
        for i in range(tokens):
            _quantise_row(x[i], out[i])
    return out


def pack_integers(weight: np.ndarray, rounded: int | None = None) -> np.ndarray | None:
    """Return the weight (out, in) in the blocks it was quantised in, or None if it was in none.

    (panels, in / 32, bytes of a block) int8: as `pack_as_quantised`, but with four inputs of a lane
    side by side; for Q4_1 inputs 0 to 15 in the low halves of the bytes and 16 to 31 in the high.
    """
    found = pack_as_quantised(weight, rounded)
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
