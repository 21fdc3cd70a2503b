"""A matrix product that reads each weight once, for however many tokens.

Decoding one token multiplies a few numbers by every weight of the model, so its time is the time
to read the weights from memory. Checking eight draft tokens needs the same weights; if they are
read once for all eight, the check costs little more than one token. That is what speculative
decoding on a CPU lives on, and stock matrix products miss it at these skinny shapes.

The weights of a linear layer lie in *panels*: 16 outputs wide, one row for each input, so that
a step over one input multiplies a row of 16 weights by one number of each token::

    panel (K, 16):   y[i, 0:16] += x[k, i] * panel[k, 0:16]      for k = 0, 1, ..., K-1

Each output is one chain of fused multiply-adds over k in rising order. The order depends on
nothing else: not on how many tokens there are, nor on the other tokens of the pass. So every
token's result is the same *to the last bit* whether it is computed alone, in a chunk, or in a
tree, and speculative output can equal vanilla output exactly, not merely nearly.

Two things make it fast. The 16-wide accumulators of up to `ROWS` tokens stay in registers, which
needs the vector type written out (the intrinsic below; LLVM makes it one, two or four registers
of the machine), and the numbers of each group of tokens lie together (`grouped`). And while one
panel is used, the next one is prefetched: the requests are spread evenly over the work, so that
memory never rests while arithmetic goes on.

Weights may also be kept in bfloat16, or as they were quantised, in blocks of 32 along the inputs.
That reads a half or a fifth of the bytes, and it costs arithmetic to turn them into float32. So for
more than a few tokens a piece of the panel is expanded once, into the first-level cache, and all
tokens use it from there. The sums are those of the float32 values, bit for bit.
`labkit.kernels.integers` is the other way: quantised weights times quantised activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from labkit.kernels.compiled import CACHED

F = np.float32
LANES = 16
"""Outputs in a panel: one 64-byte cache line of float32."""

FLOAT32, BFLOAT16, Q4_1, Q8_0 = range(4)
"""How a panel's weights are stored; sums are float32 for all. The last two are llama.cpp's blocks:
32 inputs of an output share a scale d in half precision, and a weight is d * q + m with q of four
bits and m in half precision, or d * q with q of eight bits."""

CHUNK = 256
"""Inputs of a panel that are expanded at once: 16 KiB of float32, half of a first-level cache."""

BLOCK = 32
"""Inputs in a block of Q4_1 or Q8_0."""

BLOCK_BYTES = {Q4_1: LANES * (2 + 2 + BLOCK // 2), Q8_0: LANES * (2 + BLOCK)}
"""Bytes of a panel's blocks over the same 32 inputs: scales, offsets, then q, input by input."""


JIT: dict[str, Any] = {
    "nogil": True,
    "cache": CACHED,
    "fastmath": {"contract"},  # allows a*b+c as one instruction, and no reordering of sums
    "error_model": "numpy",
    "boundscheck": False,
}


def host_features() -> dict[str, bool]:
    """The vector features of this machine, by LLVM's names."""
    return dict(binding.get_host_cpu_features())


def supported() -> bool:
    """Return whether this machine has fused multiply-add, without which the product is slow."""
    if binding.get_process_triple().startswith(("aarch64", "arm64")):
        return True
    features = host_features()
    return bool(features.get("fma") and features.get("avx2"))


# Tokens whose accumulators fit the registers: 32 wide registers with AVX-512, else 16 half as wide.
ROWS = 12 if host_features().get("avx512f") else 6


