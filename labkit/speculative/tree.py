"""Candidate trees: the drafts of one step, which one pass of the base model checks.

A tree's nodes are draft tokens; every node follows its parent, and the first ones follow the root,
the last committed token. A chain is a tree of width one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Rows

ROOT = -1
"""The parent of a node that follows the root."""


@dataclass(frozen=True)
class Draft:
    """A candidate tree of N nodes, parents before children.

    ``tokens`` (N,); ``parents`` (N,), `ROOT` or an earlier node. ``q`` (N,): the drafter's
    probability of each node after its parent, where it has one. ``sources`` (N,): what drafted each
    node ("head 1", "lookup").

    ``outlooks`` maps a parent to the drafter's whole distribution after it: token ids and
    probabilities. Under sampling the children of such a parent were *drawn* from it, without
    replacement, in their order; children of a parent that is not there were chosen outright.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    q: tuple[float | None, ...] = ()
    sources: tuple[str, ...] = ()
    outlooks: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    considered: dict[int, tuple[tuple[int, float], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.parents) == len(self.q) == len(self.sources):
            raise LabkitError("A draft needs one parent, q and source for each token.")
        for node, parent in enumerate(self.parents):
            if not ROOT <= parent < node:
                raise LabkitError(
                    f"Node {node} of a draft has parent {parent}: parents come first."
                )

    def __len__(self) -> int:
        return len(self.tokens)

    def children(self, parent: int) -> list[int]:
        """Return the nodes that follow ``parent`` (a node or `ROOT`), in order.

        >>> Draft((7, 8, 9), (-1, -1, 0), (None,) * 3, ("",) * 3).children(ROOT)
        [0, 1]
        """
        return [node for node, above in enumerate(self.parents) if above == parent]

    def path(self, node: int) -> list[int]:
        """Return the nodes from the root's child down to ``node``; none for `ROOT`."""
        found: list[int] = []
        while node != ROOT:
            found.append(node)
            node = self.parents[node]
        return found[::-1]

    @property
    def depths(self) -> list[int]:
        """Each node's distance from the root; a child of the root has 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 + (depths[parent] if parent != ROOT else 0))
        return depths

    def visible(self) -> np.ndarray:
        """Return the attention mask (N + 1, N + 1), root first: a row sees its path and itself."""
        count = len(self) + 1
        mask = np.zeros((count, count), np.uint8)
        mask[0, 0] = 1
        for node, parent in enumerate(self.parents):
            mask[node + 1] = mask[parent + 1]
            mask[node + 1, node + 1] = 1
        return mask

    def rows(self, root: int, slot: int = 0) -> Rows:
        """Return all rows of one forward pass: row 0 is the root, row i + 1 node i."""
        return Rows([root, *self.tokens], slot, [0, *self.depths], self.visible())

    def follow(self, choices: Sequence[int]) -> list[int]:
        """Return the path of nodes that spell the base model's own tokens.

        ``choices`` (N + 1,) holds its token after the root, then after each node.

        >>> Draft((7, 8, 9), (ROOT, ROOT, 1), (None,) * 3, ("",) * 3).follow([8, 0, 9, 5])
        [1, 2]
        """
        path: list[int] = []
        for node, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            at = path[-1] if path else ROOT
            if parent == at and token == choices[at + 1]:
                path.append(node)
        return path

    def ranks(self) -> list[int]:
        """Return each node's place in the order of the probability that it is reached, best 0.

        That probability is the product of q along the path; a node without a q counts as certain.
        A child never precedes its parent, so the first n nodes in this order form a tree: the tree
        that a budget of n nodes would have bought.

        >>> Draft((5, 6, 7), (ROOT, ROOT, 0), (0.6, 0.3, 0.9), ("head",) * 3).ranks()
        [0, 2, 1]
        """
        reached: list[float] = []
        for parent, q in zip(self.parents, self.q, strict=True):
            above = 1.0 if parent == ROOT else reached[parent]
            reached.append(above * (1.0 if q is None else q))
        order = sorted(range(len(self)), key=lambda node: -reached[node])
        rank = {node: rank for rank, node in enumerate(order)}
        return [rank[node] for node in range(len(self))]

    def best_part(self, nodes: int) -> Draft:
        """Return the tree of the ``nodes`` nodes most likely to be reached.

        Not for a drawn tree: which siblings remain would depend on what was drawn.

        >>> Draft((5, 6, 7), (ROOT, ROOT, 0), (0.6, 0.3, 0.9), ("head",) * 3).best_part(2).tokens
        (5, 7)
        """
        if len(self) <= nodes:
            return self
        return self.part([rank < nodes for rank in self.ranks()])

    def no_deeper(self, depth: int) -> Draft:
        """Return the nodes at most ``depth`` below the root: also lossless for a drawn tree.

        A parent keeps all of its children or none, so every sibling is still tested against the
        distribution that it was drawn from.

        >>> Draft((5, 6, 7), (ROOT, 0, 1), (None,) * 3, ("lookup",) * 3).no_deeper(2).tokens
        (5, 6)
        """
        if len(self) <= depth:  # a tree of N nodes is at most N deep
            return self
        return self.part([below <= depth for below in self.depths])

    def part(self, keep: Sequence[bool]) -> Draft:
        """Return the nodes to keep, renumbered; the parent of a kept node is kept."""
        nodes = [node for node, kept in enumerate(keep) if kept]
        if len(nodes) == len(self):
            return self
        place = {ROOT: ROOT, **{node: i for i, node in enumerate(nodes)}}
        return Draft(
            tuple(self.tokens[node] for node in nodes),
            tuple(place[self.parents[node]] for node in nodes),
            tuple(self.q[node] for node in nodes),
            tuple(self.sources[node] for node in nodes),
            {place[node]: seen for node, seen in self.outlooks.items() if node in place},
            {place[node]: seen for node, seen in self.considered.items() if node in place},
        )


def chain(tokens: Sequence[int], source: str, q: Sequence[float | None] | None = None) -> Draft:
    """Return a tree of width one.

    >>> chain([5, 6], "lookup").parents
    (-1, 0)
    """
    many = len(tokens)
    return Draft(
        tuple(tokens), tuple(range(-1, many - 1)), tuple(q or (None,) * many), (source,) * many
    )


def join(first: Draft, second: Draft) -> Draft:
    """Join both trees under one root; nodes that spell the same text are one, with the larger q."""
    index = {
        (parent, token): node
        for node, (parent, token) in enumerate(zip(first.parents, first.tokens, strict=True))
    }
    tokens, parents = list(first.tokens), list(first.parents)
    q, sources = list(first.q), list(first.sources)
    place = {ROOT: ROOT}
    for node, (token, parent) in enumerate(zip(second.tokens, second.parents, strict=True)):
        above = place[parent]
        known = index.get((above, token))
        theirs = second.q[node]
        if known is None:
            known = index[above, token] = len(tokens)
            tokens.append(token)
            parents.append(above)
            q.append(theirs)
            sources.append(second.sources[node])
        elif (ours := q[known]) is not None and theirs is not None:
            q[known] = max(ours, theirs)
        place[node] = known
    return Draft(
        tuple(tokens), tuple(parents), tuple(q), tuple(sources), first.outlooks, first.considered
    )
