"""A model of a published shape with random weights, whose acceptance is replayed.

How long a step takes depends on the shape of a model, not on the values of its weights. So random
weights show the true TTFT, ITL and TPOT of a model that is not at hand; only the words are noise.
Whether a draft is kept cannot come from such words either. It is *replayed*: the draft of head i is
kept with a given probability, if those before it were.
"""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import psutil
import torch

from labkit.devices import pick_device, pick_dtype
from labkit.errors import LabkitError
from labkit.kernels import engine_for
from labkit.kernels.engine import Engine, Output, Rows
from labkit.serving.bench import (
    LONGEST,
    SPECULATIVE,
    VANILLA,
    Loads,
    Outcome,
    Say,
    bench_served,
    check_acceptance,
    made_up_lengths,
)
from labkit.serving.costs import NodeTable, measure_costs
from labkit.serving.engine import ServingEngine
from labkit.serving.simulate import HEAD_WIDTH, chances_by_rank
from labkit.speculative.batch import Batch, Drafting, Row
from labkit.speculative.checkpoint import PublishedConfig, PublishedSpeculator
from labkit.speculative.tree import Draft, chain
from labkit.training.plan import Shape, shape_named

CONTEXT = 4096
"""Positions of a model with random weights."""


def bench_replayed(
    shape: str,
    accept: Sequence[float],
    loads: Loads,
    device: str | None = None,
    slots: int | None = None,
    say: Say = lambda _: None,
) -> Outcome:
    """Measure every level on a model of ``shape`` with random weights, vanilla and with heads.

    ``accept[h]`` is how often a draft of head h + 1 is kept, if those before it were. The same
    users are also simulated, with the costs that were measured before the load. Raises
    `LabkitError` for an unknown shape, or a model that the memory cannot hold.
    """
    check_acceptance([[share] for share in accept])
    chances = tuple(chances_by_rank([[share] for share in accept], len(accept)))
    slots = slots or max(level.users for level in loads.levels)
    capacity = LONGEST + loads.max_new_tokens
    rng = np.random.default_rng(loads.seed)
    model = RandomModel(shape_named(shape), device, loads.seed)
    prompts = {
        str(number): rng.integers(0, model.shape.vocabulary, length).tolist()
        for number, length in enumerate(made_up_lengths(loads.most_requests, rng))
    }
    model.check_memory(len(accept), 2 * slots * capacity)  # vanilla has a cache of its own
    say(f"making {shape} with random weights")
    engine = engine_for(model)
    drafting = RandomHeads(model.speculator(len(accept)))

    def plain() -> ServingEngine:
        return ServingEngine(Batch(engine, slots, capacity))

    def speculative() -> ServingEngine:
        replayed = ReplayedEngine(engine, accept, slots, capacity, loads.seed)
        batch = Batch(replayed, slots, capacity, drafting=drafting)
        return ServingEngine(batch, NodeTable(measure_costs(batch), chances))

    shares = ",".join(f"{share:.3g}" for share in accept)
    record = partial(
        loads.log,
        f"{shape} with random weights",
        f"{shape}, random weights",
        f"this process, {engine.name} on {model.place}, {slots} slots",
        note=(
            "The weights are random: the words are noise, the times are real. The acceptance is "
            f"replayed: a draft of head 1, 2, ... is kept with probability {shares}."
        ),
    )
    methods = {VANILLA: plain, SPECULATIVE: speculative}
    found = bench_served(methods, prompts, loads, record, True, say)
    return replace(found, identical=None)  # vanilla's noise is another


