"""EAGLE as a drafter: the tree of the heads' drafter, over features that are remembered."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from labkit.speculative.drafters.context import (
    ContextDrafter,
    ContextHeads,
    ReadingDrafter,
    has_context,
)
from labkit.speculative.drafters.mlp import Heads, MLPDrafter
from labkit.speculative.eagle import Eagle
from labkit.speculative.tree import Draft

if TYPE_CHECKING:
    from labkit.kernels.eagle import PanelEagle


class EagleHeads:
    """The layer, through torch or on packed weights, as `Heads`.

    Keys and values of what was committed lie here, those of a node's stand-ins in its state.

    A node's state is its feature (D), then keys and values of the stand-ins on its path
    (K, 2, D), those to come zero: so states can be picked and repeated like any others.
    """

    def __init__(self, eagle: Eagle | PanelEagle, draft_ids: np.ndarray) -> None:
        self.config = eagle.config
        self.eagle = eagle
        self.draft_ids = draft_ids
        if isinstance(eagle, Eagle):
            self._rows = eagle.eval().rows(0, torch.as_tensor(draft_ids))
        self.begin()

    def begin(self) -> None:
        """Forget what was read."""
        heads = self.config.heads
        empty = torch.empty(0, heads, self.config.emb_dim // heads)
        self._keys, self._values = empty, empty.clone()  # (T, h, d)

    @torch.no_grad()
    def read(self, hidden: torch.Tensor, tokens: Sequence[int]) -> None:
        """Remember C committed places: the base model's states (C, W), and the tokens that they led
        to."""
        if not len(tokens):
            return
        x = self.eagle.enter(self._feature(hidden), torch.tensor(list(tokens)))
        first = len(self._keys)
        _, k, v = self.eagle.project(x, torch.arange(first, first + len(tokens)))
        self._keys, self._values = torch.cat([self._keys, k]), torch.cat([self._values, v])

    def start(self, hidden: np.ndarray) -> np.ndarray:
        """The state (1, S) before the first draft, from Z (W,)."""
        width = self.config.emb_dim
        state = np.zeros((1, width * (1 + 2 * self.config.n_predict)), np.float32)
        state[0, :width] = self._feature(torch.from_numpy(hidden)).numpy()
        return state

    @torch.no_grad()
    def step(
        self, head: int, state: np.ndarray, tokens: np.ndarray, many: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """States (M, S), logits (M, R), best token ids and their log-probabilities (M, many)."""
        width, nodes = self.config.emb_dim, len(state)
        given = torch.from_numpy(state)
        x = self.eagle.enter(given[:, :width], torch.as_tensor(tokens))
        place = torch.full((nodes,), len(self._keys) + head)
        q, k, v = self.eagle.project(x, place)  # (M, h, d)
        path = given[:, width:].reshape(nodes, -1, 2, *q.shape[1:]).clone()  # (M, K, 2, h, d)
        path[:, head] = torch.stack([k, v], dim=1)
        own_k, own_v = path[:, : head + 1].unbind(2)  # (M, head + 1, h, d)
        mixed = self.eagle.attend(q, self._keys, self._values, own_k, own_v)
        feature = self.eagle.leave(x, mixed)
        logits, places, best = self._best(feature, many)
        new = torch.cat([feature, path.flatten(1)], dim=1)
        return new.numpy(), logits.numpy(), self.draft_ids[places.numpy()], best.numpy()

    def _best(
        self, feature: torch.Tensor, many: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (M, R), and the best ``many`` places in the draft ids, with log-probs."""
        if not isinstance(self.eagle, Eagle):
            return self.eagle.best(feature, many)
        logits = self.eagle.logits(0, feature, self._rows)
        logprobs, places = logits.log_softmax(-1).topk(many)
        return logits, places, logprobs

    @torch.no_grad()
    def _feature(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.eagle.feature(hidden.detach().to("cpu", torch.float32))


class EagleDrafter(ReadingDrafter):
    """Drafts trees with an `Eagle`; what was read of a text is kept here, not in ``heads``."""

    memory: EagleHeads

    def __init__(
        self, heads: EagleHeads, max_nodes: int = 12, width: int | None = None, top_k: int = 6
    ) -> None:
        self.memory = copy(heads)
        super().__init__(self.memory, max_nodes, width, top_k, name="eagle")

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """A tree after the last of ``tokens``; see `Drafter.draft`."""
        # The last place, whose state is ``hidden`` and whose token is the root, is the tree's own.
        seen = self.unread(kept=1)
        self.memory.read(seen[:-1], tokens[len(tokens) - len(seen) : -1])
        return super().draft(tokens, hidden, generator, temperature)


def tree_drafter(
    heads: Heads, max_nodes: int, width: int | None = None, top_k: int = 6
) -> MLPDrafter:
    """Return the drafter of a tree of at most so many nodes, for heads of any kind."""
    if isinstance(heads, EagleHeads):
        return EagleDrafter(heads, max_nodes, width, top_k)
    if has_context(heads):
        return ContextDrafter(cast("ContextHeads", heads), max_nodes, width, top_k)
    return MLPDrafter(heads, max_nodes, width, top_k)
