"""How long a text a model can read, by its config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 1 << 20
"""The longest context in tokens, whatever a config says: tables of positions have to fit memory."""


def context_of(config: Any) -> int | None:
    """Return the context length in tokens, or None for a model without a table of positions.

    longrope turns all positions by other factors once a text is longer than the context that the
    model was first trained with. Beyond that one the output would depend on how many tokens a pass
    has, so such a model is used within it.
    """
    positions = getattr(config, "max_position_embeddings", None)
    return min(LONGEST, int(positions), *_first_contexts(config)) if positions else None


def _first_contexts(config: Any) -> Iterator[int]:
    """Yield the first context of each longrope among a model's rotary embeddings."""
    given: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    for rotary in (given, *given.values()):  # one for all layers, or one for each kind of layer
        if isinstance(rotary, Mapping) and rotary.get("rope_type") == "longrope":
            key = "original_max_position_embeddings"  # transformers fills in the first of these
            yield from (
                int(first) for first in (rotary.get(key), getattr(config, key, None)) if first
            )
