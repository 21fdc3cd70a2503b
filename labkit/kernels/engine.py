"""The interface of a base model's forward pass, and what every implementation shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch

from labkit.devices import clock
from labkit.errors import LabkitError


@dataclass(frozen=True)
class Rows:
    """New tokens of one sequence, to be processed in one forward pass.

    ``depths`` (N,) are positions counted from the end of what the cache holds; ``visible`` (N, N)
    says which new token sees which: itself, and none that come later. Both null: a chain, each sees
    those before.
    """

    tokens: Sequence[int]
    slot: int = 0
    depths: Sequence[int] | None = None
    visible: np.ndarray | None = None


@dataclass(frozen=True)
class Output:
    """The result of a forward pass, with the rows of all sequences one after another.

    ``hidden`` (N, D) is the state after the final norm, which the heads read as Z. If the pass was
    called with r ``layers``, it is (N, (r + 1) D): the residual stream after each of those layers,
    then the same. ``logits`` is (N, V), or one row for each sequence with ``logits="last"``. The
    engine's next pass may overwrite both.
    """

    hidden: torch.Tensor
    logits: torch.Tensor


class Cache:
    """Keys and values of several sequences, each in its own slot of at most ``capacity`` tokens.

    A pass writes its rows behind the ``lengths`` (slots,) committed tokens.
    """

    def __init__(self, capacity: int, slots: int) -> None:
        self.capacity = capacity
        self.lengths = np.zeros(slots, np.int64)

    def commit(self, path: Sequence[int], slot: int = 0) -> None:
        """Keep the rows of the slot's last pass that are in ``path``, and drop the others."""
        kept = [int(row) for row in path]
        length = int(self.lengths[slot])
        if kept and not 0 <= min(kept) <= max(kept) < self.capacity - length:
            raise LabkitError(
                f"A slot of {self.capacity} tokens, {length} of them committed, has no such rows: "
                f"{kept}."
            )
        if kept != list(range(len(kept))):
            self._move(slot, length, np.array(kept))
        self.lengths[slot] += len(kept)

    def _move(self, slot: int, length: int, path: np.ndarray) -> None:
        """Copy the rows at ``length + path[j]`` to ``length + j``, for rising j."""
        raise NotImplementedError

    def truncate(self, length: int, slot: int = 0) -> None:
        """Drop all but the first ``length`` tokens of the slot."""
        self.lengths[slot] = min(length, self.lengths[slot])

    def copy_slot(self, source: int, target: int) -> None:
        """Copy the contents of slot ``source`` to slot ``target``."""
        raise NotImplementedError


class Engine(Protocol):
    """A base model's forward pass over new tokens, given a cache of the earlier ones."""

    name: str
    exact: bool
    """True if a row's result is bit-identical whatever the other rows of the pass are."""
    vocabulary: int
    context: int
    """The number of positions that the model has."""
    width: int
    layer_count: int
    device: torch.device

    @property
    def bytes_per_pass(self) -> int:
        """Bytes of weights that one forward pass reads, however many tokens it is for."""

    @property
    def threads(self) -> int:
        """Threads of the processor that share a pass."""
        return torch.get_num_threads()

    def bandwidth_probe(self) -> Callable[[], float]:
        """Return a function that reads a large array as a pass reads the weights: bytes/s."""
        return TorchProbe(self.device)

    def new_cache(self, capacity: int, slots: int = 1) -> Any:
        """An empty cache for ``slots`` sequences of at most ``capacity`` tokens."""

    def forward(
        self,
        rows: Sequence[Rows],
        cache: Any,
        logits: Literal["all", "last"] = "all",
        layers: Sequence[int] = (),
    ) -> Output:
        """Process new tokens; ``cache``, made by `new_cache`, keeps none of them until ``commit``.

        ``layers`` are those whose states the output also holds, counted from 1 and rising. Raises
        `LabkitError` for rows, tokens, positions or layers outside the model or the cache.
        """


