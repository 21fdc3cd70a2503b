"""Drafts for every row of a running batch, and what a smaller tree would have been."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from labkit.speculative.drafters.base import Drafter
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.tree import Draft


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
        return [draft.best_part(nodes) for draft in drafts]


def drafting_for(drafter: Callable[[], Drafter | None]) -> Drafting | None:
    """How to draft for a batch with the drafters that ``drafter`` makes; None for vanilla."""
    first = drafter()
    if first is None or not first.max_nodes:
        return None
    if isinstance(first, MLPDrafter):
        return SideBySide(first)

    def another() -> Drafter:
        made = drafter()
        assert made is not None
        return made

    return OneByOne(another)