class Emit:
    """The pieces that the loops below are made of, each a line or two of LLVM."""

    def __init__(self, b: Any) -> None:
        self.b = b
        self.i8, self.i16, self.i32, self.i64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
        self.f32 = ir.FloatType()
        self.vector = ir.VectorType(self.f32, LANES)
        self.lanes32 = ir.VectorType(self.i32, LANES)

    def call(self, name: str, result: Any, *args: Any) -> Any:
        """Call one of LLVM's intrinsic functions."""
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), args)

    def number(self, value: int) -> Any:
        """Return a constant of 64 bits."""
        return ir.Constant(self.i64, value)

    def plus(self, address: Any, amount: int) -> Any:
        """Return an address moved by a constant."""
        return self.b.add(address, self.number(amount))

    def load(self, address: Any, of: Any, align: int) -> Any:
        """Load a value from an address."""
        return self.b.load(self.b.inttoptr(address, ir.PointerType(of)), align=align)

    def store(self, value: Any, address: Any, align: int) -> None:
        """Store a value at an address."""
        self.b.store(value, self.b.inttoptr(address, ir.PointerType(value.type)), align=align)

    def lanes(self, address: Any, of: Any) -> Any:
        """16 numbers of a type that starts at a multiple of their size."""
        bits = of.width if isinstance(of, ir.IntType) else 32
        return self.load(address, ir.VectorType(of, LANES), LANES * bits // 8)

    def halves(self, address: Any, lanes: int = LANES) -> Any:
        """Load numbers in half precision, 16 or as many as ``lanes``, as float32."""
        found = self.load(address, ir.VectorType(ir.HalfType(), lanes), 2 * lanes)
        return self.b.fpext(found, ir.VectorType(self.f32, lanes))

    def all(self, value: int) -> Any:
        """Return a constant in every lane of 32 bits."""
        return ir.Constant(self.lanes32, [value] * LANES)

    def spread(self, number: Any, lanes: int = LANES) -> Any:
        """Return one number in every lane."""
        undefined = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
        one = self.b.insert_element(undefined, number, ir.Constant(self.i32, 0))
        return self.shuffle(one, undefined, [0] * lanes)

    def shuffle(self, first: Any, second: Any, lanes: Sequence[int]) -> Any:
        """Return these lanes of two vectors, the second's counted on from the first's."""
        order = ir.Constant(ir.VectorType(self.i32, len(lanes)), list(lanes))
        return self.b.shuffle_vector(first, second, order)

    def halved(self, vector: Any) -> list[Any]:
        """Return the lower and the upper lanes of a vector."""
        lanes, half = range(vector.type.count), vector.type.count // 2
        return [self.shuffle(vector, vector, part) for part in (lanes[:half], lanes[half:])]

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """x * y + z, rounded once."""
        return self.call(f"llvm.fma.v{x.type.count}f32", x.type, x, y, z)

    def prefetch(self, address: Any) -> None:
        """Prefetch the cache line at ``address``, to be read, into the second level."""
        read, level_2, data = (ir.Constant(self.i32, value) for value in (0, 2, 1))
        pointer = self.b.inttoptr(address, ir.PointerType(self.i8))
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, read, level_2, data)

    def for_each_count(self, count: Any, most: int, body: Any) -> None:
        """Choose by ``count``, 1 to ``most``, among what ``body`` emits for each of these numbers.

        So each number of rows has its own loop, whose sums have registers of their own.
        """
        b = self.b
        done = b.append_basic_block("done")
        choice = b.switch(count, done)
        for number in range(1, most + 1):
            block = b.append_basic_block(f"rows{number}")
            choice.add_case(self.number(number), block)
            b.position_at_end(block)
            body(number)
            b.branch(done)
        b.position_at_end(done)

    def repeat(self, times: Any, start: list[Any], body: Any) -> list[Any]:
        """A loop: ``body`` maps the carried values, at first ``start``, to the next, ``times``
        times, at least once; returns the last ones.
        """
        b = self.b
        before, loop, after = b.block, b.append_basic_block(), b.append_basic_block()
        b.branch(loop)
        b.position_at_end(loop)
        counter = b.phi(self.i64)
        carried = [b.phi(value.type) for value in start]
        new = body(carried)
        count = self.plus(counter, 1)
        end = b.block
        b.cbranch(b.icmp_signed("<", count, times), loop, after)
        for phi, first, value in zip(
            [counter, *carried], [self.number(0), *start], [count, *new], strict=True
        ):
            phi.add_incoming(first, before)
            phi.add_incoming(value, end)
        b.position_at_end(after)
        return new


