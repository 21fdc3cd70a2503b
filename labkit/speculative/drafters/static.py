"""Drafting on the device: one tree for all steps, so that every shape is known beforehand.

The tree of `drafters.mlp` grows where the heads are sure of themselves; what it becomes is known
only once the host has read their probabilities. A static tree (Medusa: Cai et al. 2024) is chosen
once, from how often a choice of each rank is right: a node is the r-th best token after its parent,
whatever that token is. Nothing here reads a value back to the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labkit.records import TreeStudy, VerifyCost
from labkit.speculative.checkpoint import PublishedSpeculator
from labkit.speculative.eagle import Eagle
from labkit.speculative.speculator import Speculator

ASSUMED = (0.45, 0.14, 0.07, 0.05, 0.035, 0.025)
"""Acceptance of a head's choices by rank, where no calibration has measured it."""


@dataclass(frozen=True)
class StaticTree:
    """A candidate tree whose nodes are paths of ranks: (0, 2) is the third choice after the first.

    Parents come before children, one depth after another. Rows are the pass's: row 0 is the root,
    row i + 1 is node i.

    >>> tree = StaticTree(((0,), (1,), (0, 0)))
    >>> tree.parents, tree.depths, tree.depth
    ((0, 0, 0, 1), (0, 1, 1, 2), 2)
    >>> tree.ancestors
    ((0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 1, 3))
    """

    paths: tuple[tuple[int, ...], ...]

    @property
    def depths(self) -> tuple[int, ...]:
        """Each row's distance from the root."""
        return (0, *map(len, self.paths))

    @property
    def depth(self) -> int:
        """The depth of the deepest node; 0 for a tree of the root alone."""
        return max(self.depths)

    @property
    def parents(self) -> tuple[int, ...]:
        """Each row's parent, as a row; the root's is itself."""
        row = {(): 0, **{path: node + 1 for node, path in enumerate(self.paths)}}
        return (0, *(row[path[:-1]] for path in self.paths))

    @property
    def ancestors(self) -> tuple[tuple[int, ...], ...]:
        """The rows on each row's path, by depth; from its own depth on, the row itself."""
        found: list[tuple[int, ...]] = []
        for row, (parent, depth) in enumerate(zip(self.parents, self.depths, strict=True)):
            above = found[parent][:depth] if row else ()
            found.append((*above, *[row] * (self.depth + 1 - depth)))
        return tuple(found)

    @property
    def chain(self) -> bool:
        """True if no node has a sibling."""
        return len(self.paths) == self.depth


def chain_of(depth: int) -> StaticTree:
    """Return the chain of every head's best token.

    >>> chain_of(2).paths
    ((0,), (0, 0))
    """
    return StaticTree(tuple((0,) * many for many in range(1, depth + 1)))


def best_static(shares: tuple[tuple[float, ...], ...], nodes: int) -> StaticTree:
    """Return the tree of at most ``nodes`` nodes that should commit the most tokens per step.

    ``shares[h][r]`` is how often head h + 1's choice of rank r is right.

    >>> best_static(((0.5, 0.2), (0.5, 0.1)), 3).paths
    ((0,), (1,), (0, 0))
    """
    nodes = min(nodes, sum(len(shares[0]) ** depth for depth in range(1, len(shares) + 1)))
    free = (VerifyCost(nodes=0, ratio=1), VerifyCost(nodes=nodes, ratio=1))
    study = TreeStudy(
        name="",
        base="",
        accept=shares,
        places=1,
        verify=free,
        draft_head=(0,) * len(shares),
        token_s=1,
    )
    return StaticTree(study.best_tree(nodes))


class Level(NamedTuple):
    """The nodes of one depth: which nodes above have children, then each node's parent and rank.

    ``front`` (M,) counts the nodes above, ``parent`` (C,) those in ``front``; ``ranks`` is how many
    choices are needed.
    """

    front: Tensor
    parent: Tensor
    rank: Tensor
    ranks: int


