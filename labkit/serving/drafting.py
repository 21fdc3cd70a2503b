"""Drafts for every row of a running batch, and what a smaller tree would have been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from labkit.speculative.drafters.base import Drafter
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.tree import ROOT, Draft


class Drafting(Protocol):
    """Drafts for B rows at once, each in a slot of its own."""

    name: str
    max_nodes: int
    """The most nodes that one row's draft can have."""
    layers: tuple[int, ...]
    """See `Drafter.layers`."""

    def begin(self, slot: int, prompt: Sequence[int]) -> None:
        """Another request starts in ``slot``."""

    def draft(
        self,
        slots: Sequence[int],
        texts: Sequence[Sequence[int]],
        hidden: torch.Tensor,
        nodes: int,
    ) -> list[Draft]:
        """A tree of at most ``nodes`` for each row: ``texts`` (prompt and output), Z (B, D)."""


class SideBySide:
    """The heads for all rows of the batch: each head runs once for all of them."""

    def __init__(self, drafter: MLPDrafter) -> None:
        self.drafter = drafter
        self.name, self.max_nodes = drafter.name, drafter.max_nodes
        self.layers = drafter.layers

    def begin(self, slot: int, prompt: Sequence[int]) -> None:
        """Nothing to remember: the heads read only Z and the root."""

    def draft(
        self,
        slots: Sequence[int],
        texts: Sequence[Sequence[int]],
        hidden: torch.Tensor,
        nodes: int,
    ) -> list[Draft]:
        """See `Drafting.draft`."""
        return self.drafter.draft_many([text[-1] for text in texts], hidden, nodes)


class OneByOne:
    """A drafter of its own for every slot, for those that remember what they have read."""

    def __init__(self, make: Callable[[], Drafter]) -> None:
        self.make = make
        self.drafters: dict[int, Drafter] = {}
        first = make()
        self.name, self.max_nodes, self.layers = first.name, first.max_nodes, first.layers

    def begin(self, slot: int, prompt: Sequence[int]) -> None:
        """Start the slot's drafter anew."""
        drafter = self.drafters.setdefault(slot, self.make())
        drafter.begin(prompt)

    def draft(
        self,
        slots: Sequence[int],
        texts: Sequence[Sequence[int]],
        hidden: torch.Tensor,
        nodes: int,
    ) -> list[Draft]:
        """See `Drafting.draft`."""
        drafts = [
            self.drafters[slot].draft(text, z)
            for slot, text, z in zip(slots, texts, hidden, strict=True)
        ]
        return [best_part(draft, nodes) for draft in drafts]


def drafting_for(drafter: Callable[[], Drafter | None]) -> Drafting | None:
    """How to draft for a batch with the drafters that ``drafter`` makes; None for vanilla."""
    first = drafter()
    if first is None:
        return None
    if isinstance(first, MLPDrafter):
        return SideBySide(first)

    def another() -> Drafter:
        made = drafter()
        assert made is not None
        return made

    return OneByOne(another)


def ranks(draft: Draft) -> list[int]:
    """The place of each node in the order of the chance that it is reached, the likeliest 0.

    The chance is the product of q along the path, a node without a q counting as certain. A child
    never stands before its parent, so the n first nodes of the order are a tree, the one that a
    budget of n nodes would have bought.

    >>> ranks(Draft((5, 6, 7), (ROOT, ROOT, 0), (0.6, 0.3, 0.9), ("head",) * 3))
    [0, 2, 1]
    """
    chances: list[float] = []
    for parent, q in zip(draft.parents, draft.q, strict=True):
        above = 1.0 if parent == ROOT else chances[parent]
        chances.append(above * (1.0 if q is None else q))
    order = sorted(range(len(draft)), key=lambda node: -chances[node])
    places = [0] * len(draft)
    for place, node in enumerate(order):
        places[node] = place
    return places


def best_part(draft: Draft, nodes: int) -> Draft:
    """The ``nodes`` likeliest nodes of a draft.

    >>> best_part(Draft((5, 6, 7), (ROOT, ROOT, 0), (0.6, 0.3, 0.9), ("head",) * 3), 2).tokens
    (5, 7)
    """
    if len(draft) <= nodes:
        return draft
    return _kept(draft, [rank < nodes for rank in ranks(draft)])


def no_deeper(draft: Draft, depth: int) -> Draft:
    """The nodes of a draft that are at most ``depth`` below the root.

    >>> no_deeper(Draft((5, 6, 7), (ROOT, 0, 1), (None,) * 3, ("lookup",) * 3), 2).tokens
    (5, 6)
    """
    depths = draft.depths
    if not depths or max(depths) <= depth:
        return draft
    return _kept(draft, [below <= depth for below in depths])


def _kept(draft: Draft, keep: Sequence[bool]) -> Draft:
    """A draft without the nodes that are not to be kept; whoever is kept has a kept parent."""
    nodes = [node for node in range(len(draft)) if keep[node]]
    place = {ROOT: ROOT, **{node: i for i, node in enumerate(nodes)}}
    return replace(
        draft,
        tokens=tuple(draft.tokens[node] for node in nodes),
        parents=tuple(place[draft.parents[node]] for node in nodes),
        q=tuple(draft.q[node] for node in nodes),
        sources=tuple(draft.sources[node] for node in nodes),
        considered={},
    )
