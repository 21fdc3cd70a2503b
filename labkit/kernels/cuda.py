"""A Llama-shaped model on a GPU, every pass a recorded CUDA graph.

A pass over a few tokens is hundreds of kernels of a few microseconds each, and launching them from
Python takes longer than running them. A CUDA graph records the launches once and replays them as
one; its price is that no shape and no address may change. So tokens are padded to one of a few
widths, sequences to a power of two, and attention reads a whole number of blocks of the cache;
what is padding, hidden or not yet written is masked. Graphs belong to the cache whose addresses
they hold, and a cache no longer in use goes to the next generation, with its graphs.

Without a GPU the same pass runs unrecorded, which is how its bookkeeping is tested.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from labkit.errors import LabkitError
from labkit.kernels.engine import Cache, Output, Rows, Stacked, TorchProbe, stack
from labkit.kernels.llama import LlamaEngine, LlamaWeights

WIDTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Tokens of one sequence that a pass is recorded for; fewer are padded to the next width."""

BLOCK = 256
"""Attention reads a multiple of this many cache places."""

ROOM = 1024
"""A cache has a multiple of this many places, so that most generations can share one."""

IDLE = 4
"""Unused caches that are kept, with their graphs."""


@dataclass(frozen=True)
class Inputs:
    """A pass over G sequences of n tokens each, padded; the tensors that a graph reads.

    ``places`` (G, n) are the cache places that the tokens are written to, ``mask`` (G, 1, n, end)
    says which places each of them sees. ``rows`` (N,) are the true tokens among all G n, in order.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor

    def to(self, device: torch.device) -> Inputs:
        """Return the same inputs on ``device``."""
        tokens, positions, places, slots, mask = (tensor.to(device) for tensor in self.tensors)
        return Inputs(tokens, positions, places, slots, mask, self.rows)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What a recorded pass reads; ``rows`` only picks from its result."""
        return self.tokens, self.positions, self.places, self.slots, self.mask

    @property
    def shape(self) -> tuple[int, int, int]:
        """(G, n, end): passes of one shape share a graph."""
        groups, _, width, end = self.mask.shape
        return groups, width, end


def arrange(stacked: Stacked, spare: int, room: int) -> Inputs:
    """Pad new tokens to a shape that a graph is recorded for.

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
    return Inputs(
        torch.from_numpy(padded["tokens"]),
        torch.from_numpy(padded["positions"]),
        torch.from_numpy(padded["places"]),
        torch.from_numpy(all_slots),
        torch.from_numpy(mask),
        torch.from_numpy(true),
    )


@dataclass(frozen=True)
class Layer:
    """One layer's weights, those with the same input joined."""

    before: torch.Tensor
    qkv: torch.Tensor
    bias: torch.Tensor
    out: torch.Tensor
    between: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Buffers:
    """Keys and values (layers, slots, kv heads, room, d), and the graphs on their addresses."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.graphs: dict[tuple[int, ...], Recorded] = {}


@dataclass(frozen=True)
class Recorded:
    """A graph with the tensors that it reads and the (hidden, logits) that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    outputs: tuple[torch.Tensor, torch.Tensor]


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

    @property
    def threads(self) -> int:
        """Threads of the processor that share a pass."""
        return torch.get_num_threads()

    def bandwidth_probe(self) -> TorchProbe:
        """See `kernels.engine.Engine`."""
        return TorchProbe(self.device)

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
        inputs = arrange(stacked, len(cache.lengths), cache.buffers.keys.shape[3])
        states, found = self._run(inputs, cache.buffers, tuple(layers))
        true = inputs.rows.to(self.device)
        hidden = states.flatten(0, 1)[true]  # (N, D), wider where layers are read
        if logits == "last":
            true = true[torch.from_numpy(stacked.bounds[1:] - 1).to(self.device)]
        return Output(hidden, found.flatten(0, 1)[true].float())

    def _run(
        self, inputs: Inputs, buffers: Buffers, layers: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the pass: replay its graph, or record it first, or compute it without one."""
        if not self.recording:
            return self._compute(inputs.to(self.device), buffers, layers)
        shape = (*inputs.shape, *layers)
        known = buffers.graphs.get(shape)
        if known is None:
            known = buffers.graphs[shape] = self._record(inputs, buffers, layers)
        for static, new in zip(known.inputs.tensors, inputs.tensors, strict=True):
            static.copy_(new)
        known.graph.replay()
        return known.outputs

    def _record(self, inputs: Inputs, buffers: Buffers, layers: tuple[int, ...]) -> Recorded:
        """Record a pass of this shape, after a few warm-up runs that change nothing else."""
        given = inputs.to(self.device)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._compute(given, buffers, layers)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._compute(given, buffers, layers)
        return Recorded(graph, given, outputs)

    def _compute(
        self, given: Inputs, buffers: Buffers, layers: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute states after ``layers`` and the final norm (G, n, D), and logits (G, n, V)."""
        tokens, positions, places, slots, mask = given.tensors
        end = mask.shape[-1]
        x = functional.embedding(tokens, self.embedding)  # (G, n, D)
        turn = self.cosines[positions][:, :, None], self.sines[positions][:, :, None]
        told = []
        for layer, weights in enumerate(self.layers):
            keys, values = buffers.keys[layer], buffers.values[layer]
            normed = self._rms_norm(x, weights.before)
            qkv = functional.linear(normed, weights.qkv, weights.bias)
            qkv = qkv.unflatten(-1, (-1, self.size))  # (G, n, H + 2 kv, d)
            q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=2)
            keys[slots[:, None], :, places] = rotate(k, *turn)
            values[slots[:, None], :, places] = v
            seen_keys, seen_values = (
                part[:1, :, :end] if part.shape[0] == 1 else part[:, :, :end].index_select(0, slots)
                for part in (keys, values)
            )  # (G, kv, end, d)
            mixed = functional.scaled_dot_product_attention(
                rotate(q, *turn).transpose(1, 2),
                seen_keys,
                seen_values,
                attn_mask=mask,
                enable_gqa=self.heads != self.kv_heads,
            )  # (G, H, n, d)
            x = x + functional.linear(mixed.transpose(1, 2).flatten(2), weights.out)
            normed = self._rms_norm(x, weights.between)
            gate, up = functional.linear(normed, weights.gate_up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, weights.down)
            if layer + 1 in layers:
                told.append(x)
        last = self._rms_norm(x, self.norm)
        return torch.cat([*told, last], dim=-1), functional.linear(last, self.head)

    def _rms_norm(self, x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return gain * (wide * scale).to(x.dtype)


def keep_some(idle: list[Buffers], buffers: Buffers) -> None:
    """Add ``buffers`` to those that wait for reuse, and drop the oldest."""
    idle.append(buffers)
    del idle[:-IDLE]


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn x (G, n, heads, d) by its positions: cosines and sines are (G, n, 1, d / 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