def levels(tree: StaticTree, device: torch.device) -> list[Level]:
    """Return the tree's nodes depth by depth, as indices on ``device``."""
    found = []
    above: list[tuple[int, ...]] = [()]
    for depth in range(1, tree.depth + 1):
        nodes = [path for path in tree.paths if len(path) == depth]
        front = sorted({path[:-1] for path in nodes}, key=above.index)
        indices = (
            [above.index(path) for path in front],
            [front.index(path[:-1]) for path in nodes],
            [path[-1] for path in nodes],
        )
        ranks = 1 + max(path[-1] for path in nodes)
        front_at, parent, rank = (torch.tensor(part, device=device) for part in indices)
        found.append(Level(front_at, parent, rank, ranks))
        above = nodes
    return found


class StaticDrafter(Protocol):
    """Drafts a static tree; every method runs on the device and reads nothing back.

    ``state`` are the tensors that a step changes besides keys and values.
    """

    tree: StaticTree
    layers: tuple[int, ...]
    state: tuple[Tensor, ...]

    def begin(self) -> None:
        """Start a new text."""

    def follow(self, states: Tensor, tokens: Tensor, count: Tensor) -> None:
        """Read the base model's states (C, W) at verified places and the tokens (C,) after them.

        Only the first ``count`` + 1 of them are true, ``count`` being (1,); the rest is padding.
        """

    def draft(self, root: Tensor, z: Tensor) -> Tensor:
        """Return the nodes' tokens (N,) after the token ``root`` (1,) and its Z (1, W)."""


