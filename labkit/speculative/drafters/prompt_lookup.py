"""Prompt lookup: what followed the last time these words stood there (Saxena 2023).

It needs no weights and costs next to nothing; it is right where the output repeats the prompt or
itself: summaries, corrections, code, loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labkit.errors import LabkitError
from labkit.speculative.tree import Draft, chain


class PromptLookup:
    """Finds the latest earlier occurrence of the longest suffix and drafts what followed it."""

    name = "prompt_lookup"
    layers = ()

    def __init__(self, max_nodes: int = 8, longest: int = 4, shortest: int = 2) -> None:
        if max_nodes < 1 or not 1 <= shortest <= longest:
            raise LabkitError(
                f"Prompt lookup needs at least 1 node and 1 <= shortest <= longest; got "
                f"{max_nodes}, {shortest} and {longest}."
            )
        self.max_nodes = max_nodes
        self.longest, self.shortest = longest, shortest
        self._seen: dict[tuple[int, ...], int] = {}
        self._read = 0

    def begin(self, prompt: Sequence[int]) -> None:
        """Forget the earlier generation; remember the prompt's n-grams."""
        self._seen.clear()
        self._read = 0
        self._remember(prompt)

    def _remember(self, tokens: Sequence[int]) -> None:
        """Note where each n-gram ends, for all but the one that ends the text."""
        for end in range(max(self._read, 1), len(tokens)):
            for length in range(self.shortest, min(self.longest, end) + 1):
                self._seen[tuple(tokens[end - length : end])] = end
        self._read = max(self._read, len(tokens))

    def match(self, tokens: Sequence[int]) -> tuple[int, int]:
        """(length of the longest suffix seen before, the place after its latest occurrence).

        (0, 0) where not even the shortest was seen.
        """
        self._remember(tokens)
        for length in range(min(self.longest, len(tokens)), self.shortest - 1, -1):
            place = self._seen.get(tuple(tokens[len(tokens) - length :]))
            if place is not None:
                return length, place
        return 0, 0

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """The tokens that followed, as a chain chosen outright; see `Drafter.draft`."""
        length, place = self.match(tokens)
        if not length:
            return Draft()
        return chain([int(token) for token in tokens[place : place + self.max_nodes]], "lookup")
