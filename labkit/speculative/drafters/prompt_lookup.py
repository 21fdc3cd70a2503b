"""Prompt lookup: what followed the last tokens where they occurred before (Saxena 2023).

It needs no weights and costs next to nothing. It is right where the output repeats the prompt or
itself: summaries, corrections, code, loops. The heads err elsewhere, so `MLPLookup` joins both.

A suffix automaton (Blumer et al. 1985, in its online form) finds every earlier continuation of the
longest suffix that occurred before, and of its shorter suffixes, with their frequencies. It is the
smallest automaton that accepts every substring of the text read so far. A state stands for all
substrings that end at the same places; its suffix link leads to the longest of its suffixes that
ends at more places. Decoding from it was proposed by Hu et al. (2024, "SAM Decoding").
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import count

import torch

from labkit.errors import LabkitError
from labkit.speculative.drafters.base import watches
from labkit.speculative.drafters.mlp import MLPDrafter
from labkit.speculative.tree import ROOT, Draft, join

START = 0
"""The state of the empty substring."""

DOUBT = 1.6
"""A suffix of n tokens is followed as it was before with probability n / (n + `DOUBT`).

Fitted to the share measured on greedy answers of `real` to 48 prompts: 0.34, 0.58, 0.69, 0.68, 0.72
for 1 to 5 tokens, 0.94 for 8 and more."""

LEAST = 0.05
"""Nodes that are less likely to be reached than this are not drafted."""

LONG = 4
"""Under sampling, a match of so many tokens replaces the heads' tree."""


class SuffixAutomaton:
    """Every substring of a growing text, with the number of times that each occurred.

    ``after[s]`` maps a token to the state of the longer substring, ``length[s]`` is the length of
    the longest substring of state s, ``link[s]`` its suffix link (-1 at `START`), ``count[s]`` how
    often its substrings occurred.

    Reading n tokens makes at most 2n states and 3n transitions, in O(n) time but for two things:
    splitting a state copies its transitions, and counting walks the new state's suffix links, at
    most one for each token of the longest suffix that occurred before.

    >>> text = SuffixAutomaton()
    >>> for token in [1, 2, 3, 1, 2, 4, 1, 2]:
    ...     text.read(token)
    >>> state = text.match
    >>> text.length[state], {token: text.count[s] for token, s in text.after[state].items()}
    (2, {3: 1, 4: 1})
    """

    def __init__(self) -> None:
        self.after: list[dict[int, int]] = [{}]
        self.length, self.link, self.count = [0], [-1], [0]
        self._whole = START

    @property
    def match(self) -> int:
        """The state of the longest suffix of the text that occurred before; `START` if none."""
        return max(self.link[self._whole], START)

    def read(self, token: int) -> None:
        """Append a token to the text."""
        new, at = self._add(self.length[self._whole] + 1, {}), self._whole
        while at >= 0 and token not in self.after[at]:
            self.after[at][token] = new
            at = self.link[at]
        self.link[new] = START if at < 0 else self._suffix(at, token)
        self._whole = at = new
        while at > START:
            self.count[at] += 1
            at = self.link[at]

    def _suffix(self, at: int, token: int) -> int:
        """Return the state of exactly ``at``'s longest substring and ``token``; split for it."""
        found = self.after[at][token]
        if self.length[found] == self.length[at] + 1:
            return found
        split = self._add(self.length[at] + 1, dict(self.after[found]))
        self.link[split], self.count[split] = self.link[found], self.count[found]
        while at >= 0 and self.after[at].get(token) == found:
            self.after[at][token] = split
            at = self.link[at]
        self.link[found] = split
        return split

    def _add(self, length: int, after: dict[int, int]) -> int:
        self.after.append(after)
        self.length.append(length)
        self.link.append(-1)
        self.count.append(0)
        return len(self.length) - 1


class PromptLookup:
    """Drafts the likeliest continuations of suffixes that occurred before, as a tree.

    A continuation's probability is its share among all of its suffix, times that of the suffix (see
    `DOUBT`); what is left goes to the next shorter suffix.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, max_nodes: int = 8) -> None:
        if max_nodes < 1:
            raise LabkitError(f"Prompt lookup needs at least 1 node; got {max_nodes}.")
        self.max_nodes = max_nodes
        self.begin(())

    def begin(self, prompt: Sequence[int]) -> None:
        """Forget the earlier generation, and index the prompt."""
        self._text, self._read = SuffixAutomaton(), 0
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
        text, seen, left = self._text, set[int](), 1.0
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


class MLPLookup:
    """Drafts at most ``heads.max_nodes`` nodes, each from the drafter that believes in it more."""

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
