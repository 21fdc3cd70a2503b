"""An EAGLE-style drafter: one decoder layer that looks back over the base model's features.

The hierarchical heads read one state, Z. EAGLE (Li et al. 2024; EAGLE-2, Li et al. 2024; EAGLE-3,
Li et al. 2025) reads the features of all places so far. A place's input joins the base model's
state there with the token that it led to::

    x_t = join(z_t, E[token_{t+1}])            the feature, one place behind the token
    f_t = layer(x_0 .. x_t)                    attention over the earlier inputs, feed-forward
    the draft of token_{t+2}  ~  softmax(E Q norm(f_t))

The next draft has no z_{t+1}, since the base model has not looked there; f_t stands in for it, and
so on. Training goes through the same stand-ins (EAGLE-3's training-time test): at depth i the
layer attends to true inputs up to place t and to the i stand-ins after it. The loss is that of
the heads: cross-entropy at every depth.

z_t is the last layer's state, or the states of several layers fused into one by a projection, as
EAGLE-3 has it. The base model's table E is frozen and shared. Against the papers: no regression on
features, and what is looked back over begins where the answer does, since only there are features
kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from labkit.speculative.context import DecoderLayer, draw_weights
from labkit.speculative.speculator import Layers, ParameterNorm, joined


class EagleConfig(BaseModel):
    """The shape of the drafter; saved beside its weights and checked on reading.

    ``inner_dim`` is the feed-forward layer's width, ``n_predict`` how deep it drafts. The states
    after ``layers``, counted from 1, are fused with the last one's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["eagle"] = "eagle"
    base: str
    vocab_size: int = Field(ge=2)
    emb_dim: int = Field(ge=2)
    inner_dim: int = Field(ge=1)
    n_predict: int = Field(ge=1, le=8)
    heads: int = Field(ge=1)
    layers: Layers = ()

    @model_validator(mode="after")
    def _check(self) -> EagleConfig:
        if self.emb_dim % (2 * self.heads):
            raise ValueError("emb_dim must divide by heads, into parts of even width")
        return self

    @property
    def z_dim(self) -> int:
        """The width of Z."""
        return self.emb_dim * (len(self.layers) + 1)

    @property
    def hierarchical(self) -> bool:
        """Each draft depends on those before it."""
        return True


class Eagle(DecoderLayer):
    """The decoder layer over a base model's frozen embedding ``table`` (V, D).

    Features, states and outputs are all of width D.
    """

    table: Tensor

    def __init__(self, config: EagleConfig, table: Tensor) -> None:
        super().__init__()
        if table.shape != (config.vocab_size, config.emb_dim):
            raise ValueError(
                f"The base model's table is {tuple(table.shape)}, this drafter expects "
                f"{(config.vocab_size, config.emb_dim)}."
            )
        self.config, width = config, config.emb_dim
        self.register_buffer("table", table.detach(), persistent=False)
        self.table_scale = float(table.float().pow(2).mean().sqrt())
        self.input_norm = ParameterNorm(width, learnt=False)
        self.fuse = nn.Linear(config.z_dim, width, bias=False) if config.layers else None
        norms = ParameterNorm(width), ParameterNorm(width)
        self.build(2, width, config.inner_dim, config.heads, *norms)
        self.output_norm = ParameterNorm(width)
        self.out = nn.Linear(width, width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights: every projection keeps its input's size, or starts small."""
        super().reset_parameters()
        draw_weights(self.out)
        if self.fuse is not None:
            draw_weights(self.fuse)

    def feature(self, hidden: Tensor) -> Tensor:
        """Return z (..., D) from the base model's states of a place (..., W)."""
        z = joined(hidden, len(self.config.layers), self.config.emb_dim)
        return z if self.fuse is None else self.fuse(z)

    def enter(self, feature: Tensor, tokens: Tensor) -> Tensor:
        """A place's input (..., D), from its feature (..., D) and the token (...) it led to."""
        embedded = functional.embedding(tokens, self.table) / self.table_scale
        return self.join(torch.cat([self.input_norm(feature), embedded], dim=-1))

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries over the root of d, keys and values (..., h, d) of inputs (..., D)."""
        q, k, v = self.attended(x, positions)
        return q / math.sqrt(q.shape[-1]), k, v

    @staticmethod
    def attend(
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        own_keys: Tensor,
        own_values: Tensor,
        unseen: Tensor | None = None,
    ) -> Tensor:
        """Mix values by softmax(q k): M nodes over T places and each one's own P stand-ins.

        q (M, h, d); keys and values (T, h, d), without those ``unseen`` (T,); own_keys and
        own_values (M, P, h, d). Returns (M, h, d).
        """
        far = torch.einsum("mhd,thd->mht", q, keys)
        if unseen is not None:
            far = far.masked_fill(unseen, -math.inf)
        near = torch.einsum("mhd,mphd->mhp", q, own_keys)
        weights = torch.cat([far, near], dim=-1).softmax(-1)
        far, near = weights.split([far.shape[-1], near.shape[-1]], dim=-1)
        mixed = torch.einsum("mht,thd->mhd", far, values)
        return mixed + torch.einsum("mhp,mphd->mhd", near, own_values)

    def states(
        self, hidden: Tensor, tokens: Tensor, wanted: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The features (B, T, D) of each depth under teacher forcing, one depth after another.

        hidden: (B, T, W), Z at places t, the first being where the answer begins. tokens:
        (B, T + K), tokens[:, t] being the base model's next token after place t. Depth i = 0 ..
        K - 1 reads tokens[:, t + i] and is to predict tokens[:, t + i + 1]. With ``wanted``, bool
        (B, T), only the features of its M places are returned: (M, D).
        """
        places = hidden.shape[1]
        position = torch.arange(places, device=hidden.device)
        unseen = position[:, None] < position[None, :]  # (T, T): place t sees those up to itself
        feature = self.feature(hidden)
        inputs: list[tuple[Tensor, Tensor]] = []  # keys and values: the true ones, then stand-ins
        for depth in range(self.config.n_predict):
            x = self.enter(feature, tokens[:, depth : depth + places])
            q, k, v = self.project(x, position + depth)  # (B, T, h, d)
            inputs.append((k, v))
            (keys, values), *stand_ins = inputs
            scores = torch.einsum("bthd,bshd->bhts", q, keys).masked_fill(unseen, -math.inf)
            own = [torch.einsum("bthd,bthd->bht", q, key)[..., None] for key, _ in stand_ins]
            weights = torch.cat([scores, *own], dim=-1).softmax(-1)  # (B, h, T, T + depth)
            mixed = torch.einsum("bhts,bshd->bthd", weights[..., :places], values)
            for place, (_, value) in enumerate(stand_ins):
                mixed = mixed + weights[..., places + place].transpose(1, 2)[..., None] * value
            feature = self.leave(x, mixed)
            yield feature if wanted is None else feature[wanted]

    def rows(self, head: int, ids: Tensor) -> Tensor:
        """The table's rows (R, D) of some tokens, for `logits`; the same at every depth."""
        del head
        return self.table[ids.to(self.table.device)]

    def logits(self, head: int, state: Tensor, table: Tensor | None = None) -> Tensor:
        """Logits (..., V) of a feature, or over the rows of ``table`` (a part of the tokens)."""
        del head
        return self.out(self.output_norm(state)) @ (self.table if table is None else table).T
