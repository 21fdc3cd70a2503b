"""The heads' tree and prompt lookup's in one: of all their nodes the likeliest are drafted.

The two err in different places: lookup is right where the text repeats itself, the heads elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labkit.speculative.drafters.base import watches
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.drafters.prompt_lookup import PromptLookup
from labkit.speculative.tree import Draft, join

LONG = 4
"""Under sampling, a match of so many tokens replaces the heads' tree."""


class MLPLookup:
    """Drafts at most ``heads.max_nodes`` nodes, each from the drafter that believes in it more."""

    name = "mlp_lookup"

    def __init__(self, heads: MLPDrafter, lookup: PromptLookup) -> None:
        self.heads, self.lookup = heads, lookup
        self.layers = heads.layers
        self.max_nodes = heads.max_nodes

    def begin(self, prompt: Sequence[int]) -> None:
        """Index the prompt."""
        self.lookup.begin(prompt)
        self.heads.begin(prompt)

    def see(self, hidden: torch.Tensor) -> None:
        """Pass the committed states on to heads that remember them."""
        if watches(self.heads):
            self.heads.see(hidden)

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """Draft the likeliest nodes of both trees; see `Drafter.draft`.

        Under sampling a drawn tree and nodes chosen outright cannot share a parent, so a long match
        replaces the heads' tree.
        """
        found = self.lookup.draft(tokens, hidden)
        if generator is not None:
            longest = self.lookup.match(tokens) >= LONG
            return found if longest else self.heads.draft(tokens, hidden, generator, temperature)
        return join(self.heads.draft(tokens, hidden), found).best_part(self.max_nodes)
