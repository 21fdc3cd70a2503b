"""The context layer: one decoder layer over the verified positions, before the heads.

The heads read the base model's states at one position. Hydra++ (Ankner et al. 2024, "Hydra:
sequentially-dependent draft heads for Medusa decoding") adds prefix attention: a decoder layer of
the drafter's own that looks back over all verified positions. It runs once per step, on the rows
that were committed, and its output is one more part of Z::

    x_t = join(states_t / rms, E[token_{t+1}] / rms(E))
    c_t = layer(x_0 .. x_t)                causal attention, rotary positions, feed-forward
    Z_t = (c_t, states_t)

Positions are counted from the end of the prompt: training keeps the states of answers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

ROTARY_BASE = 10_000.0


class ContextConfig(BaseModel):
    """The shape of a context layer: attention heads and the width of its feed-forward part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = Field(ge=1)
    inner_dim: int = Field(ge=1)
    rotary_base: float = Field(default=ROTARY_BASE, gt=0, allow_inf_nan=False)


def over_rms(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide x by the root mean square of its last axis, in float32: float16 holds no square."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotated(x: Tensor, positions: Tensor, base: float = ROTARY_BASE) -> Tensor:
    """Turn x (..., T, h, d) by its rotary ``positions`` (T,) (Su et al. 2021)."""
    half = x.shape[-1] // 2
    speeds = base ** (-torch.arange(half, device=x.device) / half)
    angles = (positions[:, None] * speeds)[:, None, :].to(x.dtype)  # (T, 1, d / 2)
    first, second = x.chunk(2, dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def draw_weights(layer: nn.Module, gain: float = 1.0) -> None:
    """Draw a linear map's weights: ``gain`` times those that keep the size of an input."""
    weight = layer.get_parameter("weight")
    nn.init.normal_(weight, std=gain / math.sqrt(weight.shape[1]))


class DecoderLayer(nn.Module):
    """A decoder layer of width D over the places of a text, with h attention heads of d = D / h."""

    def build(self, parts: int, width: int, inner: int, heads: int, *norms: Any) -> None:
        """Make the maps, for ``parts`` vectors of D = ``width`` a place and the two ``norms``."""
        self.attention_heads = heads
        self.join = nn.Linear(parts * width, width, bias=False)
        self.attention_norm = norms[0]
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.inner_norm = norms[1]
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def reset_parameters(self) -> None:
        """Draw the initial weights; the two projections that add to the stream start small."""
        gains = ((self.join, 1.0), (self.qkv, 1.0), (self.mix, 0.5), (self.gate_up, 1.0))
        for layer, gain in (*gains, (self.down, 0.5)):
            draw_weights(layer, gain)

    def attended(
        self, x: Tensor, positions: Tensor, base: float = ROTARY_BASE
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (..., h, d) of inputs (..., D), turned by position."""
        shape = (*x.shape[:-1], self.attention_heads, -1)
        q, k, v = (
            part.reshape(shape) for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        return rotated(q, positions, base), rotated(k, positions, base), v

    def leave(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the outputs (..., D), from inputs and what attention mixed (..., h, d)."""
        x = x + self.mix(mixed.flatten(-2))
        gate, up = self.gate_up(self.inner_norm(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * up)


class ContextLayer(DecoderLayer):
    """The decoder layer, of the base model's width D; ``parts`` states of a position enter it."""

    def __init__(self, config: ContextConfig, width: int, parts: int) -> None:
        super().__init__()
        if width % (2 * config.heads):
            raise ValueError(f"width {width} must divide by 2 x {config.heads} attention heads")
        self.config, self.parts = config, parts
        self.build(parts + 1, width, config.inner_dim, config.heads, over_rms, over_rms)

    def forward(
        self, states: Tensor, embedded: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Process T new positions: outputs (B, T, D), then all keys and values (B, P + T, h, d).

        ``states`` (B, T, parts D) are the base model's, ``embedded`` (B, T, D) the embedding of the
        next token over the table's root mean square. ``past`` holds the P positions before.
        """
        before = past[0].shape[1] if past else 0
        positions = torch.arange(before, before + states.shape[1], device=states.device)
        x, q, k, v = self.project(states, embedded, positions)
        if past:
            k, v = torch.cat([past[0], k], dim=1), torch.cat([past[1], v], dim=1)
        seen = torch.arange(k.shape[1], device=x.device) <= positions[:, None]  # (T, P + T)
        q, k_all, v_all = (part.transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k_all, v_all, attn_mask=seen)
        return self.leave(x, mixed.transpose(1, 2)), (k, v)

    def project(
        self, states: Tensor, embedded: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the inputs (..., T, D), and their queries, keys and values (..., T, h, d)."""
        normed = over_rms(states.unflatten(-1, (self.parts, embedded.shape[-1]))).flatten(-2)
        x = self.join(torch.cat([normed, embedded], dim=-1))
        return (x, *self.attended(x, positions, self.config.rotary_base))


class ContextMemory:
    """A context layer over one text: keys and values of its verified positions."""

    def __init__(self, layer: ContextLayer, table: Tensor, table_scale: float) -> None:
        self.layer, self.table, self.scale = layer, table, table_scale
        self.begin()

    def begin(self) -> None:
        """Forget the text before."""
        self._past: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def extend(self, states: Tensor, tokens: Sequence[int]) -> np.ndarray:
        """Add C verified positions; return the outputs (C, D).

        ``states`` (C, W) are what the base model's pass returned there, ``tokens`` the C tokens
        that followed.
        """
        ids = torch.as_tensor(list(tokens), device=self.table.device)
        embedded = functional.embedding(ids, self.table).float() / self.scale
        rows = states.to(embedded.device, torch.float32)
        out, self._past = self.layer(rows[None], embedded[None], self._past)
        return out[0].cpu().numpy()
