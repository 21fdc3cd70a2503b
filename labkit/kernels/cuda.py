"""A Llama-shaped model on a GPU, every pass a recorded CUDA graph.

A pass over a few tokens is hundreds of kernels of a few microseconds each, and launching them from
Python takes longer than running them. A CUDA graph records the launches once and replays them as
one; its price is that no shape and no address may change. So tokens are padded to one of a few
widths, sequences to a power of two, and attention reads a whole number of blocks of the cache;
what is padding, hidden or not yet written is masked. Graphs belong to the cache whose addresses
they hold, and a cache no longer in use goes to the next generation, with its graphs.

A layer is five kernels by `kernels.fused` where Triton serves the card, else what `layer_pass` is,
compiled or not. Without a GPU, or where recording fails, the same pass runs unrecorded.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch.nn import functional

from labkit.errors import LabkitError
from labkit.kernels.engine import Cache, Output, Rows, Stacked, stack
from labkit.kernels.llama import LlamaEngine, LlamaWeights

WIDTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Tokens of one sequence that a pass is recorded for; fewer are padded to the next width."""

BLOCK = 256
"""Attention reads a multiple of this many cache places."""

ROOM = 1024
"""A cache has a multiple of this many places, so that most generations can share one."""

IDLE = 4
"""Unused caches that are kept, with their graphs."""

SHAPES = 64
"""Shapes that the layers' function may be compiled for."""

ROUNDING = 0.05
"""How far one layer's results may lie apart where only the order of rounding differs."""

Result = TypeVar("Result")


class Inputs(NamedTuple):
    """A pass over G sequences of n tokens each, padded; the tensors that a graph reads.

    ``places`` (G, n) are the cache places that the tokens are written to, ``mask`` (G, 1, n, end)
    says which places each of them sees. With ``order`` (n, end), for a single sequence, row i reads
    place ``order[i, p]`` as its p-th, and ``mask`` (1, 1, n, end) counts in that order.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor
    order: torch.Tensor | None = None

    def to(self, device: torch.device) -> Inputs:
        """Return the same inputs on ``device``."""
        return Inputs(*(tensor.to(device) for tensor in self.tensors))

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors of a pass in the order of the tokens."""
        return self.tokens, self.positions, self.places, self.slots, self.mask

    @property
    def shape(self) -> tuple[int, int, int]:
        """(G, n, end): passes of one shape share a graph."""
        groups, _, width, end = self.mask.shape
        return groups, width, end