class Memory:
    """Keys and values (T, h, d) of a drafter's verified places, at fixed addresses."""

    def __init__(self, room: int, heads: int, like: Tensor) -> None:
        shape = (room, heads, like.shape[-1] // heads)
        self.keys, self.values = (like.new_zeros(shape) for _ in range(2))
        self.places = torch.arange(room, device=like.device)
        self.length = torch.zeros(1, dtype=torch.long, device=like.device)

    def behind(self, count: int) -> Tensor:
        """Return the next ``count`` places: (count,)."""
        return self.length + self.places[:count]

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Write keys and values (C, h, d) behind what is verified."""
        places = self.behind(len(keys))
        self.keys.index_copy_(0, places, keys.to(self.keys.dtype))
        self.values.index_copy_(0, places, values.to(self.values.dtype))


class StaticHeads:
    """Hierarchical or independent heads over a static tree, with or without a context layer.

    ``room`` is the most tokens that a context layer remembers.
    """

    def __init__(
        self,
        speculator: Speculator | PublishedSpeculator,
        draft_ids: np.ndarray,
        tree: StaticTree,
        room: int,
    ) -> None:
        self.speculator, self.tree = speculator, tree
        self.layers = speculator.config.layers
        ids = torch.as_tensor(draft_ids)
        self._rows = [speculator.rows(head, ids) for head in range(tree.depth)]
        device = next(speculator.parameters()).device
        self.ids = ids.to(device)
        self._levels = levels(tree, device)
        self.context = getattr(speculator, "context", None)
        self.state: tuple[Tensor, ...] = ()
        if self.context is not None:
            assert isinstance(speculator, Speculator)
            self.table, self.table_scale = speculator.table, speculator.table_scale
            table = self.table
            self.memory = Memory(room, self.context.config.heads, table)
            self.looked_back = table.new_zeros(1, table.shape[1])
            self.state = self.memory.length, self.looked_back

    def begin(self) -> None:
        """See `StaticDrafter`."""
        if self.context is not None:
            self.memory.length.zero_()

    def follow(self, states: Tensor, tokens: Tensor, count: Tensor) -> None:
        """See `StaticDrafter`: run the context layer over the new places, if there is one."""
        if self.context is None:
            return
        memory, table = self.memory, self.table
        embedded = functional.embedding(tokens, table) / self.table_scale
        places = memory.behind(len(tokens))
        x, q, k, v = self.context.project(states.to(table.dtype), embedded, places)
        memory.write(k, v)
        seen = memory.places <= places[:, None]  # (C, T)
        queries, keys, values = (part.transpose(0, 1) for part in (q, memory.keys, memory.values))
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
        mixed = mixed.transpose(0, 1)  # (C, h, d)
        out = self.context.leave(x, mixed)
        self.looked_back.copy_(out[count])
        memory.length.add_(count + 1)

    def draft(self, root: Tensor, z: Tensor) -> Tensor:
        """See `StaticDrafter`: one head for each depth, for all nodes that have children."""
        heads = self.speculator
        z = z.to(self._rows[0].dtype)
        if self.context is not None:
            z = torch.cat([self.looked_back, z], dim=-1)
        first = state = heads.start(z)  # (1, S)
        tokens, drafted = root, []
        for head, level in enumerate(self._levels):
            if heads.config.hierarchical:
                state = heads.step(head, state[level.front], tokens[level.front])  # (M, S)
                parent = level.parent
            else:  # Medusa's heads all read Z, whatever was drafted
                state, parent = heads.step(head, first, root), torch.zeros_like(level.parent)
            best = heads.logits(head, state, self._rows[head]).topk(level.ranks).indices
            tokens, state = self.ids[best[parent, level.rank]], state[parent]  # of each node
            drafted.append(tokens)
        return torch.cat(drafted)


class StaticEagle:
    """An `Eagle` over a static tree; ``room`` is the most verified places that it remembers."""

    def __init__(self, eagle: Eagle, draft_ids: np.ndarray, tree: StaticTree, room: int) -> None:
        self.eagle, self.tree, self.layers = eagle, tree, eagle.config.layers
        self.ids = torch.as_tensor(draft_ids).to(eagle.table.device)
        self._rows = eagle.rows(0, self.ids)
        self._levels = levels(tree, eagle.table.device)
        self.memory = Memory(room, eagle.config.heads, eagle.table)
        self.state = (self.memory.length,)

    def begin(self) -> None:
        """See `StaticDrafter`."""
        self.memory.length.zero_()

    def follow(self, states: Tensor, tokens: Tensor, count: Tensor) -> None:
        """See `StaticDrafter`: remember the new places."""
        x = self.eagle.enter(self._feature(states), tokens)
        _, keys, values = self.eagle.project(x, self.memory.behind(len(tokens)))
        self.memory.write(keys, values)
        self.memory.length.add_(count + 1)

    def _feature(self, states: Tensor) -> Tensor:
        return self.eagle.feature(states.to(self.eagle.table.dtype))

    def draft(self, root: Tensor, z: Tensor) -> Tensor:
        """See `StaticDrafter`; each node attends to the verified places and to its own path."""
        eagle, memory = self.eagle, self.memory
        last = memory.length - 1  # the place whose token is the root is the tree's first input
        unseen = memory.places >= last  # (T,)
        feature = self._feature(z)  # (1, D)
        heads, size = memory.keys.shape[1:]
        path_keys = path_values = feature.new_empty(1, 0, heads, size)
        tokens, drafted = root, []
        for depth, level in enumerate(self._levels):
            front = level.front
            x = eagle.enter(feature[front], tokens[front])  # (M, D)
            q, k, v = eagle.project(x, (last + depth).expand(len(x)))  # (M, h, d)
            path_keys = torch.cat([path_keys[front], k[:, None]], dim=1)  # (M, depth + 1, h, d)
            path_values = torch.cat([path_values[front], v[:, None]], dim=1)
            mixed = eagle.attend(q, memory.keys, memory.values, path_keys, path_values, unseen)
            out = eagle.leave(x, mixed)
            best = eagle.logits(depth, out, self._rows).topk(level.ranks).indices
            parent = level.parent
            tokens, feature = self.ids[best[parent, level.rank]], out[parent]
            path_keys, path_values = path_keys[parent], path_values[parent]
            drafted.append(tokens)
        return torch.cat(drafted)
