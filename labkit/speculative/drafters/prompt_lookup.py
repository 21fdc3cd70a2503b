"""Prompt lookup: what followed the last tokens where they occurred before (Saxena 2023).

It needs no weights and costs next to nothing. It is right where the output repeats the prompt or
itself: summaries, corrections, code, loops. A suffix automaton finds every earlier continuation of
the longest suffix that occurred before, and of its shorter suffixes, with their frequencies.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import count

import torch

from labkit.errors import LabkitError
from labkit.speculative.suffixes import START, SuffixAutomaton
from labkit.speculative.tree import ROOT, Draft

DOUBT = 1.6
"""A suffix of n tokens is followed as it was before with probability n / (n + `DOUBT`).

Fitted to the share measured on greedy answers of `real` to 48 prompts: 0.34, 0.58, 0.69, 0.68, 0.72
for 1 to 5 tokens, 0.94 for 8 and more."""

LEAST = 0.05
"""Nodes that are less likely to be reached than this are not drafted."""

BREAK = -1
"""Separates texts: no token, so no match goes across it."""


class PromptLookup:
    """Drafts the likeliest continuations of suffixes that occurred before, as a tree.

    A continuation's probability is its share among all of its suffix, times that of the suffix (see
    `DOUBT`); what is left goes to the next shorter suffix. With ``earlier`` the texts of earlier
    generations are searched too.
    """

    name = "prompt_lookup"
    layers: tuple[int, ...] = ()

    def __init__(self, max_nodes: int = 8, earlier: bool = False) -> None:
        if max_nodes < 1:
            raise LabkitError(f"Prompt lookup needs at least 1 node; got {max_nodes}.")
        self.max_nodes = max_nodes
        self.earlier = earlier
        self._text = SuffixAutomaton()
        self._read = 0

    def begin(self, prompt: Sequence[int]) -> None:
        """Start a generation: forget the earlier one, or separate it, and index the prompt."""
        if not self.earlier:
            self._text = SuffixAutomaton()
        elif self._read:
            self._text.read(BREAK)
        self._read = 0
        self._index(prompt)

    def _index(self, tokens: Sequence[int]) -> None:
        for token in tokens[self._read :]:
            self._text.read(int(token))
        self._read = max(self._read, len(tokens))

    def match(self, tokens: Sequence[int]) -> int:
        """Return the length of the longest suffix of ``tokens`` that occurred before."""
        self._index(tokens)
        return self._text.length[self._text.match]

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """Draft the likeliest nodes, chosen outright; see `Drafter.draft`."""
        self._index(tokens)
        chosen: list[tuple[int, int, float]] = []  # token, parent, probability after its parent
        order = count()
        heap: list[tuple[float, int, int, int, float, int]] = []

        def grow(parent: int, state: int, reached: float) -> None:
            for token, after, q in self._continuations(state):
                if reached * q >= LEAST:
                    heapq.heappush(heap, (-reached * q, next(order), parent, token, q, after))

        grow(ROOT, self._text.match, 1.0)
        while heap and len(chosen) < self.max_nodes:
            reached, _, parent, token, q, after = heapq.heappop(heap)
            chosen.append((token, parent, q))
            grow(len(chosen) - 1, after, -reached)
        if not chosen:
            return Draft()
        ids, parents, probs = zip(*chosen, strict=True)
        return Draft(ids, parents, probs, ("lookup",) * len(chosen))

    def _continuations(self, state: int) -> Iterator[tuple[int, int, float]]:
        """Yield each token that followed the state's suffixes, its state, and its probability."""
        text, seen, left = self._text, {BREAK}, 1.0
        while state > START and left > LEAST:
            after, length = text.after[state], text.length[state]
            here = left * length / (length + DOUBT) if after else 0.0
            total = sum(text.count[following] for following in after.values())
            for token, following in after.items():
                if token not in seen:
                    seen.add(token)
                    yield token, following, here * text.count[following] / total
            left -= here
            state = text.link[state]
