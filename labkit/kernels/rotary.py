"""The angles of the rotary position embedding, as transformers computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def rotary_tables(config: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines (context, size / 2) by position; any scaling of the config's is in them."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config)
    places = torch.arange(config.max_position_embeddings)[None]
    cosines, sines = rotary(torch.empty(0, dtype=torch.float32), places)
    half = size // 2
    return (
        np.ascontiguousarray(cosines[0, :, :half].numpy()),
        np.ascontiguousarray(sines[0, :, :half].numpy()),
    )