class RandomModel:
    """A Llama-shaped model of random weights, as `labkit.kernels.engine_for` takes it."""

    def __init__(self, shape: Shape, device: str | None = None, seed: int = 0) -> None:
        from transformers import LlamaConfig

        self.shape, self.seed = shape, seed
        self.device = pick_device(device)
        self.dtype = pick_dtype(None, self.device)
        self.config: Any = LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            head_dim=shape.head_width,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=shape.tied,
        )

    @property
    def place(self) -> str:
        """The device by its name."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"this machine's {self.device.type}"

    @cached_property
    def module(self) -> Any:
        """The transformers model, for the plain path."""
        return self._module_on(self.device)

    def _module_on(self, device: torch.device) -> Any:
        from transformers import AutoModelForCausalLM

        with device:
            module = AutoModelForCausalLM.from_config(self.config, dtype=self.dtype)
        return module.eval().requires_grad_(False)

    def weights(self) -> Mapping[str, np.ndarray]:
        """Return the weights in float32 by transformers' names, each made when it is read."""
        return RandomWeights(self._module_on(torch.device("meta")), self.seed)

    def speculator(self, heads: int) -> PublishedSpeculator:
        """Return a speculator of the published shape with random weights."""
        config = PublishedConfig(
            vocab_size=self.shape.vocabulary,
            emb_dim=self.shape.width,
            inner_dim=min(HEAD_WIDTH, self.shape.width),
            n_predict=heads,
            top_k_tokens_per_head=(1,) * heads,
            n_candidates=1,
        )
        default = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with self.device:
                return PublishedSpeculator(config).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(default)

    def check_memory(self, heads: int, cached: int) -> None:
        """Raise `LabkitError` unless model, heads and ``cached`` tokens fit the free memory."""
        if self.device.type == "cuda":
            free = torch.cuda.mem_get_info(self.device)[0]
        else:
            free = psutil.virtual_memory().available
        shape, inner = self.shape, min(HEAD_WIDTH, self.shape.width)
        each = inner * (2 * shape.vocabulary + max(inner, shape.width))
        kept = 2 * shape.layers * shape.key_value_heads * shape.head_width * cached
        needed = (shape.weights + heads * each + kept) * self.dtype.itemsize
        if needed > 0.95 * free:
            raise LabkitError(
                f"A model of this shape, its {heads} heads and its cache need {needed / 1e9:.1f} "
                f"GB, and {free / 1e9:.1f} GB are free on {self.place}: give a smaller shape or "
                "fewer users."
            )


class RandomWeights(UserDict[str, Any]):
    """Random weights of a module's shapes, of which only the one that is read takes memory."""

    def __init__(self, empty: torch.nn.Module, seed: int) -> None:
        super().__init__({name: tuple(one.shape) for name, one in empty.named_parameters()})
        rng = np.random.default_rng(seed)
        self._numbers = rng.standard_normal((1 << 20) + 7, np.float32)  # a length that fits no row

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self.data[name]
        if len(shape) == 1:  # a norm
            return np.ones(shape, np.float32)
        return np.resize(self._numbers, shape) / np.float32(math.sqrt(shape[1]))


class RandomHeads(Drafting):
    """Chains drafted by a speculator for all rows at once; a `Drafting` for the batch."""

    layers: tuple[int, ...] = ()

    def __init__(self, speculator: PublishedSpeculator) -> None:
        self.speculator = speculator
        self.max_nodes = speculator.config.n_predict

    def begin(self, slot: int, prompt: Sequence[int]) -> None:
        """Keep nothing: the heads read only Z and the last token."""

    def see(self, slot: int, hidden: torch.Tensor) -> None:
        """Keep nothing."""

    @torch.no_grad()
    def draft(self, rows: Sequence[Row], nodes: int) -> list[Draft]:
        """Draft a chain of ``nodes`` after each row; one transfer brings all of them back."""
        table = self.speculator.emb[0].get_parameter("weight")
        hidden = torch.stack([row.hidden for row in rows if row.hidden is not None])
        state = self.speculator.start(hidden.to(table.device, table.dtype))  # (B, S)
        tokens = torch.tensor([row.tokens[-1] for row in rows], device=table.device)
        drafted = []
        for head in range(nodes):
            state = self.speculator.step(head, state, tokens)
            tokens = self.speculator.logits(head, state).argmax(-1)  # (B,)
            drafted.append(tokens)
        return [chain(row, "head") for row in torch.stack(drafted, dim=1).tolist()]


class ReplayedEngine:
    """An engine after whose passes each draft is kept with a given probability.

    The logit of a draft token becomes the largest or the smallest, so that the batch's own
    verification keeps it or not. Which it is depends on the seed, the slot and the place.
    """

    def __init__(
        self, engine: Engine, accept: Sequence[float], slots: int, capacity: int, seed: int
    ) -> None:
        self.engine = engine
        rng = np.random.default_rng(seed)
        self._keeps = rng.random((slots, capacity + 1, len(accept))) < np.array(accept)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def forward(
        self, rows: Sequence[Rows], cache: Any, logits: Any = "all", layers: Sequence[int] = ()
    ) -> Output:
        """See `labkit.kernels.engine.Engine.forward`."""
        out = self.engine.forward(rows, cache, logits, layers)
        tokens = [token for piece in rows for token in piece.tokens[1:]]
        if logits == "all" and tokens:
            sizes = [len(piece.tokens) for piece in rows]
            ends = np.cumsum(sizes) - 1  # no draft follows there
            places = np.setdiff1d(np.arange(sum(sizes)), ends).tolist()
            keeps = [
                keep
                for piece, size in zip(rows, sizes, strict=True)
                for keep in self._keeps[piece.slot, cache.lengths[piece.slot], : size - 1]
            ]
            extremes = torch.from_numpy(np.where(keeps, math.inf, -math.inf))
            out.logits[places, tokens] = extremes.to(out.logits)
        return out
