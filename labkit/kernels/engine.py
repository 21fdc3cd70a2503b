"""What the loop asks of a base model's forward pass, whichever path computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from labkit.devices import clock
from labkit.errors import LabkitError


@dataclass(frozen=True)
class Rows:
    """New tokens of one sequence, to be looked at in one forward pass.

    ``depths`` (N,) are positions counted from the end of what the cache holds; ``visible`` (N, N)
    says which new token sees which (itself included). Both null: a chain, each sees those before.
    """

    tokens: Sequence[int]
    slot: int = 0
    depths: Sequence[int] | None = None
    visible: np.ndarray | None = None


@dataclass(frozen=True)
class Output:
    """A forward pass's result; rows of all sequences one after another.

    ``hidden`` (N, D) is the state after the final norm, what the heads read as Z; where the engine
    reads r other layers too, (N, (r + 1) D): the residual stream after each of those, then the
    same. ``logits`` is (N, V), or one row for each sequence where only the last were asked for.
    Both may be overwritten by the engine's next pass.
    """

    hidden: torch.Tensor
    logits: torch.Tensor


class Cache(Protocol):
    """Keys and values of several sequences, each in a slot of its own."""

    capacity: int
    lengths: np.ndarray

    def commit(self, path: Sequence[int], slot: int = 0) -> None:
        """Keep, of the slot's rows of the last pass, those in ``path``; forget the rest."""

    def truncate(self, length: int, slot: int = 0) -> None:
        """Forget all but the first ``length`` tokens of the slot."""

    def copy_slot(self, source: int, target: int) -> None:
        """Make ``target`` hold what ``source`` holds."""


class Engine(Protocol):
    """A base model's forward pass over new tokens, given a cache of the earlier ones."""

    name: str
    exact: bool
    """Whether a row's result is bit-identical whatever rows stand beside it."""
    vocabulary: int
    width: int
    layer_count: int
    layers_read: tuple[int, ...]
    """After which layers, counted from 1 and rising, ``hidden`` also tells the state; first none.
    Set by `read_layers`."""
    device: torch.device

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""

    @property
    def threads(self) -> int:
        """Threads of the processor that share a pass."""

    def bandwidth_probe(self) -> Callable[[], float]:
        """A function that reads a large array as a pass reads the weights: bytes per second."""

    def new_cache(self, capacity: int, slots: int = 1) -> Cache:
        """An empty cache for ``slots`` sequences of at most ``capacity`` tokens."""

    def forward(
        self, rows: Sequence[Rows], cache: Any, logits: Literal["all", "last"] = "all"
    ) -> Output:
        """Look at new tokens; nothing of them stays in ``cache``, one of ours, until ``commit``."""


def read_layers(engine: Engine, layers: Sequence[int]) -> None:
    """Have ``engine`` tell the states after ``layers`` too, from its next pass on.

    Raises `LabkitError` where it has no such layers before its last, or tells those after others
    already, which some heads opened before want.
    """
    wanted = tuple(layers)
    if not wanted or wanted == engine.layers_read:
        return
    if wanted[-1] >= engine.layer_count:
        raise LabkitError(
            f"These heads read layer {wanted[-1]} beside the last one, and the base model has "
            f"{engine.layer_count}."
        )
    if engine.layers_read:
        raise LabkitError(
            f"These heads read the layers {wanted}, others that are open read {engine.layers_read}:"
            " open them apart."
        )
    engine.layers_read = wanted


class TorchProbe:
    """Reads a large array through torch, again and again, where the engine computes."""

    def __init__(self, device: torch.device, numbers: int = 1 << 26) -> None:
        self.numbers = torch.ones(numbers, device=device)

    def __call__(self) -> float:
        """Bytes per second of one reading."""
        began = clock(self.numbers.device)
        self.numbers.sum()
        return self.numbers.nbytes / (clock(self.numbers.device) - began)


def chain_visible(count: int) -> np.ndarray:
    """The mask (N, N) of a chain: each token sees itself and those before it."""
    return np.tril(np.ones((count, count), dtype=np.uint8))


def stack(rows: Sequence[Rows], lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, ...]:
    """Tokens (N,), positions (N,), bounds (G + 1,), slots (G,), visibility (N, N) of all rows.

    Raises `LabkitError` where a slot of ``capacity`` tokens, ``lengths`` of them taken, cannot hold
    its new ones: nothing else would keep them from the memory behind it.
    """
    for piece in rows:
        if lengths[piece.slot] + len(piece.tokens) > capacity:
            raise LabkitError(
                f"A cache of {capacity} tokens holds {lengths[piece.slot]} and cannot look at "
                f"{len(piece.tokens)} more: make it larger."
            )
    counts = [len(piece.tokens) for piece in rows]
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    total = int(bounds[-1])
    tokens = np.empty(total, np.int64)
    positions = np.empty(total, np.int64)
    visible = np.zeros((total, total), np.uint8)
    for piece, low, high in zip(rows, bounds[:-1], bounds[1:], strict=True):
        count = high - low
        tokens[low:high] = piece.tokens
        depths = np.arange(count) if piece.depths is None else np.asarray(piece.depths)
        positions[low:high] = lengths[piece.slot] + depths
        mask = chain_visible(count) if piece.visible is None else piece.visible
        visible[low:high, low:high] = mask
    slots = np.array([piece.slot for piece in rows], np.int64)
    return tokens, positions, bounds, slots, visible
