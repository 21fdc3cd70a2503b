"""Heads with a context layer as a drafter: they remember the verified positions of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch

from labkit.speculative.drafters.mlp import Heads, MLPDrafter
from labkit.speculative.tree import Draft


class Memory(Protocol):
    """What a drafter keeps of one text, outside the base model's cache."""

    def begin(self) -> None:
        """Forget the text before."""


class ContextMemory(Memory, Protocol):
    """A context layer over one text."""

    def extend(self, states: torch.Tensor, tokens: Sequence[int]) -> np.ndarray:
        """Add C verified positions, by states (C, W) and next tokens; return outputs (C, D)."""


class ContextHeads(Heads, Protocol):
    """Heads that read a context layer's output as the first part of Z."""

    def new_context(self) -> ContextMemory:
        """Return the context layer over a new text."""


def has_context(heads: Heads) -> bool:
    """Return whether the heads read a context layer."""
    return getattr(heads.config, "context", None) is not None


def looking_back(
    heads: Heads, states: np.ndarray, tokens: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Return what ``heads`` start from at each place of a text: states (T, W), tokens after them.

    For heads with a context layer its outputs stand before the states: (T, D + W).
    """
    if not has_context(heads):
        return states
    memory = cast("ContextHeads", heads).new_context()
    context = memory.extend(torch.from_numpy(states), list(tokens[: len(states)]))
    return np.concatenate([context, states], axis=1)


class ReadingDrafter(MLPDrafter):
    """Drafts trees with heads that also read the committed positions of the text, in ``memory``.

    `see` gets the states of exactly the committed rows, so the memory holds verified positions only
    and never a rejected draft. They are read at the next draft, when the token after the last
    position is known.
    """

    stateless = False
    memory: Memory

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


class ContextDrafter(ReadingDrafter):
    """Drafts trees with heads that read a context layer; everything else is as in `MLPDrafter`."""

    memory: ContextMemory

    def __init__(
        self, heads: ContextHeads, max_nodes: int = 12, width: int | None = None, top_k: int = 6
    ) -> None:
        super().__init__(heads, max_nodes, width, top_k)
        self.memory = heads.new_context()

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """Draft a tree after the last of ``tokens``; see `Drafter.draft`."""
        states = self.unread()
        context = self.memory.extend(states, tokens[len(tokens) - len(states) :])
        z = np.concatenate([context[-1], hidden.float().cpu().numpy()])
        return self._after(int(tokens[-1]), z, generator, temperature)
