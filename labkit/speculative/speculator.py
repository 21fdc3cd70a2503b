"""The speculator: heads that guess the tokens after the base model's next one.

The hierarchical heads that IBM and PyTorch published (Wertheimer et al. 2024, "Accelerating
production LLMs with combined token/embedding speculators"), which are Medusa's heads (Cai et al.
2024) in a chain. The base model processes a text and returns its last hidden state Z; its own head
gives the next token T0. Then::

    state_0 = Z
    state_i = gelu(norm_i(a * proj_i(state_{i-1}) + b * emb_i(T_{i-1})))      i = 1 .. K
    T_i    ~  softmax(head_i(state_i))

so head i knows what the earlier heads chose, and Medusa's independent heads do not. a = 0.5^(1/2K)
keeps some of Z in the state to the end, and b makes the token's embedding fill what a leaves.

Published speculators own large tables: emb_i is (V, inner) and head_i is (V, inner), a hundred
million numbers a head at Llama's vocabulary. Here both lean on the base model's own frozen table E
(V, D): emb_i = E P_i and head_i = E Q_i^T, with P_i (D, inner) and Q_i (inner, D) the only things
to learn. `Speculator.folded` multiplies them out, which gives exactly the published form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from labkit.speculative.context import (
    ContextConfig,
    ContextLayer,
    ContextMemory,
    draw_weights,
    over_rms,
)


def rising(layers: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``layers``, which must be numbers from 1, each larger than the one before."""
    if any(low >= high for low, high in zip((0, *layers), layers, strict=False)):
        raise ValueError("layers are counted from 1 and must rise")
    return layers


Layers = Annotated[tuple[int, ...], AfterValidator(rising)]
"""Layers of a base model, from 1 and rising, whose states are read as well as the last one's."""


class SpeculatorConfig(BaseModel):
    """The shape of a speculator; saved with its weights and checked on reading.

    ``hierarchical`` false gives Medusa's independent heads, where no token enters any state.
    ``scale_input`` normalises Z and scales it by 1/sqrt(2) first, as the published option does.
    ``layers``, counted from 1, are those whose states stand in Z before the last one; see `joined`.
    With ``context`` a `ContextLayer` runs first and its output is the first part of Z.
    ``emb_dim`` is the width D of the base model's table, ``z_dim`` that of Z. With ``tied`` all
    heads share P, Q, the norm and, from the second on, the projection, as the published
    ``tie_weights`` has it. A state of several ``groups`` is split into so many parts, each with its
    own norm, which no projection but the first mixes: heads that were trained apart and joined
    (`training.heads`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    vocab_size: int = Field(ge=2)
    emb_dim: int = Field(ge=1)
    inner_dim: int = Field(ge=1)
    n_predict: int = Field(ge=1, le=8)
    hierarchical: bool = True
    scale_input: bool = True
    layers: Layers = ()
    tied: bool = False
    groups: int = Field(default=1, ge=1)
    context: ContextConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> SpeculatorConfig:
        if self.inner_dim % (16 * self.groups) and self.groups > 1:
            raise ValueError("each group of the inner width must be a multiple of 16")
        if self.tied and not self.hierarchical:
            raise ValueError("independent heads that are tied would all say the same")
        return self

    @property
    def z_dim(self) -> int:
        """The width of Z: D for each of the layers that it is of, and for the context layer."""
        return self.emb_dim * (self.more + 1)

    @property
    def more(self) -> int:
        """How many parts Z has before the last layer's state."""
        return len(self.layers) + (self.context is not None)

    @property
    def state_weight(self) -> float:
        """a: how much of the earlier state each head keeps."""
        return 0.5 ** (0.5 / self.n_predict)

    @property
    def emb_weight(self) -> float:
        """b: so that a normalised state and a unit-variance embedding add up to variance 1."""
        return math.sqrt((1 - self.state_weight**2) * (self.inner_dim / 2))


def joined(hidden: Tensor, layers: int, width: int) -> Tensor:
    """Z from what an engine tells of a place, its ``hidden`` (..., W); see `kernels.engine.Output`.

    For heads that read no layer but the last: its state, the last D = ``width`` of ``hidden``. For
    those that read r more, all r + 1 of them, each divided by its root mean square, since the
    residual stream grows from layer to layer: (..., (r + 1) D).
    """
    if not layers:
        return hidden[..., -width:]
    return over_rms(hidden.unflatten(-1, (layers + 1, width))).flatten(-2)


def tie(*parts: nn.ModuleList) -> None:
    """Have all heads share each of ``parts``; the last is one's first and all others' second."""
    *whole, proj = parts
    for part in whole:
        for i in range(1, len(part)):
            part[i] = part[0]
    for i in range(2, len(proj)):
        proj[i] = proj[1]


class ParameterNorm(nn.Module):
    """x / rms(x), then a learnt scale and shift if ``learnt``: the published speculator's norm.

    The root mean square is that of each of ``groups`` parts of x.
    """

    def __init__(self, width: int, learnt: bool = True, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(width)) if learnt else None
        self.bias = nn.Parameter(torch.zeros(width)) if learnt else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        x = over_rms(x.unflatten(-1, (self.groups, -1))).flatten(-2)
        return x if self.weight is None or self.bias is None else x * self.weight + self.bias


class Grouped(nn.Linear):
    """A linear map without bias, each of whose ``groups`` of outputs reads one group of inputs."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs // groups, outputs, bias=False)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis: (..., inputs) to (..., outputs)."""
        if self.groups == 1:
            return super().forward(x)
        parts = zip(x.chunk(self.groups, -1), self.weight.chunk(self.groups), strict=True)
        return torch.cat([functional.linear(part, weight) for part, weight in parts], dim=-1)


