"""Drafters that remember the verified text: heads with a context layer, and EAGLE's layer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from labkit.speculative.drafters.mlp import Heads, MLPDrafter
from labkit.speculative.eagle import Eagle

if TYPE_CHECKING:
    from labkit.kernels.eagle import PanelEagle


class RememberingDrafter(MLPDrafter):
    """Drafts trees with heads that also read the committed positions of the text, in ``memory``.

    `see` gets the states of exactly the committed rows, so the memory holds verified positions only
    and never a rejected draft. They are read at the next draft, when the token after the last
    position is known.
    """

    memory: Any

    def begin(self, prompt: Sequence[int]) -> None:
        """Forget the generation before."""
        self.memory.begin()
        self._unread: list[torch.Tensor] = []

    def see(self, hidden: torch.Tensor) -> None:
        """Keep the states (C, W) at the positions that led to the C tokens committed last."""
        self._unread.append(hidden.clone())

    def unread(self, kept: int = 0) -> torch.Tensor:
        """Return the states (C, W) seen since the last draft; the last ``kept`` stay unread."""
        states = torch.cat(self._unread) if len(self._unread) > 1 else self._unread[0]
        self._unread = [states[len(states) - kept :]]
        return states


class ContextDrafter(RememberingDrafter):
    """Drafts trees with heads that read a context layer; everything else is as in `MLPDrafter`."""

    def __init__(
        self, heads: Any, max_nodes: int = 12, width: int | None = None, top_k: int = 6
    ) -> None:
        super().__init__(heads, max_nodes, width, top_k)
        self.memory = heads.new_context()

    def read(self, tokens: Sequence[int], hidden: torch.Tensor) -> np.ndarray:
        """Return the context layer's output at the last position, and Z."""
        states = self.unread()
        context = self.memory.extend(states, tokens[len(tokens) - len(states) :])
        return np.concatenate([context[-1], super().read(tokens, hidden)])


class EagleDrafter(RememberingDrafter):
    """Drafts trees with an `Eagle`; what was read of a text is kept here, not in ``heads``."""

    def __init__(
        self, heads: EagleHeads, max_nodes: int = 12, width: int | None = None, top_k: int = 6
    ) -> None:
        self.memory = copy(heads)
        super().__init__(self.memory, max_nodes, width, top_k)

    def read(self, tokens: Sequence[int], hidden: torch.Tensor) -> np.ndarray:
        """Remember what was committed, and return Z."""
        # The last place, whose state is ``hidden`` and whose token is the root, is the tree's own.
        seen = self.unread(kept=1)
        self.memory.read(seen[:-1], tokens[len(tokens) - len(seen) : -1])
        return super().read(tokens, hidden)


class EagleHeads:
    """The layer, through torch or on packed weights, as `Heads`.

    Keys and values of what was committed lie here. A node's state is its feature (D), then keys and
    values of the stand-ins on its path (K, 2, D), those to come zero: so states can be picked and
    repeated like any others.
    """

    def __init__(self, eagle: Eagle | PanelEagle, draft_ids: np.ndarray) -> None:
        self.config, self.eagle, self.draft_ids = eagle.config, eagle, draft_ids
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
        """Read C committed places: the base model's states (C, W), and the tokens they led to."""
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
        """See `Heads.step`: states (M, S)."""
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
        if isinstance(self.eagle, Eagle):
            logits = self.eagle.logits(0, feature, self._rows)
            best, places = logits.log_softmax(-1).topk(many)
        else:
            logits, places, best = self.eagle.best(feature, many)
        new = torch.cat([feature, path.flatten(1)], dim=1)
        return new.numpy(), logits.numpy(), self.draft_ids[places.numpy()], best.numpy()

    @torch.no_grad()
    def _feature(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.eagle.feature(hidden.detach().to("cpu", torch.float32))


def tree_drafter(
    heads: Heads, max_nodes: int, width: int | None = None, top_k: int = 6
) -> MLPDrafter:
    """Return the drafter of a tree of at most so many nodes, for heads of any kind."""
    if isinstance(heads, EagleHeads):
        return EagleDrafter(heads, max_nodes, width, top_k)
    kind = ContextDrafter if has_context(heads) else MLPDrafter
    return kind(heads, max_nodes, width, top_k)


def has_context(heads: Heads) -> bool:
    """Return whether the heads read a context layer."""
    return getattr(heads.config, "context", None) is not None


def looking_back(heads: Any, states: np.ndarray, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return what ``heads`` start from at each place of a text: states (T, W), tokens after them.

    For heads with a context layer its outputs stand before the states: (T, D + W).
    """
    if not has_context(heads):
        return states
    context = heads.new_context().extend(torch.from_numpy(states), list(tokens[: len(states)]))
    return np.concatenate([context, states], axis=1)
