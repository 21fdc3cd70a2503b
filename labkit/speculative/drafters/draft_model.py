"""A smaller model of the same vocabulary drafts (Leviathan et al. 2023, Chen et al. 2023).

It needs no training beside the base model and sees the whole text, which the heads do not; but
every draft token costs it a whole pass of its own. Its cache is kept in step with the text: what
the base model accepted is there already, what it rejected is rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch

from labkit.errors import LabkitError
from labkit.kernels.engine import Cache, Engine, Rows
from labkit.speculative.drafters.mlp import SHOWN
from labkit.speculative.generate import prefill
from labkit.speculative.tree import Draft, chain

GROWTH = 256
"""Places that the draft model's cache has beyond the prompt, and grows by."""


class DraftModel:
    """Drafts a chain of at most ``max_nodes`` tokens with another engine.

    The chain ends early where it is unlikely to be reached: after a node that the drafter itself
    gives a joint probability below ``least``, and where the draft model's own context ends. Both
    models have one tokenizer, but either may have a padded table: ids of ``vocabulary``, the base
    model's, and above are never proposed.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self, engine: Engine, vocabulary: int, max_nodes: int = 4, least: float = 0.1
    ) -> None:
        if max_nodes < 1 or not 0 <= least < 1:
            raise LabkitError(
                f"A draft needs at least 1 node and 0 <= least < 1; got {max_nodes} and {least}."
            )
        self.engine, self.max_nodes, self.least = engine, max_nodes, least
        self.vocabulary = min(vocabulary, engine.vocabulary)
        self._cache: Cache = engine.new_cache(0)
        self._held: list[int] = []

    def begin(self, prompt: Sequence[int]) -> None:
        """Read the prompt, all but its last token, which the first draft reads with the root."""
        self._held = []
        self._cache = self.engine.new_cache(len(prompt) + GROWTH)
        self._catch_up(prompt[:-1])

    def _catch_up(self, tokens: Sequence[int]) -> bool:
        """Make the cache hold exactly ``tokens``, reading no token that it holds already.

        Return false where the draft model cannot: its context ends, or its table lacks a token.
        """
        if len(tokens) > self.engine.context or max(tokens, default=0) >= self.engine.vocabulary:
            return False
        if len(tokens) + self.max_nodes + 1 > self._cache.capacity:
            self._held = []
            self._cache = self.engine.new_cache(len(tokens) + self.max_nodes + 1 + GROWTH)
        pairs = zip(self._held, tokens, strict=False)
        known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._cache.truncate(known)
        if len(tokens) > known:
            prefill(self.engine, tokens[known:], self._cache)
        self._held = list(tokens)
        return True

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """A chain after the last of ``tokens``; see `Drafter.draft`."""
        if tokens[-1] >= self.engine.vocabulary or not self._catch_up(tokens[:-1]):
            return Draft()
        most = min(self.max_nodes, self.engine.context - len(self._held))
        nodes, q = list[int](), list[float]()
        outlooks, considered = {}, {}
        token, joint = int(tokens[-1]), 1.0
        while len(nodes) < most and (not nodes or joint >= self.least):
            logits = self.engine.forward([Rows([token])], self._cache).logits[0, : self.vocabulary]
            self._cache.commit([0])
            self._held.append(token)
            logits = logits.double().cpu() / (temperature or 1.0)
            probs = logits.softmax(-1)  # (V,)
            top = probs.topk(min(SHOWN, len(probs)))
            above = len(nodes) - 1  # ROOT for the first
            considered[above] = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
            if generator is None:
                token = int(top.indices[0])
            else:
                token = int(torch.multinomial(probs, 1, generator=generator))
                outlooks[above] = (torch.arange(len(probs)), probs)
            nodes.append(token)
            q.append(float(probs[token]))
            joint *= q[-1]
        made = chain(nodes, "draft model", q)
        return replace(made, outlooks=outlooks, considered=considered)