def _each_input(emit: Emit, kind: int, inner: Any, w: Any, start: list[Any], use: Any) -> list[Any]:
    """Emit a loop over the inputs of a panel at ``w``; return the last carried values.

    ``use`` (rows, carried) maps one input's row of 16 float32 weights, or two inputs' where a byte
    holds both, to the next carried values, at first ``start``.
    """
    b = emit.b
    if kind in (FLOAT32, BFLOAT16):

        def one_input(carried: list[Any]) -> list[Any]:
            w, *rest = carried
            if kind == FLOAT32:
                row = emit.lanes(w, emit.f32)
            else:  # the upper half of a float32
                upper = b.zext(emit.lanes(w, emit.i16), emit.lanes32)
                row = b.bitcast(b.shl(upper, emit.all(16)), emit.vector)
            size = LANES * (4 if kind == FLOAT32 else 2)
            return [emit.plus(w, size), *use([row], rest)]

        return emit.repeat(inner, [w, *start], one_input)[1:]

    def one_block(carried: list[Any]) -> list[Any]:
        w, *rest = carried
        scales, offsets = emit.halves(w), emit.halves(emit.plus(w, 2 * LANES))

        def inside(carried: list[Any]) -> list[Any]:
            at, *rest = carried
            if kind == Q8_0:
                q = b.sitofp(b.sext(emit.lanes(at, emit.i8), emit.lanes32), emit.vector)
                rows = [b.fmul(scales, q)]
            else:
                pair = b.zext(emit.lanes(at, emit.i8), emit.lanes32)
                rows = [
                    emit.fma(scales, b.sitofp(q, emit.vector), offsets)
                    for q in (b.and_(pair, emit.all(15)), b.lshr(pair, emit.all(4)))
                ]
            return [emit.plus(at, LANES), *use(rows, rest)]

        head, steps = (2 * LANES, BLOCK) if kind == Q8_0 else (4 * LANES, BLOCK // 2)
        rest = emit.repeat(emit.number(steps), [emit.plus(w, head), *rest], inside)[1:]
        return [emit.plus(w, BLOCK_BYTES[kind]), *rest]

    return emit.repeat(b.sdiv(inner, emit.number(BLOCK)), [w, *start], one_block)[1:]


@intrinsic(prefer_literal=True)
def _chains(_context, storage, rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step):
    """Add ``rows`` x 16 chains of fused multiply-adds: y[i, l] += sum over k of x[k, i] * w[k, l].

    ``storage`` is a compile-time constant; the rest are byte addresses and counts of elements. Each
    step over k also prefetches the line at ``ahead`` + k * ``ahead_step``.
    """
    kind = storage.literal_value

    def generate(context, b, _signature, args):
        _, rows, x, x_stride, w, y, y_stride, inner, ahead, ahead_step = args
        emit = Emit(b)

        def chains(count: int) -> None:
            places = [b.add(y, b.mul(emit.number(4 * i), y_stride)) for i in range(count)]
            sums = [emit.load(place, emit.vector, 4) for place in places]
            x_step = b.mul(x_stride, emit.number(4))

            def use(weights: list[Any], carried: list[Any]) -> list[Any]:
                x, ahead, *sums = carried
                for row in weights:
                    numbers = [emit.load(emit.plus(x, 4 * i), emit.f32, 4) for i in range(count)]
                    pairs = zip(numbers, sums, strict=True)
                    sums = [emit.fma(row, emit.spread(number), total) for number, total in pairs]
                    x = b.add(x, x_step)
                emit.prefetch(ahead)
                for _ in weights:
                    ahead = b.add(ahead, ahead_step)
                return [x, ahead, *sums]

            _, _, *sums = _each_input(emit, kind, inner, w, [x, ahead, *sums], use)
            for place, value in zip(places, sums, strict=True):
                emit.store(value, place, 4)

        emit.for_each_count(rows, ROWS, chains)
        return context.get_dummy_value()

    return types.void(storage, *[types.intp] * 9), generate


@intrinsic(prefer_literal=True)
def _expand(_context, storage, w, inner, out):
    """Write the panel at ``w`` as float32 (inner, 16) to ``out``; both are byte addresses."""
    kind = storage.literal_value

    def generate(context, b, _signature, args):
        _, w, inner, out = args
        emit = Emit(b)

        def use(rows: list[Any], carried: list[Any]) -> list[Any]:
            (out,) = carried
            for row in rows:
                emit.store(row, out, 4 * LANES)
                out = emit.plus(out, 4 * LANES)
            return [out]

        _each_input(emit, kind, inner, w, [out], use)
        return context.get_dummy_value()

    return types.void(storage, *[types.intp] * 3), generate


@intrinsic
def _room(_context):
    """Return the address of the calling function's own room for `CHUNK` expanded inputs."""

    def generate(_ctx, b, _signature, _args):
        room = cgutils.alloca_once(b, ir.ArrayType(ir.FloatType(), CHUNK * LANES))
        room.align = 4 * LANES
        return b.ptrtoint(room, ir.IntType(64))

    return types.intp(), generate


@njit(**JIT)
def bounds(tokens, group, groups):
    """Return the first token of a group, and the first after it."""
    return tokens * group // groups, tokens * (group + 1) // groups


@njit(**JIT)
def _one_group(x, first, last, out):
    """Write the tokens ``first`` to ``last`` of x (N, K) to ``out``; see `grouped`."""
    inner, rows = x.shape[1], last - first
    group = out[first * inner : last * inner].reshape(inner, rows)
    for i in range(rows):
        for k in range(inner):
            group[k, i] = x[first + i, k]


MANY = 16
"""Tokens from which on threads share what is done to each; for fewer it takes longer to call them.
"""


@njit(parallel=True, **JIT)
def _many_groups(x, groups, out):
    for g in prange(groups):
        first, last = bounds(x.shape[0], g, groups)
        _one_group(x, first, last, out)


@njit(**JIT)
def grouped(x):
    """Return x (N, K) as `multiply` reads it (N K,): groups of up to `ROWS` tokens, each (K, rows).

    >>> grouped(np.arange(4, dtype=np.float32).reshape(2, 2)).tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    tokens = x.shape[0]
    groups, out = (tokens + ROWS - 1) // ROWS, np.empty(x.size, F)
    if tokens >= MANY:
        _many_groups(x, groups, out)
    else:
        for g in range(groups):
            first, last = bounds(tokens, g, groups)
            _one_group(x, first, last, out)
    return out


def _of_kind(kind: int, direct: int) -> Any:
    """Return the product for panels that are stored as ``kind``, with ``each`` bytes an input.

    For up to ``direct`` tokens weights become float32 in registers as they are used; for more, a
    `CHUNK` at a time in the first-level cache.
    """

    @njit(**JIT)
    def compute(x, panel, each, y, column):
        tokens = y.shape[0]
        inner, groups = x.shape[0] // tokens, (tokens + ROWS - 1) // ROWS
        for i in range(tokens):
            for lane in range(LANES):
                y[i, column + lane] = 0
        at, step, following = panel.ctypes.data, each // groups, each * inner
        if kind == FLOAT32 or tokens <= direct:
            for g in range(groups):
                first, last = bounds(tokens, g, groups)
                rows = last - first
                xa = x.ctypes.data + 4 * first * inner
                ya = y.ctypes.data + 4 * (first * y.shape[1] + column)
                ahead = at + following + g * step * inner
                _chains(kind, rows, xa, rows, at, ya, y.shape[1], inner, ahead, step)
            return
        room = _room()
        for k in range(0, inner, CHUNK):
            count, at = min(CHUNK, inner - k), panel.ctypes.data + each * k
            _expand(kind, at, count, room)
            for g in range(groups):
                first, last = bounds(tokens, g, groups)
                rows = last - first
                xa = x.ctypes.data + 4 * (first * inner + k * rows)
                ya = y.ctypes.data + 4 * (first * y.shape[1] + column)
                ahead = at + following + g * step * count
                _chains(FLOAT32, rows, xa, rows, room, ya, y.shape[1], count, ahead, step)

    return compute


_float32, _bfloat16 = _of_kind(FLOAT32, 0), _of_kind(BFLOAT16, ROWS)
_q4_1, _q8_0 = _of_kind(Q4_1, 2), _of_kind(Q8_0, 2)
Q4_1_BYTES, Q8_0_BYTES = BLOCK_BYTES[Q4_1], BLOCK_BYTES[Q8_0]


def multiply(x, panel, y, column):
    """Set y[i, column : column + 16] to the sum over k of x[k, i] * panel[k, :], for every token i.

    For compiled code. x: (N K,) float32, from `grouped`. panel: (K, 16) float32, or uint16 holding
    bfloat16, or (K / 32, bytes of a block) uint8. y: (N, >= column + 16) float32. Meanwhile the
    bytes that follow the panel, as a rule the next panel, come from memory.
    """
    raise NotImplementedError


@overload(multiply)
def _multiply(x, panel, y, column):
    if panel.dtype == types.float32:

        def compute(x, panel, y, column):
            _float32(x, panel, 4 * LANES, y, column)
    elif panel.dtype == types.uint16:

        def compute(x, panel, y, column):
            _bfloat16(x, panel, 2 * LANES, y, column)
    else:

        def compute(x, panel, y, column):
            if panel.shape[1] == Q4_1_BYTES:
                _q4_1(x, panel, Q4_1_BYTES // BLOCK, y, column)
            else:
                _q8_0(x, panel, Q8_0_BYTES // BLOCK, y, column)

    return compute


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


def pack_as_quantised(weight: np.ndarray, rounded: int | None = None) -> np.ndarray | None:
    """The weight (out, in) in the blocks that it was quantised in, or None where it was in none.

    Panels (ceil(out / 16), in / 32, bytes of a block) uint8, each exactly the weight that was
    given: as Q4_1 if it is that, else as Q8_0. With ``rounded``, Q4_1 or Q8_0, any weight is
    rounded to that.
    """
    outputs, inputs = weight.shape
    if inputs % BLOCK:
        return None
    panels = -(-outputs // LANES)
    padded = np.zeros((panels * LANES, inputs), np.float32)
    padded[:outputs] = weight
    # (panels, lanes, blocks, 32) to (panels, blocks, 32, lanes), as a panel's rows lie
    blocks = padded.reshape(panels, LANES, -1, BLOCK).transpose(0, 2, 3, 1)
    for kind, quantised in ((Q4_1, _as_q4_1), (Q8_0, _as_q8_0)):
        if rounded not in (None, kind):
            continue
        found, values = quantised(blocks)
        if rounded == kind or np.array_equal(values, blocks):
            packed = aligned_zeros(panels, inputs // BLOCK, BLOCK_BYTES[kind], dtype=np.uint8)
            flat = [np.ascontiguousarray(part).reshape(*blocks.shape[:2], -1) for part in found]
            packed[:] = np.concatenate([part.view(np.uint8) for part in flat], axis=-1)
            return packed
    return None


def _as_q4_1(blocks: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Scales d, offsets m and pairs of steps q of blocks (..., 32, 16), and the values d q + m."""
    low, high = blocks.min(-2, keepdims=True), blocks.max(-2, keepdims=True)
    d, m = ((high - low) / np.float32(15)).astype(np.float16), low.astype(np.float16)
    wide_d, wide_m = d.astype(np.float32), m.astype(np.float32)
    q = np.rint((blocks - low) / np.where(wide_d > 0, wide_d, 1)).clip(0, 15)
    steps = q.astype(np.uint8)
    return (d, m, steps[..., ::2, :] | steps[..., 1::2, :] << 4), wide_d * q + wide_m


def _as_q8_0(blocks: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Scales d and steps q of blocks (..., 32, 16), and the values d q."""
    d = (np.abs(blocks).max(-2, keepdims=True) / np.float32(127)).astype(np.float16)
    wide = d.astype(np.float32)
    q = np.rint(blocks / np.where(wide > 0, wide, 1)).clip(-127, 127)
    return (d, q.astype(np.int8)), wide * q
