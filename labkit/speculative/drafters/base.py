"""The one interface of everything that drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

import torch

from labkit.speculative.tree import Draft


class Drafter(Protocol):
    """Guesses what comes next; the base model checks.

    A drafter may keep state of the running generation; `begin` starts a new one.
    """

    max_nodes: int
    """The most nodes that a draft of it can have."""
    layers: tuple[int, ...]
    """The layers of the base model whose states it reads, besides the last: counted from 1."""

    def begin(self, prompt: Sequence[int]) -> None:
        """A generation starts from these tokens."""

    def draft(
        self,
        tokens: Sequence[int],
        hidden: torch.Tensor,
        generator: torch.Generator | None = None,
        temperature: float = 0.0,
    ) -> Draft:
        """Candidates for what follows ``tokens`` (prompt and output so far, the root last).

        ``hidden`` (W,) is Z, the base model's state at the place whose logits gave the root, with
        those after `layers` before it. With a
        ``generator`` the children are to be drawn from the drafter's distribution at
        ``temperature``; without one, chosen by probability.
        """


class Watcher(Protocol):
    """A drafter that also reads the base model's states of everything committed."""

    def see(self, hidden: torch.Tensor) -> None:
        """``hidden`` (C, D): the states at the places that led to the C tokens committed last."""


def watches(drafter: object) -> TypeGuard[Watcher]:
    """Return whether a drafter is a `Watcher`, which a protocol itself would be slow to tell."""
    return hasattr(drafter, "see")