class TorchProbe:
    """A repeated read of one large array through torch, where the engine computes.

    By default it has 256 MiB, more than any cache holds.
    """

    def __init__(self, device: torch.device, numbers: int = 1 << 26) -> None:
        self.numbers = torch.ones(numbers, device=device)

    def read(self) -> None:
        """Read the array once."""
        self.numbers.sum()

    def __call__(self) -> float:
        """Return the bytes per second of one read."""
        began = clock(self.numbers.device)
        self.read()
        return self.numbers.nbytes / (clock(self.numbers.device) - began)


def chain_visible(count: int) -> np.ndarray:
    """Return the mask (N, N) of a chain: each token sees itself and those before it."""
    return np.tril(np.ones((count, count), dtype=np.uint8))


def check_layers(layers: Sequence[int], layer_count: int) -> None:
    """Raise `LabkitError` unless ``layers`` rise from 1 and end before the last layer.

    >>> check_layers((1, 3), layer_count=4)
    """
    if list(layers) != sorted({layer for layer in layers if 1 <= layer < layer_count}):
        raise LabkitError(
            f"The heads read layers {', '.join(map(str, layers))} besides the last, but the base "
            f"model has {layer_count} layers."
        )


class Stacked(NamedTuple):
    """The rows of all G sequences of a pass, N in all, one sequence after another.

    ``bounds`` (G + 1,) and ``slots`` (G,) say which rows belong to which slot, ``lengths`` (slots,)
    how many tokens each slot of the cache holds. ``visible`` is (N, N), the others (N,).
    """

    tokens: np.ndarray
    positions: np.ndarray
    bounds: np.ndarray
    slots: np.ndarray
    lengths: np.ndarray
    visible: np.ndarray


def stack(
    engine: Engine, rows: Sequence[Rows], cache: Cache, layers: Sequence[int] = ()
) -> Stacked:
    """Join the rows of a pass; raise `LabkitError` for what ``engine`` or ``cache`` cannot hold.

    Compiled kernels do not check their indices, so this is what keeps them inside their tables.
    """
    check_layers(layers, engine.layer_count)
    for piece in rows:
        if not 0 <= piece.slot < len(cache.lengths):
            raise LabkitError(
                f"The cache has {len(cache.lengths)} slots, and no slot {piece.slot}."
            )
        if cache.lengths[piece.slot] + len(piece.tokens) > cache.capacity:
            raise LabkitError(
                f"The cache holds {cache.lengths[piece.slot]} of at most {cache.capacity} tokens "
                f"and has no room for {len(piece.tokens)} more: make it larger."
            )
    slots, counts = [piece.slot for piece in rows], [len(piece.tokens) for piece in rows]
    if min(counts, default=0) < 1 or len(set(slots)) < len(slots):
        raise LabkitError("A pass needs at least one token of each sequence, and each slot once.")
    bounds = [0, *accumulate(counts)]
    tokens: list[int] = []
    positions: list[int] = []
    visible = np.zeros((bounds[-1], bounds[-1]), np.uint8)
    for piece, low, high in zip(rows, bounds[:-1], bounds[1:], strict=True):
        length, depths = int(cache.lengths[piece.slot]), piece.depths
        tokens += piece.tokens
        positions += [length + depth for depth in (range(high - low) if depths is None else depths)]
        mask = chain_visible(high - low) if piece.visible is None else piece.visible
        visible[low:high, low:high] = mask
    for kind, given, whole, size in (
        ("token", tokens, "vocabulary", engine.vocabulary),
        ("position", positions, "context", engine.context),
    ):
        for value in (min(given), max(given)):
            if not 0 <= value < size:
                raise LabkitError(
                    f"The model has no {kind} {value}: its {whole} is {size:,} tokens."
                )
    token, position, bound, slot = (
        np.array(part, np.int64) for part in (tokens, positions, bounds, slots)
    )
    return Stacked(token, position, bound, slot, cache.lengths, visible)