class Speculator(nn.Module):
    """K heads over a base model's frozen embedding table.

    ``table`` (V, D) is the base model's embedding, shared and never trained. Parameters: ``proj``
    (K linear maps without bias: Z or inner to inner), ``token`` (P_i, K maps D to inner), ``out``
    (Q_i, K maps inner to D), ``norm`` (K norms).
    """

    table: Tensor

    def __init__(self, config: SpeculatorConfig, table: Tensor) -> None:
        super().__init__()
        if table.shape != (config.vocab_size, config.emb_dim):
            raise ValueError(
                f"The base model's table is {tuple(table.shape)}, these heads expect "
                f"{(config.vocab_size, config.emb_dim)}."
            )
        self.config = config
        inner, width, heads = config.inner_dim, config.emb_dim, config.n_predict
        self.register_buffer("table", table.detach(), persistent=False)
        self.table_scale = float(table.float().pow(2).mean().sqrt())
        self.proj = nn.ModuleList(
            Grouped(inner, inner, config.groups)
            if i and config.hierarchical
            else nn.Linear(config.z_dim, inner, bias=False)
            for i in range(heads)
        )
        self.token = nn.ModuleList(nn.Linear(width, inner, bias=False) for _ in range(heads))
        self.norm = nn.ModuleList(ParameterNorm(inner, groups=config.groups) for _ in range(heads))
        self.out = nn.ModuleList(nn.Linear(inner, width, bias=False) for _ in range(heads))
        if config.tied:
            tie(self.token, self.norm, self.out, self.proj)
        self.input_norm = ParameterNorm(config.z_dim, learnt=False)
        parts = len(config.layers) + 1
        self.context = ContextLayer(config.context, width, parts) if config.context else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the published scales: projections keep the state's size, E P_i has 1/sqrt(inner).

        The table's rows are far from unit variance, so P_i makes up for their scale.
        """
        width, inner = math.sqrt(self.config.emb_dim), math.sqrt(self.config.inner_dim)
        spread = 1 / (self.table_scale * width * inner)
        for proj, token, out in zip(self.proj, self.token, self.out, strict=True):
            draw_weights(proj)
            nn.init.normal_(token.get_parameter("weight"), std=spread)
            draw_weights(out)
        if self.context is not None:
            self.context.reset_parameters()

    def new_context(self) -> ContextMemory:
        """Return the context layer over a new text."""
        assert self.context is not None
        return ContextMemory(self.context, self.table, self.table_scale)

    def start(self, hidden: Tensor) -> Tensor:
        """Return the state before the first head: Z, normalised where the config says so.

        ``hidden`` (..., W) is what an engine tells of each place; see `joined`.
        """
        config = self.config
        z = joined(hidden, config.more, config.emb_dim)
        return self.input_norm(z) / math.sqrt(2) if config.scale_input else z

    def step(self, head: int, state: Tensor, token: Tensor) -> Tensor:
        """Run a head (from 0): the earlier state (..., Z or inner) and token (...) to a state.

        For independent heads ``state`` is the start state for every head and the token is ignored.
        """
        mixed = self.proj[head](state)
        if self.config.hierarchical:
            embedded = self.token[head](functional.embedding(token, self.table))
            mixed = mixed * self.config.state_weight + embedded * self.config.emb_weight
        return functional.gelu(self.norm[head](mixed))  # (..., inner)

    def states(
        self, hidden: Tensor, tokens: Tensor, wanted: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield each head's states (B, T, inner) under teacher forcing.

        hidden: (B, T, W), what an engine tells of places t. tokens: (B, T + K), tokens[:, t] being
        the base model's next token after place t (T0), tokens[:, t + i] the one i places on. Head
        i = 0 .. K - 1 reads tokens[:, t + i] and is to predict tokens[:, t + i + 1], so K - 1
        places of ``tokens`` beyond T are read. With ``wanted``, bool (B, T), only the states of its
        M places are computed: (M, inner), so that padding costs the heads nothing.
        """
        places = hidden.shape[1]
        if self.context is not None:  # its output at place t is the first part of Z there
            embedded = functional.embedding(tokens[:, :places], self.table) / self.table_scale
            states = hidden[..., -self.context.parts * self.config.emb_dim :]
            hidden = torch.cat([self.context(states, embedded)[0].float(), states], dim=-1)
        at = ... if wanted is None else wanted
        first = state = self.start(hidden[at])
        for head in range(self.config.n_predict):
            before = state if self.config.hierarchical else first
            state = self.step(head, before, tokens[:, head : head + places][at])
            yield state

    def feature(self, head: int, state: Tensor) -> Tensor:
        """state Q_i (..., D): the inner product with a row of the table is that token's logit."""
        return self.out[head](state)

    def rows(self, head: int, ids: Tensor) -> Tensor:
        """Return the table's rows (R, D) of some tokens, for `logits`; the same for every head."""
        del head
        return self.table[ids.to(self.table.device)]

    def logits(self, head: int, state: Tensor, table: Tensor | None = None) -> Tensor:
        """Return a head's logits (..., V), or over ``table``, rows of some tokens."""
        return self.feature(head, state) @ (self.table if table is None else table).T

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Multiply the weights out, under the published names ``emb.i proj.i head.i ln.i``."""
        weights: dict[str, Tensor] = {}
        for i, norm in enumerate(self.norm):
            weights[f"emb.{i}.weight"] = self.token[i](self.table)  # (V, inner)
            weights[f"head.{i}.weight"] = self.table @ self.out[i].get_parameter("weight")
            weights[f"proj.{i}.weight"] = self.proj[i].get_parameter("weight").clone()
            weights |= {f"ln.{i}.{name}": value.clone() for name, value in norm.named_parameters()}
        return weights