def arrange(stacked: Stacked, spare: int, room: int) -> tuple[Inputs, torch.Tensor]:
    """Pad new tokens to a shape that a graph is recorded for; also return where they are: (N,).

    Groups beyond the last are padding in the slot ``spare``; a padded token sees only place 0.
    ``room`` is how many places a slot has, the padding's included.
    """
    tokens, positions, bounds, slots, lengths, visible = stacked
    counts = np.diff(bounds)
    if counts.max() > WIDTHS[-1]:
        raise LabkitError(
            f"A pass processes up to {WIDTHS[-1]} tokens of a text, not {counts.max()}."
        )
    width = next(width for width in WIDTHS if width >= counts.max())
    groups = 1 << (len(slots) - 1).bit_length()
    needed = int(lengths[slots].max()) + width
    end = min(-(-needed // BLOCK) * BLOCK, room)
    padded = {
        name: np.zeros((groups, width), np.int64) for name in ("tokens", "positions", "places")
    }
    all_slots = np.full(groups, spare, np.int64)
    all_slots[: len(slots)] = slots
    mask = np.zeros((groups, 1, width, end), bool)
    padded["places"][:] = np.arange(width)
    for g, (low, high, slot) in enumerate(zip(bounds[:-1], bounds[1:], slots, strict=True)):
        count, length = high - low, int(lengths[slot])
        padded["tokens"][g, :count] = tokens[low:high]
        padded["positions"][g, :count] = positions[low:high]
        padded["places"][g] = length + np.arange(width)
        mask[g, 0, :count, :length] = True
        mask[g, 0, :count, length : length + count] = visible[low:high, low:high]
        mask[g, 0, count:, 0] = True
    mask[len(slots) :, 0, :, 0] = True
    true = np.concatenate([g * width + np.arange(count) for g, count in enumerate(counts)])
    arrays = (padded["tokens"], padded["positions"], padded["places"], all_slots, mask)
    return Inputs(*map(torch.from_numpy, arrays)), torch.from_numpy(true)


class Layer(NamedTuple):
    """One layer's weights, those with the same input joined."""

    before: torch.Tensor
    qkv: torch.Tensor
    bias: torch.Tensor
    out: torch.Tensor
    between: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    head_norms: torch.Tensor | None


class Sizes(NamedTuple):
    """What a layer's function needs to know besides tensors."""

    heads: int
    kv_heads: int
    size: int
    epsilon: float


Pass = tuple[torch.Tensor, torch.Tensor]
"""What a pass returns: states after the layers read and the final norm (G, n, W), logits."""


class Buffers:
    """Keys and values (layers, slots, kv heads, room, d), and the graphs on their addresses."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.graphs: dict[tuple[int, ...], tuple[Inputs, Callable[[], Pass]]] = {}


class StaticCache(Cache):
    """Keys and values at fixed addresses; see `kernels.engine.Cache`."""

    def __init__(self, capacity: int, slots: int, buffers: Buffers) -> None:
        super().__init__(capacity, slots)
        self.buffers = buffers

    def _move(self, slot: int, length: int, path: np.ndarray) -> None:
        for part in (self.buffers.keys[:, slot], self.buffers.values[:, slot]):
            part[:, :, length : length + len(path)] = part[:, :, length + path]

    def copy_slot(self, source: int, target: int) -> None:
        """See `Cache`."""
        length = int(self.lengths[source])
        for part in (self.buffers.keys, self.buffers.values):
            part[:, target, :, :length] = part[:, source, :, :length]
        self.lengths[target] = length


class CudaEngine(LlamaEngine):
    """A Llama-shaped model (see `kernels.not_llama_shaped`) with static shapes and CUDA graphs.

    Its weights are kept in ``dtype``, bfloat16 as a rule, in which a row's result may change in its
    last bits with the other rows of the pass.
    """

    exact = False

    def __init__(
        self, llama: LlamaWeights, device: torch.device, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        super().__init__(llama, torch.device(device))
        self.dtype = dtype
        self.recording = self.device.type == "cuda"
        self.sizes = Sizes(self.heads, self.kv_heads, self.size, self.epsilon)
        self.name = f"CUDA graphs, {str(dtype).removeprefix('torch.')}"

        def put(*weights: np.ndarray) -> torch.Tensor:
            there = [torch.from_numpy(np.array(w)).to(self.device, self.dtype) for w in weights]
            return torch.cat(there)

        self.layers = [
            Layer(
                before=put(layer.before),
                qkv=put(layer.qkv),
                bias=put(layer.bias),
                out=put(layer.out),
                between=put(layer.between),
                gate_up=put(layer.gate, layer.up),
                down=put(layer.down),
                head_norms=None if layer.head_norms is None else put(layer.head_norms),
            )
            for layer in llama.layers()
        ]
        self.norm, self.embedding = put(llama.norm), put(llama.embedding)
        self.head = self.embedding if llama.head is llama.embedding else put(llama.head)
        self.cosines, self.sines = put(llama.cosines), put(llama.sines)
        self._idle: list[Buffers] = []

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""
        return self.head.nbytes + sum(
            weight.nbytes
            for layer in self.layers
            for weight in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )

    def new_cache(self, capacity: int, slots: int = 1) -> StaticCache:
        """See `kernels.engine.Engine`."""
        room = -(-(capacity + WIDTHS[-1]) // ROOM) * ROOM
        spare = 0 if slots == 1 else 1
        shape = (len(self.layers), slots + spare, self.kv_heads, room, self.size)
        buffers = next((idle for idle in self._idle if idle.keys.shape == shape), None)
        if buffers is None:
            buffers = Buffers(shape, self.device, self.dtype)
        else:
            self._idle.remove(buffers)
        cache = StaticCache(capacity, slots, buffers)
        weakref.finalize(cache, keep_some, self._idle, buffers)
        return cache

    @torch.no_grad()
    def forward(
        self,
        rows: Sequence[Rows],
        cache: StaticCache,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        """See `kernels.engine.Engine`."""
        stacked = stack(self, rows, cache, layers)
        inputs, true = arrange(stacked, len(cache.lengths), cache.buffers.keys.shape[3])
        states, found = self._run(inputs, cache.buffers, tuple(layers))
        true = true.to(self.device)
        hidden = states.flatten(0, 1)[true]  # (N, D), wider where layers are read
        if logits == "last":
            true = true[torch.from_numpy(stacked.bounds[1:] - 1).to(self.device)]
        return Output(hidden, found.flatten(0, 1)[true].float())

    def _run(self, inputs: Inputs, buffers: Buffers, layers: tuple[int, ...]) -> Pass:
        """Run the pass on static tensors: replay its graph, or record it first."""
        shape = (*inputs.shape, *layers)
        if shape not in buffers.graphs:
            given, keys, values = inputs.to(self.device), buffers.keys, buffers.values
            run = self.recorded(lambda: self.compute(given, keys, values, layers))
            buffers.graphs[shape] = given, run
        static, run = buffers.graphs[shape]
        for old, new in zip(static.tensors, inputs.tensors, strict=True):
            old.copy_(new)
        return run()

    def recorded(self, run: Callable[[], Result]) -> Callable[[], Result]:
        """Return ``run``, which works on static tensors, as a CUDA graph.

        Without CUDA, or where recording fails (with a warning), it is returned as it is.
        """
        if not self.recording:
            return run
        try:
            return capture(run, self.device)
        except RuntimeError as error:
            self.recording = False
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"A CUDA graph could not be recorded, so every kernel is launched by itself, which "
                f"is slower: {reason}",
                stacklevel=2,
            )
            return run

    @torch.no_grad()
    def compute(
        self,
        given: Inputs,
        keys: torch.Tensor,
        values: torch.Tensor,
        layers: tuple[int, ...],
        lean: bool = False,
    ) -> Pass:
        """Run the layers on new tokens, whose keys and values are written: see `Pass`.

        ``lean`` compiles a shape that is used often, where `fused` does not serve it: compiling
        takes seconds, so passes over prompts, of many shapes, do without it.
        """
        run_layer = self.compiled_layer if lean and self.recording else layer_pass
        if self.fused and given.tokens.numel() <= self.fused.ROWS:
            run_layer = self.fused.layer_pass
        x = functional.embedding(given.tokens, self.embedding)  # (G, n, D)
        turn = self.cosines[given.positions][:, :, None], self.sines[given.positions][:, :, None]
        given = given._replace(mask=self._additive(given))
        told = []
        for number, layer in enumerate(self.layers):
            x = run_layer(x, layer, given, turn, keys[number], values[number], self.sizes)
            if number + 1 in layers:
                told.append(x)
        last = rms_norm(x, self.norm, self.epsilon)
        return torch.cat([*told, last], dim=-1), functional.linear(last, self.head)

    def _additive(self, given: Inputs) -> torch.Tensor:
        """Return the mask as attention adds it, made once for all layers; see `attend`."""
        mask = torch.zeros_like(given.mask, dtype=self.dtype).masked_fill(~given.mask, -math.inf)
        share = self.heads // self.kv_heads
        if given.order is None:
            return mask.repeat(1, 1, share, 1)  # (G, 1, g n, end)
        return mask[0, 0][:, None, None].expand(-1, -1, share, -1)  # (n, 1, g, end)

    @cached_property
    def compiled_layer(self) -> Callable[..., torch.Tensor]:
        """`layer_pass` in fewer kernels, by ``torch.compile``."""
        return compiled(layer_pass)

    @cached_property
    def fused(self) -> ModuleType | None:
        """`kernels.fused`, for passes over few rows, where it serves this card; else None.

        Triton is for cards of compute capability 8 and later. Before the first use its layer is
        compared with `layer_pass`; where it fails or differs, a warning says so.
        """
        if self.device.type != "cuda" or torch.cuda.get_device_capability(self.device) < (8, 0):
            return None
        try:
            from labkit.kernels import fused
        except ImportError:
            return None
        try:
            differs = self.difference(fused.layer_pass)
            if differs <= ROUNDING:
                return fused
            reason = f"its result is {differs:.0%} off"
        except Exception as error:  # whatever it is, the plain layer serves
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(f"Triton's layer is not used, which is slower: {reason}", stacklevel=2)
        return None

    @torch.no_grad()
    def difference(self, run_layer: Callable[..., torch.Tensor]) -> float:
        """Return how far ``run_layer`` is from `layer_pass`, relative to the largest value.

        Three random rows go through the first layer, once as a chain and once in an order.
        """
        rows = torch.arange(3, device=self.device)
        seen = torch.arange(BLOCK, device=self.device) <= rows[:, None]  # (n, end)
        random = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(1, 3, self.width, generator=random, device=self.device).to(self.dtype)
        turn = self.cosines[rows][None, :, None], self.sines[rows][None, :, None]
        differences = []
        for order in (None, torch.arange(BLOCK, device=self.device).repeat(3, 1)):
            given = Inputs(rows[None], rows[None], rows[None], rows[:1], seen[None, None], order)
            given = given._replace(mask=self._additive(given))
            found = []
            for run in (run_layer, layer_pass):
                shape = (1, self.kv_heads, BLOCK, self.size)
                keys, values = (x.new_zeros(shape) for _ in range(2))
                out = run(x, self.layers[0], given, turn, keys, values, self.sizes)
                found.append((out, keys, values))
            for one, other in zip(*found, strict=True):
                differences.append((one - other).abs().max() / other.abs().max())
        return float(torch.stack(differences).max())  # NaN if one is

    def lean_pass(self, rows: Sequence[Rows], cache: StaticCache) -> Callable[[], Pass]:
        """Return a recorded pass over ``rows`` in few kernels, to be timed or counted."""
        given, _ = arrange(
            stack(self, rows, cache), len(cache.lengths), cache.buffers.keys.shape[3]
        )
        given, buffers = given.to(self.device), cache.buffers
        return self.recorded(
            lambda: self.compute(given, buffers.keys, buffers.values, (), lean=True)
        )


def layer_pass(
    x: torch.Tensor,
    layer: Layer,
    given: Inputs,
    turn: tuple[torch.Tensor, torch.Tensor],
    keys: torch.Tensor,
    values: torch.Tensor,
    sizes: Sizes,
) -> torch.Tensor:
    """Run one layer on x (G, n, D), with the cache's keys and values (slots, kv, room, d).

    ``turn`` are the cosines and sines of the tokens' positions.
    """
    heads, kv_heads, size, epsilon = sizes
    qkv = functional.linear(rms_norm(x, layer.before, epsilon), layer.qkv, layer.bias)
    qkv = qkv.unflatten(-1, (-1, size))  # (G, n, H + 2 kv, d)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=2)
    if layer.head_norms is not None:
        q, k = (rms_norm(part, layer.head_norms[i], epsilon) for i, part in enumerate((q, k)))
    keys[given.slots[:, None], :, given.places] = rotate(k, *turn)
    values[given.slots[:, None], :, given.places] = v
    mixed = attend(rotate(q, *turn), keys, values, given)  # (G, n, H d)
    x = torch.add(x, functional.linear(mixed, layer.out))
    normed = rms_norm(x, layer.between, epsilon)
    gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
    return torch.add(x, functional.linear(functional.silu(gate) * up, layer.down))


def attend(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, given: Inputs
) -> torch.Tensor:
    """Mix the values that each query of q (G, n, H, d) sees: (G, n, H d).

    The g query heads of one key-value head are further queries of it, so nothing is repeated; the
    mask, to be added to the scores, is for all of them.
    """
    mask, end, kv = given.mask, given.mask.shape[-1], keys.shape[1]
    groups, many, heads, size = q.shape
    q = q.unflatten(2, (kv, -1))  # (G, n, kv, g, d)
    if given.order is None:
        keys, values = (
            part[:1, :, :end]
            if part.shape[0] == 1
            else part[:, :, :end].index_select(0, given.slots)
            for part in (keys, values)
        )  # (G, kv, end, d)
        q = q.permute(0, 2, 3, 1, 4).flatten(2, 3)  # (G, kv, g n, d)
        mixed = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        mixed = mixed.unflatten(2, (-1, many)).permute(0, 3, 1, 2, 4)  # (G, n, kv, g, d)
    else:
        keys, values = (
            part[0].index_select(1, given.order.flatten()).unflatten(1, (many, end)).transpose(0, 1)
            for part in (keys, values)
        )  # (n, kv, end, d): each row's keys and values in the order in which it reads them
        mixed = functional.scaled_dot_product_attention(q[0], keys, values, attn_mask=mask)
    return mixed.reshape(groups, many, heads * size)


def rms_norm(x: torch.Tensor, gain: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Divide x by the root mean square of its last axis, in float32, and multiply by ``gain``."""
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return gain * (wide * scale).to(x.dtype)


def compiled(plain: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function by ``torch.compile``; where that fails, the plain one, with a warning.

    Each shape is compiled for itself, which takes seconds; more than `SHAPES` are not.
    """
    torch._dynamo.config.recompile_limit = SHAPES
    chosen: Callable[..., Result] | None = None

    def run(*given: Any) -> Result:
        nonlocal chosen
        try:
            chosen = chosen or torch.compile(plain, fullgraph=True, dynamic=False)
            return chosen(*given)
        except (RuntimeError, ImportError, OSError) as error:
            if chosen is plain:
                raise
            chosen = plain
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"torch.compile failed, so a layer is many small kernels, which is slower: "
                f"{reason}",
                stacklevel=2,
            )
            return plain(*given)

    return run


def capture(run: Callable[[], Result], device: torch.device) -> Callable[[], Result]:
    """Record ``run`` as a CUDA graph, after three runs that warm it up; return its replay."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()

    def replay() -> Result:
        graph.replay()
        return outputs

    return replay


def keep_some(idle: list[Buffers], buffers: Buffers) -> None:
    """Add ``buffers`` to those that wait for reuse, and drop the oldest."""
    idle.append(buffers)
    del idle[:-IDLE]


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn x (G, n, heads, d) by its positions: cosines and sines are (G, n, 1, d / 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
