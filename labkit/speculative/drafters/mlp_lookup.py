"""The heads' tree joined with a prompt-lookup branch where one matches.

The two err in different places: lookup is right where the text repeats itself, the heads elsewhere.
A long match is followed further than the heads could see; the heads' tree keeps a few nodes beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labkit.speculative.drafters.base import Watcher
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.drafters.prompt_lookup import PromptLookup
from labkit.speculative.tree import Draft, join


class MLPLookup:
    """A heads' tree of ``heads.max_nodes`` nodes with lookup's chain joined to it."""

    name = "mlp_lookup"

    def __init__(self, heads: MLPDrafter, lookup: PromptLookup) -> None:
        self.heads, self.lookup = heads, lookup
        self.layers = heads.layers
        self.max_nodes = heads.max_nodes + lookup.max_nodes

    def begin(self, prompt: Sequence[int]) -> None:
        """Index the prompt."""
        self.lookup.begin(prompt)
        self.heads.begin(prompt)

    def see(self, hidden: torch.Tensor) -> None:
        """Pass the committed states on to heads that remember them."""
        if isinstance(self.heads, Watcher):
            self.heads.see(hidden)

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """Both drafts under one root; see `Drafter.draft`.

        Under sampling a drawn tree and an outright chain cannot share siblings, so a match of
        lookup's longest length replaces the heads' tree there.
        """
        found = self.lookup.draft(tokens, hidden)
        if generator is not None:
            longest = self.lookup.match(tokens)[0] == self.lookup.longest
            return found if longest else self.heads.draft(tokens, hidden, generator, temperature)
        return join(self.heads.draft(tokens, hidden), found)
